"""The engine: claim → cut → sign → post → settle → record.

The dispatcher runs at its own pace. Hints (an event was published, a slot became free, another process wrote) only
wake it sooner; with every hint lost, a look at the store finds the same work, later.

Three rules hold it together:

- What is claimed starts at once: a claim asks for no more than there are free slots, in total and per origin.
- A slot is free again only when its record is durable. So when the store fails, records wait, slots stay taken, and
  claiming stops by itself: a full disk does not resend every batch for ever.
- The fence decides whether a record counts. Time decides only when others may try.
"""

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tidings import delivery, signing
from tidings.delivery import Policy
from tidings.errors import StoreUnavailable
from tidings.limits import (
    ATTEMPT_EXCERPT_BYTES_MAX,
    CLAIM_MAX,
    LEASE_SLACK,
    MICROSECONDS_PER_SECOND,
    RECORD_MAX,
)
from tidings.matching import accepts
from tidings.model import (
    Answer,
    Attempt,
    Batch,
    Claim,
    Claimed,
    ClaimRequest,
    Delivered,
    Delivery,
    End,
    Gone,
    Health,
    Keep,
    Micros,
    NoAnswer,
    Outcome,
    Position,
    Post,
    Record,
    Refused,
    Reply,
    SealedSecret,
    Trouble,
)
from tidings.sealing import UnsealError
from tidings.store import Engine
from tidings.wire.events import envelope

# How soon work of other processes on the same database is seen, seconds.
POLL_SECONDS: Final = 0.1
# How long to leave a failing store alone, seconds.
STORE_PAUSE_SECONDS: Final = 1.0
# Failing webhooks and origins get at most this fraction of the slots.
SHARE: Final = 4

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Clocks:
    """The time of day, a clock that only goes forward, and the dice; the first two in microseconds."""

    now: Callable[[], Micros]
    elapsed: Callable[[], Micros]
    jitter: Callable[[], float]


Unseal = Callable[[SealedSecret, str], str]
"""Opens a sealed secret of a webhook (its gid); may raise `UnsealError`."""


@dataclass(slots=True)
class _Slots:
    """The deliveries in flight: in total, per origin, and to failing webhooks."""

    total: int
    claims: dict[int, Claim] = field(default_factory=dict)
    origins: Counter[int] = field(default_factory=Counter)
    failing: int = 0
    # Webhooks in flight that were ended since they were claimed: their delivery must not start any more.
    withdrawn: set[str] = field(default_factory=set)

    @property
    def free(self) -> int:
        return self.total - len(self.claims)

    @property
    def failing_free(self) -> int:
        return max(1, self.total // SHARE) - self.failing

    @property
    def per_origin(self) -> int:
        return max(1, self.total // SHARE)

    def held(self, *, now: Micros, lease: Micros) -> tuple[int, ...]:
        """The webhooks in flight, once the clock says that a lease of theirs is over, or not yet begun."""
        oldest = next(iter(self.claims.values()), None)
        if oldest is None or now < oldest.lease.until <= now + lease:
            return ()
        return tuple(self.claims)

    def take(self, claim: Claim) -> None:
        self.claims[claim.lease.webhook] = claim
        self.origins[claim.origin] += 1
        self.failing += bool(claim.health.failures)

    def release(self, webhook: int) -> None:
        claim = self.claims.pop(webhook)
        self.withdrawn.discard(claim.gid)
        self.failing -= bool(claim.health.failures)
        self.origins[claim.origin] -= 1
        if not self.origins[claim.origin]:
            del self.origins[claim.origin]


class Dispatcher:
    """Delivers what lies behind cursors, for as long as `run` runs."""

    def __init__(
        self, store: Engine, post: Post, *, policy: Policy, clocks: Clocks, unseal: Unseal, concurrency: int
    ) -> None:
        self._store = store
        self._post = post
        self._policy = policy
        self._clocks = clocks
        self._unseal = unseal
        self._slots = _Slots(concurrency)
        self._holder: int | None = None
        self._wake = asyncio.Event()
        self._draining = False
        self._records: list[Record] = []
        self._settled = asyncio.Event()
        self._store_failed = False
        # When the loop last turned, by the clock that only goes forward: readiness looks at it.
        self.pulse: Micros = clocks.elapsed()

    # -- what others tell it -----------------------------------------------------------------------

    def wake(self) -> None:
        """Say that there may be something to do. Losing this call costs time, nothing else."""
        self._wake.set()

    def withdraw(self, gid: str) -> None:
        """Say that a webhook has ended: a delivery that is claimed but has not started does not start."""
        if any(claim.gid == gid for claim in self._slots.claims.values()):
            self._slots.withdrawn.add(gid)

    @property
    def in_flight(self) -> int:
        return len(self._slots.claims)

    # -- running -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver until `drain` is called and everything in flight is recorded.

        Raises:
            Exception: a mistake of ours. The process must end: its leases are then free for another.
        """
        await self._start()
        async with asyncio.TaskGroup() as tasks:
            recorder = tasks.create_task(self._record_all())
            while not self._draining:
                if not await self._turn(tasks):
                    await self._rest()
            while self._slots.claims:
                self._wake.clear()
                await self._wait(self._wake, POLL_SECONDS)
            recorder.cancel()
        await self._stop()

    async def run_once(self) -> int:
        """Claim once, deliver what was claimed, record it; gives how many claims there were."""
        if self._holder is None:
            await self._start()
        claims = (await self._claim()).claims
        records = await asyncio.gather(*(self._deliver(claim) for claim in claims))
        await self._store.record(records)
        for claim in claims:
            self._slots.release(claim.lease.webhook)
        return len(claims)

    def drain(self) -> None:
        """Start nothing more; `run` returns when what is in flight is recorded."""
        self._draining = True
        self._wake.set()

    async def _start(self) -> None:
        now = self._clocks.now()
        self._holder = await self._store.take_holder(now=now)
        await self._store.spread_heartbeats(
            now=now, overdue_by=delivery.LATENESS_TOLERATED, interval=self._policy.heartbeat_every
        )

    async def _stop(self) -> None:
        if self._holder is not None:
            holder, self._holder = self._holder, None
            try:
                await self._store.drop_holder(holder)
            except StoreUnavailable as error:
                logger.warning("leases are left to run out: %s", error)

    async def _turn(self, tasks: asyncio.TaskGroup) -> bool:
        """Claim what there is room for, and start delivering it; gives whether to look again at once."""
        self.pulse = self._clocks.elapsed()
        self._wake.clear()
        if self._store_failed or self._slots.free <= 0:
            return False
        try:
            claimed = await self._claim()
        except StoreUnavailable as error:
            logger.error("nothing can be claimed: %s", error)
            await asyncio.sleep(STORE_PAUSE_SECONDS)
            return False
        for claim in claimed.claims:
            tasks.create_task(self._attempt(claim))
        return bool(claimed.claims) or claimed.behind

    async def _claim(self) -> Claimed:
        assert self._holder is not None, "claims need a holder"
        now, lease = self._clocks.now(), self._policy.delivery_timeout + LEASE_SLACK
        claimed = await self._store.claim(
            ClaimRequest(
                now=now,
                holder=self._holder,
                lease=lease,
                limit=min(self._slots.free, CLAIM_MAX),
                failing_limit=self._slots.failing_free,
                per_origin=self._slots.per_origin,
                in_flight=dict(self._slots.origins),
                batch_max=self._policy.batch_max,
                wait_max=self._policy.retry_max,
                held=self._slots.held(now=now, lease=lease),
            )
        )
        for claim in claimed.claims:
            self._slots.take(claim)
        return claimed

    async def _rest(self) -> None:
        """Wait for a hint, for the next thing that is due, or for another process's writing."""
        if self._store_failed or self._slots.free <= 0:
            await self._wait(self._wake, POLL_SECONDS)
            return
        try:
            due = await self._store.next_due_at()
            now = self._clocks.now()
            if due is not None and due <= now:
                # It waits for a slot, or became due this moment; and it hides what becomes due behind it.
                await self._wait(self._wake, POLL_SECONDS)
                return
            while not self._wake.is_set():
                self.pulse = self._clocks.elapsed()
                left = POLL_SECONDS
                if due is not None:
                    left = min(left, (due - self._clocks.now()) / MICROSECONDS_PER_SECOND)
                if left <= 0 or await self._store.changed():
                    return
                await self._wait(self._wake, left)
        except StoreUnavailable as error:
            logger.error("the store cannot be looked at: %s", error)
            await asyncio.sleep(STORE_PAUSE_SECONDS)

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return

    # -- one attempt -------------------------------------------------------------------------------

    async def _attempt(self, claim: Claim) -> None:
        record = await self._deliver(claim)
        # Looked up only now: the recorder has put another list in its place while the target was answering.
        self._records.append(record)
        self._settled.set()

    async def _deliver(self, claim: Claim) -> Record:
        """Take a claim through all steps but the last."""
        batch = self._cut(claim)
        started = self._clocks.now()
        if not batch.events:
            if claim.head > claim.cursor:
                return self._unsent(claim, claim.health, cursor=batch.end)
            later = None if claim.health.failures else self._not_yet_quiet(claim, started)
            if later is not None:
                return self._unsent(claim, later, cursor=batch.end)
        if claim.gid in self._slots.withdrawn or started + self._policy.delivery_timeout > claim.lease.until:
            return self._unsent(claim, claim.health, cursor=claim.cursor)
        name = delivery_id(claim, batch)
        began = self._clocks.elapsed()
        reply = await self._send(claim, batch, name=name, started=started)
        took = max(0, self._clocks.elapsed() - began)
        return self._settle(claim, batch, reply, name=name, started=started, took=took)

    def _not_yet_quiet(self, claim: Claim, now: Micros) -> Health | None:
        return delivery.not_yet_quiet(
            claim.health, now=now, jitter=self._clocks.jitter(), policy=self._policy
        )

    def _cut(self, claim: Claim) -> Batch:
        return delivery.cut(
            claim.page,
            [accepts(claim.filters, event) for event in claim.page],
            cursor=claim.cursor,
            batch_end=claim.batch_end,
            batch_max=self._policy.batch_max,
            last=None if claim.more else claim.batch_end or claim.head,
        )

    async def _send(self, claim: Claim, batch: Batch, *, name: str, started: Micros) -> Reply:
        try:
            secrets = [
                self._unseal(secret, claim.gid)
                for secret in claim.secrets
                if secret.valid_until is None or secret.valid_until > started
            ]
        except UnsealError as error:
            logger.error("%s", error)
            return NoAnswer(Trouble.SEALED, str(error))
        body = envelope([event.wire for event in batch.events])
        headers = signing.delivery_headers(
            secrets,
            body,
            webhook=claim.gid,
            delivery=name,
            timestamp_seconds=started // MICROSECONDS_PER_SECOND,
        )
        return await self._post(Delivery(claim.target, headers, body, self._policy.delivery_timeout))

    def _settle(
        self, claim: Claim, batch: Batch, reply: Reply, *, name: str, started: Micros, took: Micros
    ) -> Record:
        """Decide what the reply means. Pure, but for one throw of the dice."""
        now = started + took
        outcome = delivery.judge(reply, now=now, policy=self._policy)
        verdict = delivery.settle(
            claim.health,
            outcome,
            started=started,
            now=now,
            jitter=self._clocks.jitter(),
            policy=self._policy,
        )
        delivered = isinstance(outcome, Delivered)
        return Record(
            lease=claim.lease,
            verdict=verdict,
            cursor=batch.end if delivered else claim.cursor,
            batch_end=batch.end if batch.events and not delivered else None,
            epoch=claim.epoch,
            attempt=_logged(batch, reply, outcome, name=name, started=started, took=took),
            settled_at=now,
        )

    def _unsent(self, claim: Claim, health: Health, *, cursor: Position) -> Record:
        """Nothing is to be sent, or it must not be sent now: neither a success nor a failure."""
        return Record(
            lease=claim.lease,
            verdict=Keep(health),
            cursor=cursor,
            batch_end=claim.batch_end if cursor < (claim.batch_end or 0) else None,
            epoch=claim.epoch,
            attempt=None,
            settled_at=self._clocks.now(),
        )

    # -- recording ---------------------------------------------------------------------------------

    async def _record_all(self) -> None:
        """Write what has been settled, as much as waits, one transaction after another."""
        while True:
            await self._settled.wait()
            self._settled.clear()
            while self._records:
                records, self._records = self._records[:RECORD_MAX], self._records[RECORD_MAX:]
                await self._record_surely(records)
                for record in records:
                    _log(self._slots.claims[record.lease.webhook], record)
                    self._slots.release(record.lease.webhook)
                self._wake.set()

    async def _record_surely(self, records: Sequence[Record]) -> None:
        """Keep trying: what the network has seen must be written, and nothing is claimed before it is."""
        while True:
            try:
                await self._store.record(records)
            except StoreUnavailable as error:
                self._store_failed = True
                logger.error("%d attempts wait to be recorded: %s", len(records), error)
                await asyncio.sleep(STORE_PAUSE_SECONDS)
            else:
                self._store_failed = False
                return


def delivery_id(claim: Claim, batch: Batch) -> str:
    """Name a delivery by what it carries, so that the same batch has the same id however often it is sent.

    Even a process that was killed before it could record gives the batch the same id when it sends it again. A
    heartbeat carries nothing and is named by its claim.
    """
    what = f"{claim.cursor}-{batch.end}" if batch.events else f"heartbeat-{claim.lease.fence}"
    return hashlib.sha256(f"{claim.gid}/{claim.epoch}/{what}".encode()).hexdigest()[:32]


def _logged(
    batch: Batch, reply: Reply, outcome: Outcome, *, name: str, started: Micros, took: Micros
) -> Attempt:
    status: int | None
    match reply:
        case Answer(status=status, body=body):
            excerpt = body.decode("utf-8", "replace").replace("\x00", "\ufffd")
            result = {Delivered: "delivered", Refused: "refused", Gone: "gone"}[type(outcome)]
        case NoAnswer(trouble=trouble, text=excerpt):
            status, result = None, trouble.value
    return Attempt(
        delivery=name,
        started_at=started,
        duration=took,
        events=len(batch.events),
        heartbeat=not batch.events,
        status=status,
        result=result,
        excerpt=delivery.cut_text(excerpt, ATTEMPT_EXCERPT_BYTES_MAX),
    )


def _log(claim: Claim, record: Record) -> None:
    """One line per failed attempt and per end; successes are in the log of attempts."""
    attempt = record.attempt
    if attempt is None or attempt.result == "delivered":
        return
    verdict = record.verdict
    fields = {
        "webhook": claim.gid,
        "delivery": attempt.delivery,
        "result": attempt.result,
        "status": attempt.status,
        "failures": verdict.health.failures,
    }
    if isinstance(verdict, End):
        logger.warning("webhook ended: %s", verdict.reason, extra=fields)
    else:
        logger.info("delivery failed", extra=fields)
