"""Liveness and readiness.

Dead receivers must not take the API out: readiness looks at the database, at the dispatcher's pulse, and at the due
work of healthy webhooks alone.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from tidings.errors import StoreUnavailable
from tidings.limits import MICROSECONDS_PER_SECOND
from tidings.model import Micros
from tidings.store import Store
from tidings.web import answers

# Work of healthy webhooks that is older than this waits for us, not for receivers.
DUE_AGE_MAX: Final[Micros] = 120 * MICROSECONDS_PER_SECOND
# The dispatcher turns many times a second.
PULSE_AGE_MAX: Final[Micros] = 30 * MICROSECONDS_PER_SECOND
# How long whoever asks is told what was found last: that the database can be written is shown by writing to it, which
# holds up other writers for a flush of the disk, and anybody may ask. No load balancer asks as often.
FOUND_LASTS: Final[Micros] = MICROSECONDS_PER_SECOND

logger = logging.getLogger(__name__)


class Health:
    """`/healthz` and `/readyz`.

    `elapsed` is a clock that only goes forward. `pulse_age` tells how long ago the dispatcher turned; None where there
    is none.
    """

    def __init__(
        self,
        store: Store,
        *,
        now: Callable[[], Micros],
        elapsed: Callable[[], Micros],
        pulse_age: Callable[[], Micros | None],
    ) -> None:
        self._store = store
        self._now = now
        self._elapsed = elapsed
        self._pulse_age = pulse_age
        self._looking = asyncio.Lock()
        # What was found last, and when.
        self._found: list[str] = []
        self._found_at: Micros | None = None

    async def live(self, request: Request) -> Response:
        """The process answers."""
        return answers.answer({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """The service does its work: 200, or 503 with what is wrong."""
        async with self._looking:
            if self._found_at is None or self._elapsed() - self._found_at >= FOUND_LASTS:
                self._found = await self._troubles()
                self._found_at = self._elapsed()
            troubles = self._found
        if troubles:
            return answers.answer({"status": "unavailable", "troubles": troubles}, status=503)
        return answers.answer({"status": "ok"})

    async def _troubles(self) -> list[str]:
        try:
            await self._store.check()
            due_at = await self._store.oldest_due_at(now=self._now())
        except StoreUnavailable as error:
            logger.error("not ready: %s", error)
            return ["the database cannot be reached"]
        troubles = []
        pulse_age = self._pulse_age()
        if pulse_age is not None and pulse_age > PULSE_AGE_MAX:
            troubles.append(f"the dispatcher has stood still for {pulse_age // MICROSECONDS_PER_SECOND} s")
        due_age = 0 if due_at is None else self._now() - due_at
        if due_age > DUE_AGE_MAX:
            troubles.append(f"due events have waited for {due_age // MICROSECONDS_PER_SECOND} s")
        return troubles
