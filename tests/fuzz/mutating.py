"""Mutations of texts and bytes, by dice that can be thrown again."""

import random
from collections.abc import Sequence
from typing import TypeVar

Text = TypeVar("Text", str, bytes)


def mutated(dice: random.Random, text: Text, corpus: Sequence[Text], tokens: Sequence[Text]) -> Text:
    """A text after some mutations: parts deleted, repeated, replaced, moved, and spliced in from others."""
    for _ in range(dice.choice((0, 1, 1, 2, 3, 8))):
        text = _mutated_once(dice, text, corpus, tokens)
    return text


def _mutated_once(dice: random.Random, text: Text, corpus: Sequence[Text], tokens: Sequence[Text]) -> Text:
    begin, end = _span(dice, text)
    match dice.randrange(6):
        case 0:
            return text[:begin] + text[end:]
        case 1:
            return text[:end] + text[begin:end] * dice.choice((1, 2, 30)) + text[end:]
        case 2:
            return text[:begin] + dice.choice(tokens) + text[end:]
        case 3:
            return text[:begin] + dice.choice(tokens) + text[begin:]
        case 4:
            other = dice.choice(corpus)
            first, last = _span(dice, other)
            return text[:begin] + other[first:last] + text[end:]
        case _:
            return text[:begin] + text[end:] + text[begin:end]


def _span(dice: random.Random, text: Text) -> tuple[int, int]:
    begin = dice.randint(0, len(text))
    return begin, min(len(text), begin + dice.choice((0, 1, 1, 2, 4, 16, 64)))
