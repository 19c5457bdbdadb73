"""What a world is to be: everything that a seed decides beforehand, as data that can be cut down.

A plan is a policy, some receivers with their moods, a hierarchy, and a list of deeds with their times. The dice that
the running world throws (delays, jitter, gids) are seeded apart, so that a plan with some of its deeds left out is
still a world.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.sim.disk import BUSY, FULL, IO_ERROR
from tests.sim.network import MOODS
from tests.sim.universe import SECOND
from tidings.delivery import Policy
from tidings.model import Keeping, Micros, Quotas

MINUTE: Final[Micros] = 60 * SECOND
HOUR: Final[Micros] = 60 * MINUTE
DAY: Final[Micros] = 24 * HOUR

WORKSPACE: Final = "1"
FIELDS: Final = ("name", "due_on", "notes")
OWNERS: Final = ("7", "8")
# Gids of users name the events: what a receiver got is told apart by them.
# How often a receiver comes into a mood, where the others come once.
_WEIGHTS: Final = {"ok": 14, "gone": 0.3, "hindered": 2}
FIRST_EVENT: Final = 1_000_000

# A short life: minutes in which everything happens that otherwise takes days.
QUICK: Final = Policy(
    retry_first=SECOND,
    retry_max=20 * SECOND,
    give_up_after=3 * MINUTE,
    heartbeat_every=60 * SECOND,
    delivery_timeout=3 * SECOND,
)


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that is done to the service, or befalls it, at a time."""

    at: Micros
    kind: str
    what: dict[str, Any] = field(default_factory=dict)
    # Not at that time, but soon after the next such step of some webhook, and concerning that one.
    on: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    seed: int
    span: Micros
    policy: Policy
    keeping: Keeping
    poll: Micros
    concurrency: int
    quotas: Quotas
    processes: int
    skews: tuple[Micros, ...]
    # How long a commit takes, at least and at most.
    commits: tuple[Micros, Micros]
    # How many events the marker looks at, and a turn reads, at once.
    mark_max: int
    mark_much: int
    scan_max: int
    receivers: tuple[tuple[str, tuple[tuple[Micros, str], ...]], ...]
    # gid, type, parents; parents before children.
    resources: tuple[tuple[str, str, tuple[str, ...]], ...]
    deeds: tuple[Deed, ...]

    def without(self, unwanted: Callable[[int, Deed], bool]) -> Plan:
        kept = tuple(deed for index, deed in enumerate(self.deeds) if not unwanted(index, deed))
        return replace(self, deeds=kept)


# Steps of a webhook that a deed may wait for.
STEPS: Final = ("handshake", "event", "asks", "claimed", "post", "answer", "recorded")
# Deeds that are misfortunes, by the name the shrinker knows them under.
MISFORTUNES: Final = ("crash", "fuse", "cut_power", "stall", "jump", "trouble", "drain")


class _Maker:
    def __init__(self, seed: int) -> None:
        self.dice = random.Random(f"plan {seed}")
        self.seed = seed
        self.events = 0
        self.deeds: list[Deed] = []

    def make(self) -> Plan:
        dice = self.dice
        scale = dice.choices(("minutes", "hours", "days"), (5, 3, 3))[0]
        policy, span, poll = self._scale(scale)
        self.scale, self.policy, self.span = scale, policy, span
        policy = replace(policy, batch_max=dice.choice((1, 2, 3, 100)), strict_success=dice.random() < 0.1)
        self.policy = policy
        retention = policy.give_up_after + dice.choice((0, policy.give_up_after // 2, policy.give_up_after))
        if random.Random(f"keeping {self.seed}").random() < 0.3:
            # Less than settings allow: webhooks fail, or are kept from their events, for longer than these are kept.
            retention //= 6
        keeping = Keeping(
            retention=retention,
            ceiling=2 * retention,
            restore_within=max(0, retention - policy.give_up_after),
        )
        receivers = tuple(self._receiver(number) for number in range(dice.randint(1, 4)))
        self.hosts = [name for name, _ in receivers]
        self.resources = self._hierarchy()
        self._webhooks()
        self._publishes()
        self._changes()
        self._misfortunes()
        self.deeds.sort(key=lambda deed: deed.at)
        processes = dice.choices((1, 2, 3), (6, 3, 1))[0]
        return Plan(
            seed=self.seed,
            span=span,
            policy=policy,
            keeping=keeping,
            poll=poll,
            concurrency=dice.choice((1, 2, 4, 64, 64)),
            quotas=Quotas(dice.choice((2, 3, 1000)), dice.choice((3, 5, 10_000))),
            processes=processes,
            skews=tuple(
                dice.randrange(-SECOND, SECOND) if dice.random() < 0.2 else 0 for _ in range(processes)
            ),
            commits=dice.choice(((100, 2_000), (1_000, 20_000), (20_000, 400_000))),
            mark_max=dice.choice((1, 2, 3, 1_000)),
            mark_much=dice.choice((1, 3, 1_000)),
            scan_max=dice.choice((2, 3, 5, 1_000)),
            receivers=receivers,
            resources=self.resources,
            deeds=tuple(self.deeds),
        )

    def _scale(self, scale: str) -> tuple[Policy, Micros, Micros]:
        """The policy, how long the world lasts, and how often processes look at the store unasked."""
        dice = self.dice
        if scale == "minutes":
            return QUICK, dice.randrange(2, 9) * MINUTE, dice.choice((8 * SECOND, 20 * SECOND))
        if scale == "hours":
            return Policy(), dice.randrange(2, 12) * HOUR, 20 * MINUTE
        return Policy(), dice.randrange(28, 64) * HOUR, 2 * HOUR

    def _when(self, start: float = 0.0, end: float = 1.0) -> Micros:
        """Some time in this part of the world; often soon after something else, as trouble comes in clusters."""
        if self.deeds and self.dice.random() < 0.45:
            near = (
                self.dice.choice(self.deeds).at
                + self.dice.choice((20_000, 300_000, 3 * SECOND)) * (self.dice.randrange(1, 1000)) // 500
            )
            if near < self.span * end:
                return near
        return int(self.span * self.dice.uniform(start, end))

    def _do(self, at: Micros, kind: str, **what: Any) -> None:
        self.deeds.append(Deed(at, kind, what))

    def _catch(self, at: Micros, kind: str, *, on: str | None = None, **what: Any) -> None:
        """Do it at that time, or when a webhook is in the midst of something (of this, if one is named)."""
        if on is None and self.dice.random() < 0.6:
            on = self.dice.choice(STEPS)
        self.deeds.append(Deed(at, kind, what, on))

    # -- the platform ------------------------------------------------------------------------------

    def _receiver(self, number: int) -> tuple[str, tuple[tuple[Micros, str], ...]]:
        dice = self.dice
        moods: list[tuple[Micros, str]] = [(0, "ok")]
        style = dice.random()
        if style < 0.25:
            # Dead for longer than anyone waits.
            bad = dice.choice(
                ("refuse", "unreachable", "silent", "retry_soon", "retry_long", "late", "garbage", "hindered")
            )
            start = int(self.span * dice.uniform(0.0, 0.3)) + 5 * SECOND
            moods.append((start, bad))
            if dice.random() < 0.4:
                moods.append((int(start + self.policy.give_up_after * dice.uniform(0.5, 1.3)), "ok"))
        elif style < 0.85:
            at = 5 * SECOND
            while at < self.span:
                at += int(self.span * dice.uniform(0.02, 0.4))
                weights = [_WEIGHTS.get(mood, 1) for mood in MOODS]
                moods.append((at, dice.choices(MOODS, weights)[0]))
        return f"host{number}.example", tuple(moods)

    def _hierarchy(self) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
        dice = self.dice
        made: list[tuple[str, str, tuple[str, ...]]] = [(WORKSPACE, "workspace", ())]
        if dice.random() < 0.3:
            made.append(("5", "portfolio", (WORKSPACE,)))
        above = [gid for gid, _, _ in made]
        projects = [str(10 + number) for number in range(dice.randint(1, 3))]
        for gid in projects:
            made.append((gid, "project", (dice.choice(above),)))
        tasks = [str(100 + number) for number in range(dice.randint(1, 4))]
        for gid in tasks:
            # Two parents of one child make a diamond.
            parents = tuple(dict.fromkeys(dice.choices(projects, k=dice.choice((1, 1, 2)))))
            made.append((gid, "task", parents))
        if dice.random() < 0.4:
            made.append(("1000", "story", (dice.choice(tasks),)))
        return tuple(made)

    def _filters(self, resource_type: str) -> list[dict[str, Any]]:
        dice = self.dice
        if resource_type in ("workspace", "portfolio"):
            kinds = dice.sample(("project", "workspace", "portfolio"), dice.choice((1, 2)))
            return [
                {"resource_type": kind, **({"action": "changed"} if dice.random() < 0.4 else {})}
                for kind in kinds
            ]
        if dice.random() < 0.45:
            return []
        filters: list[dict[str, Any]] = []
        for _ in range(dice.choice((1, 1, 2))):
            entry: dict[str, Any] = {}
            if dice.random() < 0.6:
                entry["resource_type"] = dice.choice(("task", "project", "story"))
            if dice.random() < 0.6:
                entry["action"] = dice.choice(("changed", "added", "deleted"))
            if entry.get("action") == "changed" and dice.random() < 0.5:
                entry["fields"] = dice.sample(FIELDS, dice.choice((1, 2)))
            filters.append(entry)
        return filters

    def _webhooks(self) -> None:
        dice = self.dice
        for _ in range(dice.randint(1, 6)):
            self._create(self._when(0, 0.05) if dice.random() < 0.7 else self._when(0, 0.9))
        if dice.random() < 0.4:
            # The same again, at the same moment or later.
            creates = [deed for deed in self.deeds if deed.kind == "create"]
            again = dice.choice(creates)
            self._do(again.at + dice.choice((0, 1_000, 200_000, 20 * SECOND)), "create", **again.what)

        if dice.random() < 0.25:
            # Many on one thing at once, so that a quota is reached while hands are being shaken.
            first = dice.choice([deed for deed in self.deeds if deed.kind == "create"])
            for host in self.hosts:
                self._do(
                    first.at + dice.choice((0, 1_000, 100_000)), "create", **{**first.what, "host": host}
                )

    def _create(self, at: Micros) -> None:
        dice = self.dice
        gid, resource_type, _ = dice.choice(self.resources)
        self._do(
            at,
            "create",
            owner=dice.choice(OWNERS),
            resource=gid,
            host=dice.choice(self.hosts),
            filters=self._filters(resource_type),
        )

    # -- publishers --------------------------------------------------------------------------------

    def _event(self) -> dict[str, Any]:
        dice = self.dice
        gid, resource_type, parents = dice.choice(self.resources[1:])
        resource: Any = gid
        if dice.random() < 0.12:
            resource = {"gid": gid, "resource_type": resource_type}
            if dice.random() < 0.5:
                resource["parents"] = list(self._place(resource_type) or parents)
        event: dict[str, Any] = {
            "user": str(FIRST_EVENT + self.events),
            "resource": resource,
            "action": dice.choice(
                ("changed", "changed", "changed", "added", "deleted", "removed", "undeleted")
            ),
        }
        self.events += 1
        if event["action"] == "changed":
            event["change"] = {"field": dice.choice(FIELDS), "action": "changed"}
        if dice.random() < 0.15:
            event["parent"] = dice.choice(self.resources)[0]
        if dice.random() < 0.02:
            # Nobody knows it: the whole publish is refused, with whatever it described.
            event["parent"] = "404"
        if dice.random() < 0.1:
            event["id"] = f"ext-{dice.randrange(6)}"
        return event

    def _place(self, resource_type: str) -> tuple[str, ...] | None:
        """Where a resource of that type may stand; None where it stays."""
        above = {"task": "project", "story": "task"}.get(resource_type)
        if above is None:
            return None
        candidates = [gid for gid, kind, _ in self.resources if kind == above]
        return tuple(self.dice.sample(candidates, min(len(candidates), self.dice.choice((1, 1, 2)))))

    def _publishes(self) -> None:
        dice = self.dice
        for _ in range(dice.randint(3, 18)):
            size = dice.choice((1, 1, 1, 2, 3, 8))
            key = f"key-{dice.randrange(1000)}" if dice.random() < 0.2 else None
            self._do(self._when(), "publish", events=[self._event() for _ in range(size)], key=key)
        for deed in [deed for deed in self.deeds if deed.kind == "publish" and deed.what["key"]]:
            # A caller who heard nothing says it again.
            if dice.random() < 0.8:
                later = deed.at + dice.choice((50_000, SECOND, MINUTE, 25 * HOUR))
                other = dice.random() < 0.15
                events = [self._event()] if other else deed.what["events"]
                self._do(later, "publish", events=events, key=deed.what["key"])
        if dice.random() < 0.25:
            # Chatter: many small events, that picky webhooks refuse.
            at, step = 0, int(self.span / dice.randrange(15, 40))
            gid = dice.choice(self.resources[1:])[0]
            while (at := at + step) < self.span:
                event = {"user": str(FIRST_EVENT + self.events), "resource": gid, "action": "undeleted"}
                self.events += 1
                self._do(at, "publish", events=[event], key=None)

    def _changes(self) -> None:
        dice = self.dice
        for _ in range(dice.choice((0, 0, 1, 2, 4))):
            self._catch(
                self._when(),
                "filters",
                pick=dice.random(),
                small=self._filters("task"),
                large=self._filters("workspace"),
            )
        for _ in range(dice.choice((0, 0, 1, 2))):
            self._catch(self._when(0.1), "remove", pick=dice.random())
        for _ in range(dice.choice((0, 0, 1, 3))):
            gid, resource_type, _ = dice.choice(self.resources)
            place = self._place(resource_type)
            if place is not None:
                self._do(self._when(), "put", gid=gid, resource_type=resource_type, parents=list(place))
        if dice.random() < 0.3:
            self._do(self._when(), "drop", gid=dice.choice(self.resources[1:])[0])
        if dice.random() < 0.25:
            owner = dice.choice(OWNERS)
            at = self._when(0.1, 0.8)
            self._catch(at, "revoke", owner=owner)
            if dice.random() < 0.7:
                self._do(at + int((self.span - at) * dice.uniform(0.01, 0.9)), "grant", owner=owner)
        if dice.random() < 0.3:
            self._do(self._when(), "look", pick=dice.random())

    # -- misfortunes -------------------------------------------------------------------------------

    def _misfortunes(self) -> None:
        dice = self.dice
        if dice.random() < 0.1:
            return
        for _ in range(dice.choice((0, 1, 2, 4))):
            kind = dice.choices(("crash", "fuse", "drain", "cut_power"), (4, 5, 3, 5))[0]
            down = int(dice.choice((SECOND // 10, 2 * SECOND, self.span / 50, self.span / 6)))
            # Between a commit and its flush is the one moment at which a power cut can take something back.
            on = (
                dice.choice(("event", "recorded", "recorded"))
                if kind == "cut_power" and dice.random() < 0.8
                else None
            )
            self._catch(self._when(), kind, on=on, pick=dice.random(), down=down, fuse=dice.randrange(1, 60))
        for _ in range(dice.choice((0, 0, 0, 1, 2))):
            self._catch(self._when(), "stall", pick=dice.random(), span=dice.randrange(1, 60) * SECOND)
        for _ in range(dice.choice((0, 0, 0, 1, 2))):
            far = dice.choice((20 * SECOND, 50 * SECOND, 10 * MINUTE, 2 * HOUR, 3 * DAY))
            self._catch(self._when(), "jump", by=int(far * dice.uniform(-1, 1)))
        for _ in range(dice.choice((0, 0, 1, 2))):
            self._catch(
                self._when(),
                "trouble",
                trouble=dice.choice((BUSY, IO_ERROR, FULL)),
                odds=dice.choice((0.1, 0.5, 1.0)),
                span=dice.choice((SECOND, 30 * SECOND, 4 * MINUTE)),
            )


def make_plan(seed: int) -> Plan:
    """The world of a seed."""
    return _Maker(seed).make()


def describe(deeds: Sequence[Deed]) -> str:
    return ", ".join(f"{deed.kind}@{deed.at / SECOND:.3f}s" for deed in deeds)
