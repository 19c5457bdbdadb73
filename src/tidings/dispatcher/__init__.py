"""The engine: claim → cut → sign → post → settle → record.

The dispatcher runs at its own pace. Hints (an event was published, a slot became free, another process wrote) only
wake it sooner; with every hint lost, a look at the store finds the same work, later.

Three rules hold it together:

- What is claimed starts at once: a claim asks for no more than there are free slots, in total and per origin.
- A slot is free again only when its record is written. So when the store fails, records wait, slots stay taken, and
  claiming stops by itself: a full disk does not resend every batch for ever.
- The fence decides whether a record counts. Time decides only when others may try.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from msgspec import structs

from tidings.delivery import LATENESS_TOLERATED, Policy
from tidings.dispatcher.attempt import Clocks, Means, Sending, Unseal, conclude, delivery_id, go_on, prepare
from tidings.dispatcher.recorder import STORE_PAUSE_SECONDS, Recorder, log
from tidings.dispatcher.slots import Slots
from tidings.errors import StoreUnavailable
from tidings.limits import BURST_MAX, CLAIM_MAX, LEASE_SLACK, MICROSECONDS_PER_SECOND, PROVEN_WITHIN
from tidings.model import Claim, Claimed, ClaimRequest, Lease, Micros, Record, Reply, Send
from tidings.store import Engine

__all__ = ["Clocks", "Dispatcher", "Unseal", "delivery_id"]

# How soon work of other processes on the same database is seen, seconds.
POLL_SECONDS: Final = 0.1
# At the end, records get this long beyond the last delivery's deadline, seconds.
DRAIN_SLACK_SECONDS: Final = 10.0

logger = logging.getLogger(__name__)


class Dispatcher:
    """Delivers what lies behind cursors, for as long as `run` runs."""

    def __init__(
        self, store: Engine, send: Send, *, policy: Policy, clocks: Clocks, unseal: Unseal, concurrency: int
    ) -> None:
        self._store = store
        self._policy = policy
        self._clocks = clocks
        self._means = Means(send, policy, clocks, unseal)
        self._slots = Slots(concurrency)
        # How many to claim at once, at most: fewer where the store is slow.
        self._claim_most = CLAIM_MAX
        self._holder: int | None = None
        self._wake = asyncio.Event()
        self._draining = False
        self._claiming = False
        # The webhooks (their gids) that ended while the store was asked for claims, or while they were in flight.
        self._withdrawn: set[str] = set()
        self._recorder = Recorder(store, recorded=self._recorded)
        # Deliveries whose record asks to keep its lease, until it is written.
        self._going_on: dict[Lease, Sending] = {}
        # A mistake of ours, made where nobody waits: `run` raises it.
        self._mistake: BaseException | None = None
        # When the loop last turned, by the clock that only goes forward: readiness looks at it.
        self.pulse: Micros = clocks.elapsed()

    # -- what others tell it -----------------------------------------------------------------------

    def wake(self) -> None:
        """Say that there may be something to do. Losing this call costs time, nothing else."""
        self._wake.set()

    def withdraw(self, gid: str) -> None:
        """Say that a webhook has ended: what is claimed for it, or would follow what is in flight, is not started."""
        if self._claiming or any(claim.gid == gid for claim in self._slots.claims.values()):
            self._withdrawn.add(gid)

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
            recording = [tasks.create_task(part()) for part in (self._recorder.run, self._recorder.tell)]
            while not self._draining:
                if not await self._turn():
                    await self._rest()
            await self._finish()
            for task in recording:
                task.cancel()
        await self._stop()

    async def run_once(self) -> int:
        """Claim once, deliver what was claimed, record it; gives how many claims there were."""
        if self._holder is None:
            await self._start()
        claims = (await self._claim()).claims
        self._claiming = False
        records: list[Record] = []

        def take(record: Record, _: Sending | None) -> None:
            records.append(structs.replace(record, onward=False))
            self.wake()

        for claim in claims:
            self._begin(claim, take)
        while len(records) < len(claims):
            await self._wake.wait()
            self._wake.clear()
            self._raise_mistake()
        await self._store.record(records)
        for claim in claims:
            self._slots.release(claim.lease)
        return len(claims)

    def drain(self) -> None:
        """Start nothing more; `run` returns when what is in flight is recorded."""
        self._draining = True
        self._wake.set()

    async def _start(self) -> None:
        now = self._clocks.now()
        self._holder = await self._store.take_holder(now=now)
        await self._store.spread_heartbeats(
            now=now, overdue_by=LATENESS_TOLERATED, interval=self._policy.heartbeat_every
        )

    async def _finish(self) -> None:
        """Wait until what is in flight is recorded; not for ever, as the store may not come back."""
        seconds = self._policy.delivery_timeout / MICROSECONDS_PER_SECOND + DRAIN_SLACK_SECONDS
        try:
            async with asyncio.timeout(seconds):
                while self._slots.claims:
                    self._raise_mistake()
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            logger.error("%d deliveries could not be recorded; they will be made again", self.in_flight)

    async def _stop(self) -> None:
        if self._holder is not None:
            holder, self._holder = self._holder, None
            try:
                await self._store.drop_holder(holder)
            except StoreUnavailable as error:
                logger.warning("leases are left to run out: %s", error)

    async def _turn(self) -> bool:
        """Claim what there is room for, and start delivering it; gives whether to look again at once."""
        self._raise_mistake()
        self.pulse = self._clocks.elapsed()
        self._wake.clear()
        if self._recorder.failing or self._slots.free <= 0:
            return False
        try:
            claimed = await self._claim()
        except StoreUnavailable as error:
            logger.error("nothing can be claimed: %s", error)
            await asyncio.sleep(STORE_PAUSE_SECONDS)
            # The hint that led here is used up: nobody would say again that there is work.
            return True
        await self._begin_all(claimed.claims)
        return bool(claimed.claims) or claimed.behind

    async def _begin_all(self, claims: Sequence[Claim]) -> None:
        """Start delivering, a few at a time."""
        for place, claim in enumerate(claims):
            if place and place % BURST_MAX == 0:
                await asyncio.sleep(0)
            if self._draining:
                # It began meanwhile: what was claimed is not started, and goes back with the holder's leases.
                self._slots.release(claim.lease)
            else:
                self._begin(claim, self._to_record)
        self._claiming = False

    async def _claim(self) -> Claimed:
        if self._withdrawn:
            self._withdrawn.intersection_update({claim.gid for claim in self._slots.claims.values()})
        # Until what is claimed has begun.
        self._claiming = True
        try:
            claimed = await self._store.claim(self._request(), clock=self._clocks.now)
        except BaseException:
            self._claiming = False
            raise
        for claim in claimed.claims:
            self._slots.take(claim)
        if claimed.claims:
            self._pace(claimed.claims[0].lease)
        return claimed

    def _pace(self, lease: Lease) -> None:
        """Claim only as many at once as are read while their leases still cover a delivery.

        Where they are not, nothing would be sent, and all would be claimed again, for ever.
        """
        left = lease.until - self._clocks.now() - self._policy.delivery_timeout
        if left < LEASE_SLACK // 2:
            self._claim_most = max(1, self._claim_most // 2)
        else:
            self._claim_most = min(CLAIM_MAX, self._claim_most * 2)

    def _request(self) -> ClaimRequest:
        assert self._holder is not None, "claims need a holder"
        now, lease = self._clocks.now(), self._policy.delivery_timeout + LEASE_SLACK
        return ClaimRequest(
            now=now,
            holder=self._holder,
            lease=lease,
            limit=min(self._slots.free, self._claim_most),
            unproven_limit=self._slots.unproven_free,
            failing_limit=self._slots.failing_free,
            failing_first=self._slots.failing_first,
            quiet_first=self._slots.quiet_first,
            proven_since=now - PROVEN_WITHIN,
            per_origin=self._slots.per_origin,
            in_flight=dict(self._slots.origins),
            batch_max=self._policy.batch_max,
            room=self._slots.room,
            # The clocks of processes beside each other may differ a little, and are nudged.
            wait_max=self._policy.retry_max + LEASE_SLACK,
            held=self._slots.held,
        )

    async def _rest(self) -> None:
        """Wait for a hint, for the next thing that is due, or for another process's writing."""
        if self._recorder.failing or self._slots.free <= 0:
            await self._wait(self._wake, POLL_SECONDS)
            return
        if self._wake.is_set():
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
                if left <= 0:
                    return
                await self._wait(self._wake, left)
                # Not before waiting: the store cannot tell our own writing from others'.
                if await self._store.changed():
                    return
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

    def _begin(self, claim: Claim, take: Callable[[Record, Sending | None], None]) -> None:
        """Send what a claim is for. `take` gets its record: now if nothing is sent, else when the reply has come."""
        step = prepare(claim, self._means, withdrawn=claim.gid in self._withdrawn)
        if isinstance(step, Record):
            take(step, None)
            return
        sent, delivery = step
        self._slots.replace(sent.claim)
        self._means.send(delivery, partial(self._replied, sent, take))

    def _replied(
        self, sent: Sending, take: Callable[[Record, Sending | None], None], reply: Reply | Exception
    ) -> None:
        try:
            if isinstance(reply, Exception):
                raise reply
            take(conclude(sent, reply, self._means), sent)
        except Exception as error:
            # Nothing a target does raises: it is ours, and nobody waits here to hear of it.
            self._mistake = error
            self.wake()

    def _to_record(self, record: Record, sent: Sending | None) -> None:
        if record.onward and sent is not None:
            self._going_on[record.lease] = sent
        self._recorder.add(record)

    def _recorded(self, record: Record, kept: bool) -> None:
        """A record is written: the next batch of its page takes the slot, or it is free."""
        log(self._slots.claims[record.lease], record)
        if record.attempt is not None:
            self._slots.learn(record.lease, delivered=record.attempt.result == "delivered")
        sent = self._going_on.pop(record.lease, None) if record.onward else None
        if sent is None or not kept or self._draining:
            self._slots.release(record.lease)
            self.wake()
            return
        claim = go_on(sent, record)
        self._slots.replace(claim)
        self._begin(claim, self._to_record)

    def _raise_mistake(self) -> None:
        if self._mistake is not None:
            raise self._mistake
