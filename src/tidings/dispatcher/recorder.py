"""Writing what attempts came to, many in a transaction, until the store has taken them."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from tidings.errors import StoreUnavailable
from tidings.limits import BURST_MAX, RECORD_MAX
from tidings.model import Claim, End, Record
from tidings.store import Engine

# How long to leave a failing store alone, seconds.
STORE_PAUSE_SECONDS: Final = 1.0

logger = logging.getLogger(__name__)


class Recorder:
    """Takes records in any order and writes what waits.

    `recorded` is told of each record once it is written, and whether its lease was kept: a few at a time, beside the
    next transaction. What follows from them is sent while it is written, and neither waits for the other.
    """

    def __init__(self, store: Engine, *, recorded: Callable[[Record, bool], None]) -> None:
        self._store = store
        self._recorded = recorded
        self._waiting: list[Record] = []
        self._something = asyncio.Event()
        self._written: deque[tuple[Record, bool]] = deque()
        self._some_written = asyncio.Event()
        # The store did not take what the network has seen: until it does, nothing more may be claimed.
        self.failing = False

    def add(self, record: Record) -> None:
        self._waiting.append(record)
        self._something.set()

    async def run(self) -> None:
        """Write what waits, one transaction after another, until cancelled."""
        while True:
            await self._something.wait()
            self._something.clear()
            while self._waiting:
                records, self._waiting = self._waiting[:RECORD_MAX], self._waiting[RECORD_MAX:]
                kept = await self._write(records)
                self._written.extend(
                    (record, record.onward and record.lease.webhook in kept) for record in records
                )
                self._some_written.set()

    async def tell(self) -> None:
        """Tell of what was written, until cancelled."""
        while True:
            await self._some_written.wait()
            self._some_written.clear()
            while self._written:
                for _ in range(min(BURST_MAX, len(self._written))):
                    self._recorded(*self._written.popleft())
                await asyncio.sleep(0)

    async def _write(self, records: Sequence[Record]) -> frozenset[int]:
        """Keep trying: what the network has seen must be written, and nothing is claimed before it is."""
        while True:
            try:
                recorded = await self._store.record(records)
            except StoreUnavailable as error:
                self.failing = True
                logger.error("%d attempts wait to be recorded: %s", len(records), error)
                await asyncio.sleep(STORE_PAUSE_SECONDS)
            else:
                self.failing = False
                return recorded.onward


def log(claim: Claim, record: Record) -> None:
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
