"""Holding a round's log, answers and arrivals against each other. Pure: what is wrong comes back as sentences.

An event is known by its name, which its publisher gave it; a hook by its path. A *fall* is a process that was killed,
or stopped past its lease. What was in flight at a fall is read from the files it left: the webhooks whose lease it
held, and the position of each one's cursor. A delivery begins right behind the cursor. So the rule for repeats is
exact: a batch is taken once, and once more at most for each fall that left it in flight.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise


class Fate(StrEnum):
    """What a publisher knows of a call: the answer 201, a refusal, or that no answer came."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNCERTAIN = "uncertain"


@dataclass(slots=True)
class Call:
    """One publish: events of one project. `last` is the position that the answer named."""

    project: str
    names: tuple[str, ...]
    key: str | None
    fate: Fate = Fate.UNCERTAIN
    last: int = 0


@dataclass(slots=True)
class Arrival:
    """One delivery as a receiver saw it. `taken` once its answer of 200 was decided."""

    hook: str
    delivery: str
    names: tuple[str, ...]
    at: int
    taken: bool = False


@dataclass(frozen=True, slots=True)
class Fall:
    """A process that ended, or stood still past its lease; `cursors` of the hooks it held leases of."""

    where: str
    at: int
    cursors: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Round:
    """Everything that is known of a round when it is over. `log` is (position, project, name), in order."""

    hooks: Mapping[str, str]  # each hook's project
    log: Sequence[tuple[int, str, str]]
    calls: Sequence[Call]
    arrivals: Sequence[Arrival]
    falls: Sequence[Fall]
    # Arrivals that came while an earlier one of the same hook was not yet answered: (earlier, later).
    overlaps: Sequence[tuple[Arrival, Arrival]]


@dataclass(slots=True)
class Repeats:
    """What one fall led to. `in_flight` by the leases on disk, `posted` as receivers saw, `repeated` in the end."""

    where: str
    in_flight: int = 0
    posted: int = 0
    repeated: int = 0


@dataclass(slots=True)
class Findings:
    """What a round came to. Any text in `lost`, `disordered` or `wrong` is a violation."""

    acknowledged: int = 0
    deliveries: int = 0
    lost: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    repeats: list[Repeats] = field(default_factory=list)

    @property
    def violations(self) -> list[str]:
        return [*self.lost, *self.disordered, *self.wrong]


def reconcile(it: Round) -> Findings:
    """Say what was lost, out of order, or otherwise wrong, and what each fall repeated."""
    found = Findings(repeats=[Repeats(fall.where) for fall in it.falls])
    found.acknowledged = sum(len(call.names) for call in it.calls if call.fate is Fate.ACKNOWLEDGED)
    found.deliveries = sum(arrival.taken for arrival in it.arrivals)
    found.wrong.extend(_log_against_calls(it, found))
    by_hook: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in sorted(it.arrivals, key=lambda arrival: arrival.at):
        by_hook[arrival.hook].append(arrival)
    for hook, project in it.hooks.items():
        _Hook(hook, _Log(it.log, project), by_hook[hook], it.falls, found).look(it.overlaps)
    return found


# -- the log ---------------------------------------------------------------------------------------


def _log_against_calls(it: Round, found: Findings) -> Iterator[str]:
    """What was acknowledged stands in the log once, where the answer said; of what was not, all or nothing."""
    places: dict[str, list[int]] = defaultdict(list)
    for position, _, name in it.log:
        places[name].append(position)
    yield from (
        f"{name} is in the log {len(where)} times" for name, where in places.items() if len(where) > 1
    )
    known = {name for call in it.calls for name in call.names}
    yield from (f"{name} is in the log, and nobody published it" for name in places.keys() - known)
    for call in it.calls:
        there = [places[name][0] for name in call.names if name in places]
        missing = len(call.names) - len(there)
        about = f"the call that began with {call.names[0]} ({call.fate})"
        match call.fate:
            case Fate.ACKNOWLEDGED if missing:
                found.lost.append(f"{missing} of {len(call.names)} events of {about} are not in the log")
            case Fate.ACKNOWLEDGED if there != list(range(call.last - len(there) + 1, call.last + 1)):
                yield f"{about} is at {there[0]}–{there[-1]}, its answer said up to {call.last}"
            case Fate.REFUSED if there:
                yield f"{len(there)} events of {about} are in the log"
            case Fate.UNCERTAIN if there and missing:
                yield f"{about} is in the log in part: {missing} of {len(call.names)} events are missing"


class _Log:
    """The log as one project sees it: between names and places in it, counted from 0."""

    def __init__(self, log: Iterable[tuple[int, str, str]], project: str) -> None:
        mine = [(position, name) for position, of, name in log if of == project]
        self._positions = [position for position, _ in mine]
        self.names = [name for _, name in mine]
        self.places = {name: place for place, name in enumerate(self.names)}

    def behind(self, cursor: int) -> int:
        """The place of the first event behind a cursor; past the last place if there is none."""
        return bisect_right(self._positions, cursor)


def _named(arrival: Arrival) -> str:
    return f"the delivery beginning with {arrival.names[0]}" if arrival.names else "one without events"


# -- one hook --------------------------------------------------------------------------------------


class _Hook:
    """What one webhook's receiver saw, against the log."""

    def __init__(
        self, hook: str, log: _Log, arrivals: Sequence[Arrival], falls: Sequence[Fall], found: Findings
    ) -> None:
        self._hook, self._log, self._falls, self._found = hook, log, falls, found
        self._known = [arrival for arrival in arrivals if self._is_of_the_log(arrival)]

    def _is_of_the_log(self, arrival: Arrival) -> bool:
        unknown = [name for name in arrival.names if name not in self._log.places]
        if unknown or not arrival.names:
            what = f"{unknown[0]}, which is not in its log" if unknown else "a delivery without events"
            self._found.wrong.append(f"{self._hook} got {what}")
        return not unknown and bool(arrival.names)

    def look(self, overlaps: Sequence[tuple[Arrival, Arrival]]) -> None:
        self._look_for_losses()
        self._look_at_the_order()
        self._look_at_ids()
        self._look_at_repeats()
        for earlier, later in overlaps:
            if earlier.hook == self._hook and not self._is_excused(earlier):
                self._wrong(f"had two deliveries at once, {_named(earlier)} and {_named(later)}")

    def _is_excused(self, arrival: Arrival) -> bool:
        """Whether whoever sent this may have fallen while it was in flight."""
        return arrival in self._known and bool(self._excuses(self._place(arrival)))

    def _wrong(self, text: str) -> None:
        self._found.wrong.append(f"{self._hook} {text}")

    def _place(self, arrival: Arrival) -> int:
        return self._log.places[arrival.names[0]]

    def _look_for_losses(self) -> None:
        taken = {name for arrival in self._known if arrival.taken for name in arrival.names}
        missing = [name for name in self._log.names if name not in taken]
        self._found.lost.extend(f"{name} never reached {self._hook}" for name in missing)

    def _look_at_the_order(self) -> None:
        """Within a delivery without a gap; from one to the next never back, and never past what was not taken."""
        taken_to = 0
        begins = 0
        for arrival in self._known:
            places = [self._log.places[name] for name in arrival.names]
            if any(later != earlier + 1 for earlier, later in pairwise(places)):
                self._disordered(arrival, "has events in another order than the log, or skips some")
            if places[0] < begins:
                self._disordered(arrival, "begins before the one that came before it")
            if places[0] > taken_to:
                self._disordered(arrival, f"skips {places[0] - taken_to} events")
            begins = max(begins, places[0])
            if arrival.taken:
                taken_to = max(taken_to, places[-1] + 1)

    def _disordered(self, arrival: Arrival, what: str) -> None:
        self._found.disordered.append(f"{self._hook}: {_named(arrival)} {what}")

    def _look_at_ids(self) -> None:
        """The same events have the same id; other events have another."""
        pairs = {(arrival.delivery, arrival.names) for arrival in self._known}
        for what, counted in (
            ("one id stands for different events", Counter(delivery for delivery, _ in pairs)),
            ("the same events came under different ids", Counter(names for _, names in pairs)),
        ):
            if any(count > 1 for count in counted.values()):
                self._wrong(f"{what}")

    def _excuses(self, place: int) -> list[int]:
        """The falls (by number) that left the delivery in flight which begins at this place."""
        return [
            number
            for number, fall in enumerate(self._falls)
            if self._hook in fall.cursors and self._log.behind(fall.cursors[self._hook]) == place
        ]

    def _look_at_repeats(self) -> None:
        """A batch is taken once, and once more for each fall that left it in flight."""
        taken: dict[int, list[Arrival]] = defaultdict(list)
        for arrival in self._known:
            if arrival.taken:
                taken[self._place(arrival)].append(arrival)
        taken_to = -1
        for place, takings in sorted(taken.items()):
            excuses, extra = self._excuses(place), len(takings) - 1
            if place <= taken_to:
                self._wrong(f"got {self._log.names[place]} again, at the head of another delivery")
            if extra > len(excuses):
                times = f"{len(takings)} times, with {len(excuses)} falls to excuse it"
                self._wrong(f"took the batch beginning with {self._log.names[place]} {times}")
            for number in excuses[:extra]:
                self._found.repeats[number].repeated += 1
            taken_to = max(self._log.places[arrival.names[-1]] for arrival in takings)
        self._count_in_flight()

    def _count_in_flight(self) -> None:
        first_seen: dict[int, int] = {}
        for arrival in self._known:
            first_seen.setdefault(self._place(arrival), arrival.at)
        for repeats, fall in zip(self._found.repeats, self._falls, strict=True):
            place = self._log.behind(fall.cursors[self._hook]) if self._hook in fall.cursors else None
            if place is not None and place < len(self._log.names):
                repeats.in_flight += 1
                repeats.posted += first_seen.get(place, fall.at) < fall.at
