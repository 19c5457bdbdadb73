"""What the observer knows of the service's world, worked out anew from what was asked for.

Nothing here uses the engine's code: scopes are climbed, filters held against events and outcomes judged by a few lines
of their own, from the contract's words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from tests.sim.network import Heard
from tidings.model import Answer, Filter, Micros, NoAnswer, Position

if TYPE_CHECKING:
    from tests.sim.process import Process

# "Events of tasks, stories, attachments and sections do not reach workspaces, teams and portfolios."
STAYS_BELOW: Final = ("task", "story", "attachment", "section")
ABOVE: Final = ("workspace", "team", "portfolio")


@dataclass(slots=True)
class Event:
    number: int
    position: Position
    kind: str
    action: str
    field: str | None
    scopes: frozenset[str]
    # How long the service had been up when it was accepted.
    accepted_at: Micros


@dataclass(slots=True)
class Turn:
    """A claim of a webhook, and what came of it; filters, cursor and the log's end as they were when it was read."""

    until: Micros
    process: Process
    index: int
    now: Micros
    filters: tuple[Filter, ...]
    version: int
    cursor: Position
    end: Position
    # What it leased was read, so it may be posted at any moment.
    read: bool = False
    posted: bool = False
    flying: bool = False
    # A later claim found its lease run out: then, and only then, may two be in flight.
    outlived: bool = False
    numbers: tuple[int, ...] = ()
    positions: tuple[Position, ...] = ()
    body: bytes = b""
    name: str = ""
    started: Micros = 0
    ended: Micros = 0
    heard: Heard | None = None


@dataclass(slots=True)
class Hook:
    """A webhook, as it must be by all that was committed."""

    gid: str
    number: int
    owner: str
    resource: str
    target: str
    filters: tuple[Filter, ...]
    born: Micros
    start: Position
    cursor: Position
    version: int = 0
    visible: list[Event] = field(default_factory=list)
    turns: dict[int, Turn] = field(default_factory=dict)
    fence: int = 0
    leased: Turn | None = None
    ended: str | None = None
    ended_index: int = 0
    purged: bool = False
    lost: bool = False
    # The unbroken run of failures: attempts in it, time in which attempts were really made, clock mischief.
    failures: int = 0
    run_since: Micros = 0
    run_covered: Micros = 0
    run_strict: Micros = 0
    last_end: Micros = 0
    planned: Micros = 0
    # True time of the last success.
    contact: Micros = 0
    pinned: tuple[bytes, str, int] | None = None
    # What each delivery held, and what it was called.
    bodies: dict[str, bytes] = field(default_factory=dict)
    names: dict[tuple[int, tuple[int, ...]], str] = field(default_factory=dict)
    stopped_since: int | None = None

    def become(self, other: Hook) -> None:
        """Be as it was when `other` was copied from it."""
        for each in fields(other):
            setattr(self, each.name, getattr(other, each.name))

    def wanted(self, after: Position, upto: Position, filters: Sequence[Filter]) -> list[Event]:
        """The events between two positions that these filters accept, in order."""
        return [event for event in self.visible if after < event.position <= upto and matches(filters, event)]


def matches(filters: Sequence[Filter], event: Event) -> bool:
    if not filters:
        return True
    for entry in filters:
        if entry.resource_type not in (None, event.kind) or entry.action not in (None, event.action):
            continue
        if entry.fields is None or event.field in entry.fields:
            return True
    return False


def succeeded(heard: Heard, *, strict: bool) -> bool:
    answer = heard.answer
    if not isinstance(answer, Answer):
        return False
    return answer.status in ((200, 204) if strict else range(200, 300))


def gone(heard: Heard) -> bool:
    return isinstance(heard.answer, Answer) and heard.answer.status == 410


def hindered(heard: Heard) -> bool:
    """Whether the sender could not send it."""
    return isinstance(heard.answer, NoAnswer) and heard.answer.ours


class Places:
    """Resources, and what stands above them."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.parents: dict[str, tuple[str, ...]] = {}

    def put(self, gid: str, kind: str, parents: Iterable[str] | None, *, keep: bool) -> None:
        self.kinds[gid] = kind
        if parents is not None or not keep:
            self.parents[gid] = tuple(parents or ())
        self.parents.setdefault(gid, ())

    def scopes(self, gid: str, parent: str | None) -> frozenset[str]:
        seen: set[str] = set()
        todo = [gid] if parent is None else [gid, parent]
        while todo:
            at = todo.pop()
            if at not in seen:
                seen.add(at)
                todo.extend(self.parents[at])
        if self.kinds[gid] in STAYS_BELOW:
            seen = {each for each in seen if self.kinds[each] not in ABOVE}
        return frozenset(seen)

    def diamond(self, gid: str) -> bool:
        return len(self.parents[gid]) > 1


def described(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Resources described within events, in order."""
    found = []
    for event in events:
        for key in ("resource", "parent"):
            if isinstance(event.get(key), dict):
                found.append(event[key])
    return found


def name_of(resource: Any) -> str:
    return str(resource["gid"] if isinstance(resource, dict) else resource)
