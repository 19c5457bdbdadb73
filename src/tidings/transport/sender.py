"""Posts deliveries. The one seam between the service and the network of its targets."""

import asyncio

from tidings.errors import RequestError
from tidings.limits import MICROSECONDS_PER_SECOND
from tidings.model import Delivery, NoAnswer, Reply, Trouble
from tidings.targets import parse_target
from tidings.transport.connection import Connection
from tidings.transport.dial import Dialer, Progress
from tidings.transport.faults import Failed, span_text
from tidings.transport.gate import Gate
from tidings.transport.pool import Lane, Pool
from tidings.transport.request import Destination, destination, render
from tidings.transport.resolver import Resolver
from tidings.transport.settings import SenderSettings


class Sender:
    """An HTTP/1.1 client that knows one method.

    Made inside a running event loop, which it belongs to. `resolver` stays its maker's to close.
    """

    def __init__(self, settings: SenderSettings, resolver: Resolver) -> None:
        self._loop = asyncio.get_running_loop()
        self._rules = settings.rules
        self._dialer = Dialer(settings, resolver)
        self._gate = Gate(settings.concurrency)
        self._pool = Pool(
            per_origin=settings.origin_limit,
            connections=settings.connection_limit,
            idle_seconds=settings.idle_seconds,
        )
        self._closed = False

    async def post(self, delivery: Delivery) -> Reply:
        """Send one delivery and say what came of it, within its timeout.

        Never raises for anything a target does. `ValueError` for a header that must not be sent, `RuntimeError`
        after `close`: faults of ours. Cancelled, it closes the connection it was using.
        """
        if self._closed:
            raise RuntimeError("the sender is closed")
        deadline = self._loop.time() + delivery.timeout / MICROSECONDS_PER_SECOND
        try:
            target = parse_target(delivery.url, self._rules)
        except RequestError as error:
            return NoAnswer(Trouble.REFUSED_ADDRESS, error.message)
        goal = destination(target)
        request = render(goal.opening, delivery.headers, delivery.body)
        lane = self._pool.lane(target.origin)
        if not await self._enter(lane.gate, deadline):
            self._pool.drop_unused(lane)
            return _busy(delivery)
        try:
            if not await self._enter(self._gate, deadline):
                return _busy(delivery)
            try:
                return await self._exchange(lane, goal, request, deadline, delivery)
            finally:
                self._gate.leave()
        finally:
            self._pool.leave(lane)

    async def close(self) -> None:
        """Close every connection. Deliveries in flight come back without an answer: drain before."""
        self._closed = True
        self._pool.close()

    async def _enter(self, gate: Gate, deadline: float) -> bool:
        if gate.try_enter():
            return True
        try:
            async with asyncio.timeout_at(deadline):
                await gate.enter()
        except TimeoutError:
            return False
        return True

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


def _busy(delivery: Delivery) -> NoAnswer:
    return NoAnswer(
        Trouble.TIMEOUT, f"This service was busy and did not begin within {span_text(delivery.timeout)}"
    )
