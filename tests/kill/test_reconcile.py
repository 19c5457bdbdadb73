"""What the harness would say of rounds that went wrong in each way there is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.kill.reconcile import Arrival, Call, Fall, Fate, Findings, Repeats, Round, reconcile

HOOK = "/hook"
PROJECT = "project"


def round_of(*arrivals: Arrival, falls: tuple[Fall, ...] = (), names: str = "abcdef") -> Round:
    """A log of events named by letters at positions 1, 2 …, each published by a call of its own and acknowledged."""
    return Round(
        hooks={HOOK: PROJECT},
        log=[(place, PROJECT, name) for place, name in enumerate(names, 1)],
        calls=[Call(PROJECT, (name,), None, Fate.ACKNOWLEDGED, place) for place, name in enumerate(names, 1)],
        arrivals=arrivals,
        falls=falls,
        overlaps=(),
    )


def came(names: str, *, at: int, taken: bool = True, delivery: str | None = None) -> Arrival:
    """A delivery of the events with these letters."""
    return Arrival(HOOK, names if delivery is None else delivery, tuple(names), at, taken)


def fell(*, cursor: int, at: int) -> Fall:
    """A process that was killed while it held the webhook, whose cursor stood here."""
    return Fall("load", at, {HOOK: cursor})


def texts(found: Findings) -> str:
    return "\n".join(found.violations)


def test_a_round_that_went_well() -> None:
    found = reconcile(round_of(came("abc", at=1), came("def", at=2)))
    assert found == Findings(acknowledged=6, deliveries=2)


def test_a_refused_delivery_comes_again_without_harm() -> None:
    refused = came("abc", at=1, taken=False)
    assert not reconcile(round_of(refused, came("abc", at=2), came("def", at=3))).violations


# -- lost ------------------------------------------------------------------------------------------


def test_an_event_that_never_came_is_lost() -> None:
    found = reconcile(round_of(came("abc", at=1), came("de", at=2)))
    assert found.lost == ["f never reached /hook"]
    assert not found.disordered and not found.wrong


def test_an_event_that_was_refused_and_never_came_again_is_lost() -> None:
    assert reconcile(round_of(came("abcdef", at=1, taken=False))).lost


def test_an_acknowledged_event_that_is_not_in_the_log_is_lost() -> None:
    it = round_of(came("abcdef", at=1))
    it = replace(it, calls=[*it.calls, Call(PROJECT, ("g", "h"), None, Fate.ACKNOWLEDGED, 8)])
    (text,) = reconcile(it).lost
    assert "2 of 2 events of the call that began with g (acknowledged) are not in the log" in text


# -- calls -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (Call(PROJECT, ("a", "b"), None, Fate.ACKNOWLEDGED, 2), None),
        (Call(PROJECT, ("a", "b"), None, Fate.ACKNOWLEDGED, 3), "its answer said up to 3"),
        (Call(PROJECT, ("b", "a"), None, Fate.ACKNOWLEDGED, 2), "its answer said up to 2"),
        (Call(PROJECT, ("a", "b"), None, Fate.REFUSED), "2 events of the call that began with a (refused)"),
        (Call(PROJECT, ("g",), None, Fate.REFUSED), None),
        (Call(PROJECT, ("a", "b"), None, Fate.UNCERTAIN), None),
        (Call(PROJECT, ("g", "h"), None, Fate.UNCERTAIN), None),
        (Call(PROJECT, ("a", "g"), None, Fate.UNCERTAIN), "in the log in part"),
    ],
)
def test_calls_are_held_against_the_log(call: Call, problem: str | None) -> None:
    it = round_of(came("ab", at=1), names="ab")
    rest = [each for each in it.calls if each.names[0] not in call.names]
    found = reconcile(replace(it, calls=[call, *rest]))
    assert not found.violations if problem is None else problem in texts(found)


def test_an_event_that_stands_twice_in_the_log_is_told() -> None:
    it = round_of(came("ab", at=1), names="ab")
    assert "a is in the log 2 times" in texts(reconcile(replace(it, log=[*it.log, (3, PROJECT, "a")])))


def test_an_event_of_nobody_is_told() -> None:
    it = round_of(came("ab", at=1), names="ab")
    assert "b is in the log, and nobody published it" in texts(reconcile(replace(it, calls=it.calls[:1])))


# -- order -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrivals", "problem"),
    [
        ((came("acb", at=1), came("def", at=2)), "has events in another order than the log"),
        ((came("ac", at=1), came("bdef", at=2)), "skips some"),
        ((came("def", at=1), came("abc", at=2)), "begins before the one that came before it"),
        ((came("def", at=1), came("abc", at=2)), "skips 3 events"),
        ((came("abc", at=1, taken=False), came("def", at=2), came("abc", at=3)), "skips 3 events"),
    ],
)
def test_disorder_is_told(arrivals: tuple[Arrival, ...], problem: str) -> None:
    found = reconcile(round_of(*arrivals))
    assert any(problem in text for text in found.disordered)


# -- repeats ---------------------------------------------------------------------------------------


def test_a_repeat_after_a_fall_that_left_it_in_flight_is_counted() -> None:
    fall = fell(cursor=0, at=2)
    found = reconcile(round_of(came("abc", at=1), came("abc", at=3), came("def", at=4), falls=(fall,)))
    assert not found.violations
    assert found.repeats == [Repeats("load", in_flight=1, posted=1, repeated=1)]


def test_a_repeat_may_have_grown() -> None:
    fall = fell(cursor=0, at=2)
    found = reconcile(round_of(came("abc", at=1), came("abcdef", at=3), falls=(fall,)))
    assert not found.violations
    assert found.repeats[0].repeated == 1


def test_what_was_in_flight_need_not_have_been_posted() -> None:
    found = reconcile(round_of(came("abcdef", at=3), falls=(fell(cursor=0, at=2),)))
    assert not found.violations
    assert found.repeats == [Repeats("load", in_flight=1)]


def test_what_a_dead_process_had_sent_may_be_read_after_it() -> None:
    """Its bytes lay in the receiver's socket when it was killed."""
    fall = fell(cursor=0, at=1)
    found = reconcile(round_of(came("abc", at=2), came("abc", at=3), came("def", at=4), falls=(fall,)))
    assert not found.violations


def test_a_lease_behind_which_there_was_nothing_was_not_in_flight() -> None:
    assert reconcile(round_of(came("abcdef", at=1), falls=(fell(cursor=6, at=2),))).repeats == [
        Repeats("load")
    ]


@pytest.mark.parametrize(
    "falls",
    [
        (),
        (fell(cursor=3, at=2),),
        (Fall("load", 2, {"/another": 0}),),
    ],
)
def test_a_repeat_without_a_fall_that_explains_it_is_told(falls: tuple[Fall, ...]) -> None:
    found = reconcile(round_of(came("abc", at=1), came("abc", at=3), came("def", at=4), falls=falls))
    assert "took the batch beginning with a 2 times, with 0 falls to excuse it" in texts(found)


def test_each_fall_excuses_one_repeat() -> None:
    fall, thrice = fell(cursor=0, at=2), [came("abc", at=at) for at in (1, 3, 5)]
    rest = came("def", at=6)
    assert "3 times, with 1 falls" in texts(reconcile(round_of(*thrice, rest, falls=(fall,))))
    both = (fall, fell(cursor=0, at=4))
    assert not reconcile(round_of(*thrice, rest, falls=both)).violations


def test_a_repeat_that_does_not_begin_at_the_cursor_is_told() -> None:
    arrivals = (came("abc", at=1), came("bcdef", at=3))
    assert "got b again" in texts(reconcile(round_of(*arrivals, falls=(fell(cursor=1, at=2),))))


def test_ids_are_of_what_is_carried() -> None:
    rest = came("def", at=4)
    other = (came("abc", at=1, taken=False), came("abc", at=2, delivery="other"), rest)
    assert "the same events came under different ids" in texts(reconcile(round_of(*other)))
    longer = (came("abc", at=1, taken=False), came("abcdef", at=2, delivery="abc"))
    assert "one id stands for different events" in texts(reconcile(round_of(*longer)))


# -- two at once -----------------------------------------------------------------------------------


def test_two_deliveries_at_once_are_told_unless_the_first_is_a_dead_process_s() -> None:
    first, second = came("abc", at=1), came("def", at=2)
    it = replace(round_of(first, second), overlaps=[(first, second)])
    assert "had two deliveries at once" in texts(reconcile(it))
    it = replace(it, falls=[fell(cursor=0, at=1)])
    assert not reconcile(it).violations


def test_a_delivery_of_nothing_or_of_something_unknown_is_told() -> None:
    everything = came("abcdef", at=1)
    assert "a delivery without events" in texts(reconcile(round_of(everything, came("", at=2))))
    assert "z, which is not in its log" in texts(reconcile(round_of(everything, came("z", at=2))))
