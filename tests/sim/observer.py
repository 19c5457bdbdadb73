"""Knows what must arrive, and says at once when an invariant of the design is broken.

It is told of every commit (what it held, in order), every delivery as it starts and ends, and every answer a caller
got. From that it works out, by `model.py`, what each webhook must be sent next, and compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tests.sim.model import Event, Hook, Places, Turn, described, gone, hindered, matches, name_of, succeeded
from tests.sim.network import Heard
from tests.sim.universe import SECOND
from tidings.model import (
    Claimed,
    ClaimRequest,
    Delivery,
    End,
    EndReason,
    Micros,
    Publication,
    Published,
    Record,
    Sweep,
    Webhook,
)
from tidings.sealing import Sealer

# As the processes seal.
SEALER: Final = Sealer(bytes(32))

if TYPE_CHECKING:
    from tests.sim.process import Done, Process
    from tests.sim.world import World

IDEMPOTENCY: Final[Micros] = 24 * 3600 * SECOND
# An attempt begun later than this does not count its lateness towards the end of the webhook.
LATE: Final[Micros] = 60 * SECOND
_first_number: Final = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that was broken, in words."""

    invariant: str
    text: str
    webhook: str | None
    at: Micros


class Observer:
    def __init__(self, world: World) -> None:
        self._world = world
        self._plan = world.plan
        self.violation: Violation | None = None
        self.seen: Counter[str] = Counter()
        self.trace: list[tuple[Any, ...]] = []
        self.places = Places()
        self.hooks: dict[str, Hook] = {}
        self._numbers: dict[int, Hook] = {}
        # Events by number as the publisher gave them, and as they stand in the log.
        self.raw: dict[int, dict[str, Any]] = {}
        self.log: dict[int, Event] = {}
        self.end = 0
        self.trimmed = 0
        self._ids: dict[str, int] = {}
        self._keys: dict[str, tuple[tuple[int, ...], Published, Micros]] = {}
        self._tokens: dict[str, set[str]] = {}
        self._token_owner: dict[str, str] = {}
        self._index = 0
        # Handshakes under way, and the last secret that was sent, by target.
        self._shaking: dict[str, list[tuple[Process, str]]] = {}
        self._told: dict[str, str] = {}
        self._committed: set[int] = set()
        self.jumped_at: list[tuple[Micros, Micros]] = []

    # -- telling -----------------------------------------------------------------------------------

    def fail(self, invariant: str, text: str, hook: Hook | None = None) -> None:
        if self.violation is None:
            self.violation = Violation(invariant, text, hook.gid if hook else None, self._world.universe.now)
            self._world.universe.stopped = True

    def note(self, what: str, process: Process | None, webhook: str | None, *details: Any) -> None:
        number = None if process is None else process.number
        self.trace.append((self._world.universe.now, what, number, webhook, *details))
        if what in self._world.waiting:
            self._world.step(what, process, webhook)

    @property
    def now(self) -> Micros:
        return self._world.universe.now

    # -- commits -----------------------------------------------------------------------------------

    def committed(self, entries: Sequence[Done]) -> None:
        for done in entries:
            self._index += 1
            getattr(self, f"_on_{done.method}")(done)

    def left_unflushed(self, entries: Sequence[Done]) -> None:
        """A process commits again, and has these yet to flush."""
        if any(done.method == "record" for done in entries):
            self.fail("durable", "something was begun before a record was flushed")

    def power_cut(self, lost: Sequence[Done]) -> None:
        """Only claims may be gone, and of each webhook one record of what went steadily: that batch is sent again."""
        records: Counter[str] = Counter()
        for done in reversed(lost):
            if done.method == "claim":
                for number, (fence, _) in done.result.webhooks.items():
                    self._numbers[number].fence = fence - 1
                    self.seen["lost_flush"] += 1
            elif done.method == "record" and all(record.steady for record in done.arguments[0]):
                for hook, before in reversed(done.before):
                    hook.become(before)
                    records[hook.gid] += 1
                    self.seen["lost_record"] += 1
                    if records[hook.gid] > 1:
                        self.fail("durable", "a power cut took back two of its records", hook)
            elif done.method not in ("release_dead_holders", "touch_tokens"):
                self.fail("durable", f"a power cut took back a {done.method} that was acknowledged or may be")
        for hook in self.hooks.values():
            hook.leased = None

    def _on_drop_holder(self, done: Done) -> None:
        for hook in self.hooks.values():
            if hook.leased is not None and hook.leased.process is done.process:
                hook.leased = None

    def _on_release_dead_holders(self, done: Done) -> None:
        self.seen["dead_holder"] += bool(done.result)

    def _on_put_resources(self, done: Done) -> None:
        for draft in done.arguments[0]:
            known = draft.gid in self.places.kinds
            self.places.put(draft.gid, draft.resource_type, draft.parents, keep=draft.keep_omitted)
            if known:
                self.seen["moved"] += 1
                self.note("moved", done.process, None, draft.gid, draft.parents)

    def _on_delete_resource(self, done: Done) -> None:
        self.seen["resource_deleted"] += 1

    # -- the log -----------------------------------------------------------------------------------

    def _on_publish(self, done: Done) -> None:
        publication: Publication = done.arguments[0]
        now = done.named["now"]
        numbers = tuple(int(_first_number(draft.user)["gid"]) for draft in publication.events)
        events = [self.raw[number] for number in numbers]
        key = None if publication.idempotency is None else publication.idempotency.key
        known = None if key is None else self._keys.get(key)
        if known is not None and known[2] > now - IDEMPOTENCY:
            self.seen["idempotent_repeat"] += 1
            if known[0] != numbers or known[1] != done.result:
                self.fail("idempotency", f"key {key} was answered {done.result}, first {known[1]}")
            return
        for resource in described(events):
            self.places.put(resource["gid"], resource["resource_type"], resource.get("parents"), keep=True)
        for number, event in zip(numbers, events, strict=True):
            self._append(number, event, now, done.process)
        expected = Published(len(numbers), self.end)
        if done.result != expected:
            self.fail("positions", f"a publish was answered {done.result}, not {expected}")
        if key is not None:
            self._keys[key] = (numbers, expected, now)
        self._committed.update(numbers)

    def _append(self, number: int, raw: dict[str, Any], now: Micros, process: Process) -> None:
        external = raw.get("id")
        if external in self._ids:
            self.seen["repeated_id"] += 1
            return
        self.end += 1
        if external is not None:
            self._ids[external] = self.end
        gid = name_of(raw["resource"])
        parent = None if raw.get("parent") is None else name_of(raw["parent"])
        change = raw.get("change")
        event = Event(
            number,
            self.end,
            self.places.kinds[gid],
            raw["action"],
            change["field"] if change else None,
            self.places.scopes(gid, parent),
            self._world.uptime(),
        )
        self.seen["diamond"] += self.places.diamond(gid)
        self.log[number] = event
        self.note("event", process, None, number, event.position, sorted(event.scopes))
        for hook in self.hooks.values():
            if hook.resource in event.scopes:
                hook.visible.append(event)

    def acknowledged(self, events: Sequence[dict[str, Any]], result: Published) -> None:
        """A publisher was told that these are durable."""
        for event in events:
            number = int(event["user"])
            if number not in self._committed:
                self.fail("durable", f"event {number} was acknowledged and not committed")
        if result.last > self.end:
            self.fail("positions", f"a publish was answered {result}, the log ends at {self.end}")

    def _on_trim(self, done: Done) -> None:
        sweep: Sweep = done.arguments[0]
        now = done.named["now"]
        self._keys = {key: kept for key, kept in self._keys.items() if kept[2] >= now - IDEMPOTENCY}
        if sweep.losing and not sweep.unmarked:
            for number in sweep.losing:
                self._lose(self._numbers[number], sweep.last_event)
        if not done.result:
            return
        (first,) = self._world.disk.witness.execute("SELECT min(position) FROM events").fetchone()
        upto = self.end if first is None else first - 1
        if upto > self.trimmed:
            self.seen["trimmed"] += 1
            self._trim_events(upto)
        self._purge()

    def _lose(self, hook: Hook, upto: int) -> None:
        """Its record says that it has lost what it had not read, which is so if there was any."""
        unread = [event for event in hook.visible if hook.cursor < event.position <= upto]
        if not unread:
            return
        self._judge_age(unread, self._plan.keeping.ceiling, "lost unread, before the ceiling", hook)
        hook.lost = True
        self.seen["lost_events"] += 1
        hook.cursor = max(hook.cursor, upto)
        hook.version += 1
        hook.pinned = None

    def _trim_events(self, upto: int) -> None:
        trimmed = [event for event in self.log.values() if self.trimmed < event.position <= upto]
        self._judge_age(trimmed, self._plan.keeping.retention, "trimmed too early")
        for hook in self.hooks.values():
            if hook.ended is None and any(hook.cursor < event.position <= upto for event in hook.visible):
                self.fail("readable", "events were trimmed unread, and its record says nothing", hook)
        self._ids = {name: position for name, position in self._ids.items() if position > upto}
        self.trimmed = upto

    def _judge_age(self, events: Sequence[Event], kept: Micros, what: str, hook: Hook | None = None) -> None:
        """Only time in which the service was up counts, whatever the clocks say."""
        for event in events:
            if self._world.uptime() - event.accepted_at < kept:
                self.fail("readable", f"event {event.number} was {what}", hook)

    def _purge(self) -> None:
        live = {number for (number,) in self._world.disk.witness.execute("SELECT webhook FROM cursors")}
        for hook in self.hooks.values():
            if hook.number not in live and not hook.purged:
                if hook.ended is None:
                    self.fail("purged", "a live webhook's row is gone", hook)
                hook.purged = True

    # -- webhooks ----------------------------------------------------------------------------------

    def _on_add_webhook(self, done: Done) -> None:
        webhook: Webhook = done.result
        owner, resource = webhook.owner.user, webhook.resource.gid
        live = [hook for hook in self.hooks.values() if hook.ended is None]
        if any(
            (each.owner, each.resource, each.target) == (owner, resource, webhook.target) for each in live
        ):
            self.fail("duplicates", f"{owner} has two webhooks on {resource} for {webhook.target}")
        quotas = self._plan.quotas
        if sum(hook.resource == resource for hook in live) >= quotas.per_resource:
            self.fail("quotas", f"{resource} has more than {quotas.per_resource} webhooks")
        if sum(hook.owner == owner for hook in live) >= quotas.per_owner:
            self.fail("quotas", f"{owner} has more than {quotas.per_owner} webhooks")
        self._judge_secret(webhook)
        if webhook.cursor != self.end:
            self.fail("cursor", f"a webhook began at {webhook.cursor}, the log ends at {self.end}")
        hook = Hook(
            gid=webhook.gid,
            number=webhook.sequence,
            owner=owner,
            resource=resource,
            target=webhook.target,
            filters=webhook.filters,
            born=self.now,
            start=self.end,
            cursor=self.end,
            contact=self.now,
        )
        self.hooks[webhook.gid] = self._numbers[hook.number] = hook
        if not self._tokens.get(owner):
            hook.stopped_since = self._index
        self.note("established", done.process, hook.gid, hook.resource, hook.target, hook.filters)

    def _on_replace_filters(self, done: Done) -> None:
        hook = self.hooks[done.arguments[0]]
        if done.result is None:
            return
        hook.filters = tuple(done.arguments[1])
        hook.version += 1
        self.seen["filters_replaced"] += 1
        self.seen["filters_in_flight"] += hook.leased is not None
        self.note("filters", done.process, hook.gid, hook.filters)

    def _on_remove_webhook(self, done: Done) -> None:
        hook = self.hooks[done.arguments[0]]
        if done.result:
            self.seen["removed"] += 1
            self.seen["removed_in_flight"] += hook.leased is not None
            self._end(hook, "deleted", done.process)

    def _end(self, hook: Hook, reason: str, process: Process) -> None:
        if hook.ended is None:
            hook.ended = reason
            hook.ended_index = self._index
            self.note("ended", process, hook.gid, reason)

    def removed(self, process: Process, gid: str) -> None:
        """A caller was told by this process that a webhook is no more."""
        process.removed.add(gid)
        if self.hooks[gid].ended is None:
            self.fail("ended", "a delete was acknowledged and not committed", self.hooks[gid])

    def _on_add_token(self, done: Done) -> None:
        token = done.arguments[0]
        if done.result:
            self._token_owner[token.gid] = token.owner.user
            self._tokens.setdefault(token.owner.user, set()).add(token.gid)
            self._review(token.owner.user)

    def _on_revoke_token(self, done: Done) -> None:
        owner = self._token_owner[done.arguments[0]]
        self._tokens[owner].discard(done.arguments[0])
        self._review(owner)

    def _review(self, owner: str) -> None:
        covered = bool(self._tokens[owner])
        for hook in self.hooks.values():
            if hook.owner == owner and hook.ended is None:
                if covered and hook.stopped_since is not None:
                    self.seen["resumed"] += 1
                    hook.stopped_since = None
                    # Nobody tried while it was stopped.
                    self._world.troubled()
                    self.note("resumed", None, hook.gid)
                elif not covered and hook.stopped_since is None:
                    self.seen["stopped"] += 1
                    hook.stopped_since = self._index
                    self.note("stopped", None, hook.gid)

    # -- claims ------------------------------------------------------------------------------------

    def _on_claim(self, done: Done) -> None:
        request: ClaimRequest = done.arguments[0]
        self._free_leases(done.process, request)
        self._free_unread(done.process, done.result.freed)
        for number, (fence, _) in done.result.webhooks.items():
            hook = self._numbers[number]
            if hook.ended is not None:
                self.fail("ended", f"claimed after it was {hook.ended}", hook)
            if hook.stopped_since is not None:
                self.fail("ended", "claimed while it is stopped", hook)
            if fence != hook.fence + 1:
                self.fail("fence", f"fence {fence} after {hook.fence}", hook)
            # The time of the claim, by the clock of who made it.
            now = done.result.until - request.lease
            self._judge_lease(hook, done.process, now=now, lease=request.lease)
            turn = Turn(
                until=done.result.until,
                process=done.process,
                index=self._index,
                now=now,
                filters=hook.filters,
                version=hook.version,
                cursor=hook.cursor,
                end=self.end,
            )
            hook.fence = fence
            hook.turns[fence] = hook.leased = turn
            self.note("claimed", done.process, hook.gid, fence, hook.cursor)

    def read(self, process: Process, claimed: Claimed) -> None:
        """What was leased is read, when others may have written since: it must be as it is at this moment."""
        for claim in claimed.claims:
            hook = self.hooks[claim.gid]
            turn = hook.turns[claim.lease.fence]
            if claim.lease.fence != hook.fence or turn.process is not process:
                self.fail("fence", f"read under fence {claim.lease.fence}, which is {hook.fence}", hook)
            if claim.cursor != hook.cursor:
                self.fail("cursor", f"the cursor stands at {claim.cursor}, not at {hook.cursor}", hook)
            self.seen["decided_unread"] += hook.version != turn.version
            if hook.leased is not turn:
                self.fail("lease", "read under a lease that another has freed", hook)
            turn.read = True
            turn.filters, turn.version = hook.filters, hook.version
            turn.cursor, turn.end = hook.cursor, self.end

    def _free_leases(self, process: Process, request: ClaimRequest) -> None:
        """Every claim frees the leases that have run out by its clock, but for what that process has in flight."""
        now = process.now()
        for hook in self.hooks.values():
            turn = hook.leased
            if turn is None or turn.process is process or turn.process.ended:
                continue
            if not now < turn.until <= now + 2 * request.lease:
                self._outlive(hook)

    def _free_unread(self, process: Process, leases: Sequence[tuple[int, int]]) -> None:
        """Leases that were committed and could not be read are given back; nothing was sent under them."""
        for number, fence in leases:
            hook = self._numbers[number]
            turn = hook.leased
            if turn is None or turn.process is not process or hook.fence != fence:
                continue
            if turn.posted:
                self.fail("lease", "given back as if it had not been read", hook)
            self.seen["left_unread"] += 1
            hook.leased = None

    def _outlive(self, hook: Hook) -> None:
        self.seen["lease_ran_out"] += 1
        hook.leased = None
        for turn in hook.turns.values():
            # What was read may be on its way at any moment.
            turn.outlived = turn.outlived or turn.flying or (turn.read and not turn.posted)

    def _judge_lease(self, hook: Hook, process: Process, *, now: Micros, lease: Micros) -> None:
        before = hook.leased
        if before is None or before.process.ended:
            return
        until = before.until
        if not (until <= now or until > now + 2 * lease):
            self.fail("lease", f"claimed {(until - now) / SECOND:.3f} s before its lease ran out", hook)
        if before.process is process:
            self.fail("lease", "claimed twice by the process that holds it", hook)
        self._outlive(hook)

    # -- deliveries --------------------------------------------------------------------------------

    def post_started(self, process: Process, delivery: Delivery) -> Callable[[Heard], None]:
        if delivery.body == b"{}":
            return self._handshake(process, delivery)
        headers = dict(delivery.headers)
        hook = self.hooks[headers["X-Tidings-Webhook"]]
        claim = process.claims.get(hook.gid)
        if claim is None:
            self.fail("claim", "a delivery without a claim", hook)
            return lambda heard: None
        turn = hook.turns[claim.lease.fence]
        if turn.posted:
            self.fail("claim", "two deliveries under one claim", hook)
        events = _first_number(delivery.body)["events"]
        turn.numbers = tuple(int(event["user"]["gid"]) for event in events)
        turn.body, turn.name = delivery.body, headers["X-Tidings-Delivery"]
        turn.started, turn.posted = self.now, True
        self.note("post", process, hook.gid, turn.name[:8], turn.numbers)
        self._judge_start(hook, turn, process, delivery)
        self._judge_content(hook, turn)
        self._judge_times(hook, turn)
        turn.flying = True

        def ended(heard: Heard) -> None:
            self._post_ended(hook, turn, heard)

        return ended

    def _judge_start(self, hook: Hook, turn: Turn, process: Process, delivery: Delivery) -> None:
        if hook.ended is not None and (turn.index > hook.ended_index or hook.gid in process.removed):
            self.fail("ended", f"a delivery started after it was {hook.ended}", hook)
        left = turn.until - process.now()
        if left < delivery.timeout:
            self.fail("lease", f"a delivery started with {left / SECOND:.3f} s left on its lease", hook)
        for other in hook.turns.values():
            if not other.flying or other is turn:
                continue
            if other.process.ended:
                other.flying = False
            elif other.process is process or not other.outlived:
                self.fail("one at a time", "two deliveries in flight at once", hook)
            else:
                self.seen["overlap"] += 1

    def _judge_content(self, hook: Hook, turn: Turn) -> None:
        wanted = hook.wanted(turn.cursor, turn.end, turn.filters)[: len(turn.numbers)]
        if turn.numbers != tuple(event.number for event in wanted):
            self._judge_strangers(hook, turn)
            self.fail(
                "order",
                f"events {list(turn.numbers)} were sent, next are {[event.number for event in wanted]}",
                hook,
            )
        turn.positions = tuple(event.position for event in wanted)
        if len(wanted) > self._plan.policy.batch_max:
            self.fail("batch", f"{len(wanted)} events in one delivery", hook)
        if turn.name in hook.bodies and hook.bodies[turn.name] != turn.body:
            self.fail("same bytes", f"delivery {turn.name[:8]} was sent with other bytes before", hook)
        hook.bodies[turn.name] = turn.body
        if wanted:
            before = hook.names.setdefault((turn.version, turn.positions), turn.name)
            if before != turn.name:
                self.fail("same id", f"{before[:8]} comes again as {turn.name[:8]}", hook)
        pinned = hook.pinned
        if pinned is not None and pinned[2] == turn.version:
            self.seen["same_bytes"] += 1
            if (turn.body, turn.name) != pinned[:2]:
                self.fail("same bytes", f"a retry of {pinned[1][:8]} was sent as {turn.name[:8]}", hook)

    def _judge_strangers(self, hook: Hook, turn: Turn) -> None:
        """Say what is wrong with events that are not the next."""
        for number in turn.numbers:
            event = self.log.get(number)
            if event is None:
                self.fail("accepted", f"event {number} was delivered and never accepted", hook)
            elif hook.resource not in event.scopes:
                self.fail("scope", f"event {number} is not visible from {hook.resource}", hook)
            elif not matches(turn.filters, event):
                self.fail("filters", f"event {number} was delivered, and the filters refuse it", hook)

    def _judge_times(self, hook: Hook, turn: Turn) -> None:
        """Waits between attempts, and signs of life, in true time."""
        world, policy = self._world, self._plan.policy
        calm = world.calm_since
        gap = self.now - hook.last_end
        if hook.failures:
            if calm <= hook.last_end:
                early = hook.planned - gap - 2 * SECOND - world.skew
                if early > 0:
                    self.fail("retries", f"retried {early / SECOND:.0f} s too early", hook)
                if world.prompt and gap > hook.planned + world.slack:
                    late = (gap - hook.planned) / SECOND
                    self.fail("retries", f"retried {late:.0f} s after it was due", hook)
            return
        self.judge_quiet(hook)
        if not turn.numbers and calm <= hook.contact:
            early = policy.heartbeat_every * 9 // 10 - (self.now - hook.contact) - 2 * SECOND - world.skew
            if early > 0:
                self.fail("heartbeats", f"a heartbeat {early / SECOND:.0f} s too early", hook)

    def judge_quiet(self, hook: Hook) -> None:
        """Whether a healthy webhook has heard from us within the interval, trouble not counted."""
        world = self._world
        since = max(hook.contact, world.calm_since)
        # After an outage they are spread over a tenth of the interval.
        most = self._plan.policy.heartbeat_every * 11 // 10 + world.slack
        if world.prompt and self.now - since > most:
            late = (self.now - since - most) / SECOND
            self.fail("heartbeats", f"no sign of life for {late:.0f} s longer than the interval", hook)

    def _post_ended(self, hook: Hook, turn: Turn, heard: Heard) -> None:
        turn.flying = False
        turn.heard = heard
        turn.ended = self.now
        good = succeeded(heard, strict=self._plan.policy.strict_success)
        self.seen["took_unseen"] += heard.took and not good
        self.note("answer", turn.process, hook.gid, turn.name[:8], str(heard.answer)[:60])

    def _handshake(self, process: Process, delivery: Delivery) -> Callable[[Heard], None]:
        target, secret = delivery.url, dict(delivery.headers)["X-Hook-Secret"]
        self.note("handshake", process, None, target)
        if any(hook.target == target and hook.ended is None for hook in self.hooks.values()):
            self.fail("handshake", f"{target} was sent a second secret")
        shaking = [other for other in self._shaking.get(target, []) if not other[0].ended]
        if shaking and self._world.calm_since < self.now - 40 * SECOND:
            self.fail("handshake", f"two handshakes with {target} at once")
        ours = (process, secret)
        self._shaking[target] = [*shaking, ours]
        self._told[target] = secret

        def ended(heard: Heard) -> None:
            self._shaking[target].remove(ours)
            self.seen["handshake_refused"] += not heard.took

        return ended

    def _judge_secret(self, webhook: Webhook) -> None:
        """What a receiver keeps is the last secret it was told: it must be this webhook's."""
        secret = SEALER.unseal(webhook.secrets[0], webhook=webhook.gid)
        if self._told[webhook.target] != secret:
            self.fail("handshake", f"{webhook.target} was told another secret since {webhook.gid}'s")

    def post_ended(self, ticket: Callable[[Heard], None], heard: Heard) -> None:
        ticket(heard)

    # -- records -----------------------------------------------------------------------------------

    def _on_record(self, done: Done) -> None:
        counted = 0
        for record in done.arguments[0]:
            hook = self._numbers[record.lease.webhook]
            if hook.purged or record.lease.fence != hook.fence:
                self.seen["stale_fence"] += 1
                self.note("stale", done.process, hook.gid, record.lease.fence, hook.fence)
                continue
            counted += 1
            done.before.append((hook, replace(hook)))
            turn = hook.turns[hook.fence]
            self._record(hook, turn, record, done.process)
            if record.onward and hook.number in done.result.onward:
                self._go_on(hook, turn)
        if counted != done.result.counted:
            self.fail("fence", f"{done.result.counted} records counted, {counted} had the fence")

    def _go_on(self, hook: Hook, turn: Turn) -> None:
        """The lease is kept for the next batch of what was read under it, unless that was decided anew."""
        self.seen["went_on"] += 1
        if hook.version != turn.version or hook.ended is not None or hook.stopped_since is not None:
            self.fail("ended", "a lease was kept though the webhook ended, stopped or has new filters", hook)
        turn = replace(
            turn, index=self._index, cursor=hook.cursor, posted=False, numbers=(), positions=(), heard=None
        )
        hook.turns[hook.fence] = hook.leased = turn

    def _record(self, hook: Hook, turn: Turn, record: Record, process: Process) -> None:
        hook.leased = None
        good = turn.heard is not None and succeeded(turn.heard, strict=self._plan.policy.strict_success)
        self._judge_cursor(hook, turn, record, good=good)
        hook.cursor = max(hook.cursor, record.cursor)
        health = record.verdict.health
        self.note(
            "recorded", process, hook.gid, record.cursor, health.failures, type(record.verdict).__name__
        )
        if (record.attempt is not None) is not turn.posted:
            self.fail("attempts", "an attempt without a delivery, or the reverse", hook)
        if not turn.posted:
            self.seen["dropped_turn"] += 1
            if isinstance(record.verdict, End):
                self.fail("expiry", "ended without an attempt", hook)
            if health.failures != hook.failures:
                self.fail("health", "a turn that sent nothing changed the health", hook)
            return
        self.seen["heartbeat"] += not turn.numbers
        if good:
            self._succeeded(hook, turn, record)
        else:
            self._failed(hook, turn, record, process)

    def _judge_cursor(self, hook: Hook, turn: Turn, record: Record, *, good: bool) -> None:
        if record.cursor > self.end:
            self.fail("cursor", f"the cursor was moved to {record.cursor}, past the end {self.end}", hook)
        taken = set(turn.positions) if good else set()
        for event in hook.wanted(hook.cursor, record.cursor, turn.filters):
            if event.position not in taken:
                self.fail("at least once", f"event {event.number} was passed over and not delivered", hook)

    def _succeeded(self, hook: Hook, turn: Turn, record: Record) -> None:
        health = record.verdict.health
        if isinstance(record.verdict, End) or health.failures or health.failing_since is not None:
            self.fail("health", "a success did not make it healthy", hook)
        self.seen["delivered"] += bool(turn.numbers)
        self.seen["recovered"] += bool(hook.failures)
        hook.failures = 0
        hook.pinned = None
        hook.contact = turn.ended

    def _failed(self, hook: Hook, turn: Turn, record: Record, process: Process) -> None:
        heard, verdict = turn.heard, record.verdict
        assert heard is not None
        self._extend_run(hook, turn, counted=not hindered(heard))
        hook.failures += 1
        self.seen["retried"] += hook.failures > 1
        if verdict.health.failures != hook.failures:
            self.fail("health", f"{verdict.health.failures} failures counted, {hook.failures} were", hook)
        if isinstance(verdict, End):
            self._judge_end(hook, heard, verdict)
            self._end(hook, verdict.reason.value, process)
            self.seen[verdict.reason.value] += 1
            return
        if gone(heard):
            self.fail("gone", "410, and it lives on", hook)
        overdue = hook.run_strict - self._plan.policy.give_up_after - self._turned_back(hook) - 2 * SECOND
        if overdue - 2 * self._world.skew * hook.failures > 0:
            self.fail("expiry", f"failing {overdue / SECOND:.0f} s longer than it may, and not ended", hook)
        self._judge_wait(hook, turn, record)
        if hindered(heard):
            self.seen["hindered"] += 1
            # Its next attempt is no later than its end, which so moves on if it was nearer.
            hook.run_strict = min(hook.run_strict, self._plan.policy.give_up_after - hook.planned)
        if turn.numbers and hook.version == turn.version:
            hook.pinned = (turn.body, turn.name, turn.version)
        hook.last_end = turn.ended

    def _extend_run(self, hook: Hook, turn: Turn, *, counted: bool) -> None:
        took = turn.ended - turn.started
        if not hook.failures:
            # A clock that is turned while the first attempt is under way has the run begin at another time, too.
            hook.run_since, hook.run_covered, hook.run_strict = turn.started, 0, 0
            return
        if not counted:
            return
        gap = turn.started - hook.last_end
        tolerated = min(LATE, self._plan.policy.give_up_after // 20)
        hook.run_covered += min(gap, hook.planned + tolerated) + took
        hook.run_strict += min(gap, hook.planned) + took

    def _turned_back(self, hook: Hook) -> Micros:
        return sum(abs(by) for at, by in self.jumped_at if at >= hook.run_since)

    def _judge_end(self, hook: Hook, heard: Heard, verdict: End) -> None:
        if hindered(heard):
            self.fail("expiry", "ended for what hindered us", hook)
        if verdict.reason is EndReason.GONE:
            if not gone(heard):
                self.fail("gone", "ended as gone without a 410", hook)
            return
        if gone(heard):
            self.fail("gone", "a 410 was not taken as the end", hook)
        policy = self._plan.policy
        tolerated = min(LATE, policy.give_up_after // 20)
        jumps = sum(at >= hook.run_since for at, _ in self.jumped_at)
        # A clock turned forward within a wait makes that wait shorter by at most itself, and nobody can tell.
        slack = (
            2 * SECOND + (tolerated + policy.retry_max) * jumps + 2 * self._world.skew * (hook.failures + 1)
        )
        if hook.run_covered + slack < policy.give_up_after:
            self.fail(
                "expiry",
                f"ended after {hook.run_covered / SECOND:.0f} s in which attempts were made, "
                f"{policy.give_up_after / SECOND:.0f} s were due",
                hook,
            )

    def _judge_wait(self, hook: Hook, turn: Turn, record: Record) -> None:
        """Between half and all of the back-off, what the receiver asked for, and never above the cap."""
        policy, health, heard = self._plan.policy, record.verdict.health, turn.heard
        assert heard is not None and health.next_attempt_at is not None and health.failing_since is not None
        wait = health.next_attempt_at - record.settled_at
        full = min(policy.retry_first * 2 ** min(hook.failures - 1, 40), policy.retry_max)
        asked = heard.asked if heard.asked_at is None else max(0, heard.asked_at - record.settled_at)
        asked = min(asked, policy.retry_max)
        self.seen["retry_after"] += bool(heard.asked or heard.asked_at)
        if wait > max(full, asked) + SECOND:
            self.fail(
                "retries", f"waits {wait / SECOND:.1f} s, {max(full, asked) / SECOND:.1f} s at most", hook
            )
        last = health.next_attempt_at == health.failing_since + policy.give_up_after
        if wait < max(full // 2, asked) - SECOND and not last:
            self.fail("retries", f"waits {wait / SECOND:.1f} s, at least half of {full / SECOND:.1f} s", hook)
        hook.planned = wait

    # -- the end -----------------------------------------------------------------------------------

    def outstanding(self) -> list[tuple[Hook, Event]]:
        """What has yet to be delivered to webhooks that run."""
        return [
            (hook, event)
            for hook in self.hooks.values()
            if hook.ended is None and hook.stopped_since is None
            for event in hook.wanted(hook.cursor, self.end, hook.filters)
        ]

    def finish(self) -> None:
        """All is well again, and there was time: what must have arrived has arrived, and rows agree."""
        for hook, event in self.outstanding():
            self.fail("at least once", f"event {event.number} was never delivered", hook)
        self.compare_rows()

    def compare_rows(self) -> None:
        """Hold the rows of the database against what was committed."""
        if self.violation is not None:
            return
        look = self._world.disk.witness.execute
        positions = [position for (position,) in look("SELECT position FROM events ORDER BY position")]
        if positions != list(range(self.trimmed + 1, self.end + 1)):
            self.fail("durable", f"the log holds {positions}, not {self.trimmed + 1} to {self.end}")
        rows = {
            gid: (cursor, ended is not None, stopped is not None, lost is not None)
            for gid, cursor, ended, stopped, lost in look(
                "SELECT w.gid, c.cursor, c.ended_at, c.stopped, c.lost_at"
                " FROM webhooks w JOIN cursors c ON c.webhook = w.id"
            )
        }
        for hook in self.hooks.values():
            if hook.purged:
                continue
            row = rows.get(hook.gid)
            if row is None:
                self.fail("durable", "its row is gone", hook)
            elif row[:2] != (hook.cursor, hook.ended is not None):
                self.fail("durable", f"its row says {row[:2]}, not {(hook.cursor, hook.ended)}", hook)
            elif hook.ended is None and row[2:] != (hook.stopped_since is not None, hook.lost):
                self.fail("durable", f"its row says stopped, lost: {row[2:]}", hook)
