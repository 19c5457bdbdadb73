"""What has to be looked at from time to time: processes that are gone, tokens that expired, rows past keeping.

How long things are kept is counted in *uptime*, time during which the service ran, and not by the time of day. What
nobody has read yet must not be deleted because a clock was wrong for a minute, because the service was off for weeks,
or because an old backup was restored; and what was accepted while a clock ran ahead must not be kept until the time of
day gets there. So each process counts by the clock that only goes forward, from the last note of the uptime that it
has seen, and notes it in the store unless another has done so since: from one note to the next no more is counted than
has passed. Nor more than two looks may be apart: a process that stood still, or could not write, served nobody
meanwhile. Whatever is not counted (the minute before a kill) only keeps things longer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from tidings.delivery import LATENESS_TOLERATED, Policy
from tidings.dispatcher import Clocks
from tidings.errors import StoreUnavailable
from tidings.limits import MICROSECONDS_PER_SECOND
from tidings.model import Keeping, Micros
from tidings.store import Store

# How long the leases of a process that was killed, and the webhooks of a token that expired, may stand; seconds.
LOOK_SECONDS: Final = 1.0
# Rows past keeping may wait this long, microseconds; where they are kept for less than ten times that, a tenth of it.
TRIM_EVERY: Final[Micros] = 60 * MICROSECONDS_PER_SECOND
_TRIM_FRACTION: Final = 10
# So many times as much as lies between two notes of the uptime, or two looks, counts as uptime at most.
_GAP_FACTOR: Final = 2

logger = logging.getLogger(__name__)


class Upkeep:
    """Keeps the store tidy beside a dispatcher, which it wakes when leases came free."""

    def __init__(
        self, store: Store, *, policy: Policy, keeping: Keeping, clocks: Clocks, wake: Callable[[], None]
    ) -> None:
        self._store = store
        self._policy = policy
        self._keeping = keeping
        self._clocks = clocks
        self._wake = wake
        # The time of day less the steady clock: moves only when somebody turns the time of day.
        self._offset = clocks.now() - clocks.elapsed()
        self._trim_every = min(TRIM_EVERY, keeping.retention // _TRIM_FRACTION)
        self._gap_max = _GAP_FACTOR * max(self._trim_every, int(LOOK_SECONDS * MICROSECONDS_PER_SECOND))
        # The uptime as it was noted last, and when that was, by the steady clock.
        self._uptime: Micros = 0
        self._noted_at = self._trimmed_at = clocks.elapsed()

    async def run(self) -> None:
        """Look again and again, and trim beside it, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self.look))
            tasks.create_task(self._repeat(self.trim))

    async def look(self) -> None:
        """Do what takes a moment and may not wait."""
        now = self._clocks.now()
        if await self._store.release_dead_holders():
            self._wake()
        await self._store.review_access(now=now)
        await self._mend_clock(now)
        await self._note_uptime(now)

    async def trim(self) -> None:
        """Delete what is past keeping, if it is time to, step by step: publishes and records get their turn between."""
        began = self._clocks.elapsed()
        if began - self._trimmed_at < self._trim_every:
            return
        done = False
        while not done:
            sweep = await self._store.survey(now=self._clocks.now(), keeping=self._keeping)
            while await self._store.trim(sweep, now=self._clocks.now()):
                pass
            done = sweep.last
        self._trimmed_at = began

    async def _repeat(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await work()
            except StoreUnavailable as error:
                logger.error("upkeep has to wait: %s", error)

    async def _mend_clock(self, now: Micros) -> None:
        """After the time of day was turned, heartbeats are due all at once, or not for long: spread them anew."""
        offset = now - self._clocks.elapsed()
        if abs(offset - self._offset) > LATENESS_TOLERATED:
            await self._store.spread_heartbeats(
                now=now, overdue_by=LATENESS_TOLERATED, interval=self._policy.heartbeat_every
            )
            self._offset = offset
            self._wake()

    async def _note_uptime(self, now: Micros) -> None:
        if self._clocks.elapsed() - self._noted_at < self._trim_every:
            return
        read_at: Micros | None = None

        def passed() -> Micros:
            nonlocal read_at
            read_at = self._clocks.elapsed()
            return min(read_at - self._noted_at, self._gap_max)

        self._uptime = await self._store.note_uptime(passed, since=self._uptime, now=now)
        # If another process has noted it, all that is known is that this was before now.
        self._noted_at = self._clocks.elapsed() if read_at is None else read_at
