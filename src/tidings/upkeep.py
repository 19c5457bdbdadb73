"""What has to be looked at from time to time: processes that are gone, tokens that expired, rows past keeping."""

import asyncio
import logging
from collections.abc import Callable
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
        self._trimmed_at = clocks.elapsed()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except StoreUnavailable as error:
                logger.error("upkeep has to wait: %s", error)

    async def look(self) -> None:
        """Do what there is to do now."""
        now = self._clocks.now()
        if await self._store.release_dead_holders():
            self._wake()
        await self._store.review_access(now=now)
        await self._mend_clock(now)
        if self._clocks.elapsed() - self._trimmed_at >= self._trim_every:
            self._trimmed_at = self._clocks.elapsed()
            # Step by step, so that publishes and records get their turn in between.
            while await self._store.trim(now=self._clocks.now(), keeping=self._keeping):
                pass

    async def _mend_clock(self, now: Micros) -> None:
        """After the time of day was turned, heartbeats are due all at once, or not for long: spread them anew."""
        offset = now - self._clocks.elapsed()
        if abs(offset - self._offset) > LATENESS_TOLERATED:
            self._offset = offset
            await self._store.spread_heartbeats(
                now=now, overdue_by=LATENESS_TOLERATED, interval=self._policy.heartbeat_every
            )
            self._wake()
