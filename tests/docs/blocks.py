"""The fenced blocks of a document, and whether what a program printed is what the document shows.

A fence says its language and perhaps a name:

    sh           commands, run to their end, one after another in one shell
    sh NAME      commands of which the last keeps running, in a terminal of its own; it ends what ran there before
    python       a program
    text, json   what the commands or the program before it printed
    text NAME    what the terminal of that name shows by now
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_FENCE: Final = re.compile(r"^```(\w+)(?: (\w+))?$")
# What differs from run to run: times, digests and secrets, tokens, gids that are drawn, durations.
_PASSING: Final = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"), "<time>"),
    (re.compile(r"\b\d\d:\d\d:\d\d\.\d{3}\b"), "<time>"),
    (re.compile(r"\btdg_[\w-]+"), "<token>"),
    (re.compile(r"\b(?=[0-9]*[a-f])[0-9a-f]{16,}\b"), "<hex>"),
    (re.compile(r"\b\d{16}\b"), "<gid>"),
    (re.compile(r"\b\d+ ms\b"), "<span>"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block, and the line its fence is on."""

    language: str
    name: str | None
    text: str
    line: int


def blocks_of(document: Path) -> list[Block]:
    """The blocks of a document, in order; a fence that is not understood is an error."""
    found: list[Block] = []
    opened: tuple[str, str | None, int] | None = None
    lines: list[str] = []
    for number, line in enumerate(document.read_text("utf-8").splitlines(), 1):
        if opened is None:
            if line.startswith("```"):
                match = _FENCE.match(line)
                assert match, f"{document.name}:{number}: a fence without a language: {line}"
                opened, lines = (match[1], match[2], number), []
        elif line == "```":
            found.append(Block(opened[0], opened[1], "\n".join(lines) + "\n", opened[2]))
            opened = None
        else:
            lines.append(line)
    assert opened is None, f"{document.name}: the last fence is not closed"
    return found


def differs(block: Block, printed: str) -> str | None:
    """Say how what was printed is not what the block shows; None if it is."""
    return (
        _json_differs(block.text, printed) if block.language == "json" else _text_differs(block.text, printed)
    )


def _steady(text: str) -> str:
    for pattern, name in _PASSING:
        text = pattern.sub(name, text)
    return text.strip()


def _text_differs(shown: str, printed: str) -> str | None:
    """Each line that is shown stands within one that was printed, in this order; `…` stands for anything."""
    lines = iter([_steady(line) for line in printed.splitlines()])
    for wanted in filter(None, map(_steady, shown.splitlines())):
        pattern = re.compile(".*".join(map(re.escape, wanted.split("…"))))
        if not any(pattern.search(line) for line in lines):
            return f"this line was not printed, or not in this place: {wanted}"
    return None


def _json_differs(shown: str, printed: str) -> str | None:
    try:
        return _value_differs(json.loads(shown), json.loads(printed), "")
    except ValueError as error:
        return f"not JSON: {error}"


def _value_differs(shown: Any, printed: Any, path: str) -> str | None:
    if shown == "…":
        return None
    if isinstance(shown, dict) and isinstance(printed, dict):
        if shown.keys() != printed.keys():
            return f"{path or 'the object'} has the keys {', '.join(printed)}"
        troubles = (_value_differs(shown[key], printed[key], f"{path}.{key}") for key in shown)
        return next(filter(None, troubles), None)
    if isinstance(shown, list) and isinstance(printed, list) and len(shown) == len(printed):
        pairs = enumerate(zip(shown, printed, strict=True))
        troubles = (_value_differs(one, other, f"{path}[{index}]") for index, (one, other) in pairs)
        return next(filter(None, troubles), None)
    if isinstance(shown, str) and isinstance(printed, str):
        return None if _steady(shown) == _steady(printed) else f"{path} is {printed!r}"
    return None if shown == printed else f"{path} is {printed!r}"
