"""Posts deliveries. The one seam between the service and the network of its targets."""

import asyncio
from functools import lru_cache
from typing import Final

from tidings.errors import RequestError
from tidings.limits import MICROSECONDS_PER_SECOND
from tidings.model import Delivery, NoAnswer, Reply, Trouble
from tidings.targets import parse_target
from tidings.transport.connection import Connection
from tidings.transport.dial import Dialer, Progress
from tidings.transport.faults import Failed, span_text
from tidings.transport.gate import Gate
from tidings.transport.pool import Lane, Pool
from tidings.transport.request import Destination, render
from tidings.transport.resolver import Resolver
from tidings.transport.settings import SenderSettings

# Distinct targets whose URL is not parsed again; one takes about a kilobyte.
DESTINATIONS_MAX: Final = 8_192


class Sender:
    """An HTTP/1.1 client that knows one method.

    Made inside a running event loop, which it belongs to; `SettingsError` says what is wrong with its settings.
    `resolver` stays its maker's to close.
    """

    def __init__(self, settings: SenderSettings, resolver: Resolver) -> None:
        self._loop = asyncio.get_running_loop()
        rules = settings.rules
        self._aim = lru_cache(DESTINATIONS_MAX)(lambda url: Destination.of(parse_target(url, rules)))
        self._dialer = Dialer(settings, resolver)
        self._gate = Gate(settings.concurrency)
        self._pool = Pool(
            per_origin=settings.origin_limit,
            connections=settings.connection_limit,
            idle_seconds=settings.idle_seconds,
        )
        self._closed = False

    @property
    def open_connections(self) -> int:
        """Connections open or being opened, the kept ones included."""
        return self._pool.open_count

    @property
    def idle_connections(self) -> int:
        """Connections kept for the next delivery."""
        return self._pool.idle_count

    async def post(self, delivery: Delivery) -> Reply:
        """Send one delivery and say what came of it, within its timeout.

        Never raises for anything a target does. `ValueError` for a header that must not be sent, `RuntimeError`
        after `close`: faults of ours. Cancelled, it closes the connection it was using.
        """
        if self._closed:
            raise RuntimeError("the sender is closed")
        deadline = self._loop.time() + delivery.timeout / MICROSECONDS_PER_SECOND
        try:
            goal = self._aim(delivery.url)
        except RequestError as error:
            return NoAnswer(Trouble.REFUSED_ADDRESS, error.message)
        request = render(goal.opening, delivery.headers, delivery.body)
        lane = self._pool.lane(goal.target.origin)
        try:
            if not lane.gate.try_enter() and not await _enter(lane.gate, deadline):
                return _busy(delivery)
            try:
                return await self._post_in_turn(lane, goal, request, deadline, delivery)
            finally:
                lane.gate.leave()
        finally:
            self._pool.drop_unused(lane)

    async def close(self) -> None:
        """Close every connection. Deliveries in flight come back without an answer: drain before."""
        self._closed = True
        self._pool.close()

    async def _post_in_turn(
        self, lane: Lane, goal: Destination, request: bytes, deadline: float, delivery: Delivery
    ) -> Reply:
        if not self._gate.try_enter() and not await _enter(self._gate, deadline):
            return _busy(delivery)
        try:
            return await self._exchange(lane, goal, request, deadline, delivery)
        finally:
            self._gate.leave()

    async def _exchange(
        self, lane: Lane, goal: Destination, request: bytes, deadline: float, delivery: Delivery
    ) -> Reply:
        connection = self._pool.take(lane)
        if connection is not None:
            reply = await self._converse(lane, connection, request, deadline, delivery)
            if not connection.stale:
                return reply
        progress = Progress()
        try:
            async with asyncio.timeout_at(deadline):
                connection = await self._dial(goal, progress)
        except Failed as failure:
            return failure.reply
        except TimeoutError:
            return NoAnswer(Trouble.TIMEOUT, f"{progress.waiting_for} within {span_text(delivery.timeout)}")
        return await self._converse(lane, connection, request, deadline, delivery)

    async def _converse(
        self, lane: Lane, connection: Connection, request: bytes, deadline: float, delivery: Delivery
    ) -> Reply:
        if not connection.is_open:
            # It broke between the moment it was ready and this one.
            return connection.fate or NoAnswer(Trouble.CLOSED, "The target closed the connection")
        try:
            reply = await connection.send(request, deadline=deadline, span=delivery.timeout)
        except asyncio.CancelledError:
            connection.close()
            raise
        if connection.is_open:
            self._pool.keep(lane, connection)
        return reply

    async def _dial(self, goal: Destination, progress: Progress) -> Connection:
        connection = Connection(origin=goal.target.origin, host=goal.target.host, closed=self._pool.forget)
        self._pool.admit(connection)
        try:
            await self._dialer.dial(goal.target, lambda: connection, progress)
        except BaseException:
            connection.close()
            raise
        return connection


async def _enter(gate: Gate, deadline: float) -> bool:
    """Wait for a place, but not past the deadline; False if there was none."""
    try:
        async with asyncio.timeout_at(deadline):
            await gate.enter()
    except TimeoutError:
        return False
    return True


def _busy(delivery: Delivery) -> NoAnswer:
    return NoAnswer(
        Trouble.TIMEOUT, f"This service was busy and did not begin within {span_text(delivery.timeout)}"
    )
