"""Posts deliveries. The one seam between the service and the network of its targets.

There are two ways. Where a connection waits and nobody is before us, an `Exchange` stands for the request on it and its
reply is told in a callback: no task, no future, no turn of the event loop between them. Everything else (waiting for a
place, resolving, dialling) is a task.
"""

import asyncio
from functools import lru_cache, partial
from typing import Final

from tidings.errors import RequestError
from tidings.limits import MICROSECONDS_PER_SECOND
from tidings.model import Delivery, Micros, NoAnswer, Reply, Told, Trouble
from tidings.targets import parse_target
from tidings.transport.connection import Connection
from tidings.transport.dial import Dialer, Progress
from tidings.transport.faults import Failed, span_text
from tidings.transport.gate import Gate
from tidings.transport.outbox import Outbox
from tidings.transport.pool import Lane, Pool
from tidings.transport.request import Destination, render
from tidings.transport.resolver import Resolver
from tidings.transport.response import Seen
from tidings.transport.settings import SenderSettings

# Distinct targets whose URL is not parsed again; one takes some six kilobytes at most.
DESTINATIONS_MAX: Final = 8_192


class Order:
    """One POST: where to, which bytes, until when (the loop's clock), of how long in all."""

    __slots__ = ("deadline", "goal", "request", "span")

    def __init__(self, goal: Destination, request: bytes, *, deadline: float, span: Micros) -> None:
        self.goal = goal
        self.request = request
        self.deadline = deadline
        self.span = span


class Sender:
    """An HTTP/1.1 client that knows one method.

    Made inside a running event loop, which it belongs to; `SettingsError` says what is wrong with its settings.
    `resolver` stays its maker's to close.
    """

    def __init__(self, settings: SenderSettings, resolver: Resolver) -> None:
        self.loop = asyncio.get_running_loop()
        rules = settings.rules
        self._aim = lru_cache(DESTINATIONS_MAX)(lambda url: Destination.of(parse_target(url, rules)))
        self._dialer = Dialer(settings, resolver)
        self._gate = Gate(settings.concurrency)
        self._pool = Pool(
            per_origin=settings.origin_limit,
            connections=settings.connection_limit,
            idle_seconds=settings.idle_seconds,
        )
        self._seen: Seen = {}
        self._outbox = Outbox(self.loop)
        self._closed = False

    @property
    def open_connections(self) -> int:
        """Connections open or being opened, the kept ones included."""
        return self._pool.open_count

    @property
    def idle_connections(self) -> int:
        """Connections kept for the next delivery."""
        return self._pool.idle_count

    def send(self, delivery: Delivery, told: Told) -> "Exchange | asyncio.Task[Reply] | None":
        """Send one delivery; `told` is told what came of it, once, within its timeout, perhaps before this returns.

        Never raises for anything a target does. `ValueError` for a header that must not be sent, `RuntimeError`
        after `close`: faults of ours. What it gives can be cancelled while nothing was told; then nothing will be, and
        the connection it was using is closed.
        """
        if self._closed:
            raise RuntimeError("the sender is closed")
        try:
            goal = self._aim(delivery.url)
        except RequestError as error:
            told(NoAnswer(Trouble.REFUSED_ADDRESS, error.message))
            return None
        order = Order(
            goal,
            render(goal.opening, delivery.headers, delivery.body),
            deadline=self.loop.time() + delivery.timeout / MICROSECONDS_PER_SECOND,
            span=delivery.timeout,
        )
        lane = self._pool.lane(goal.target.origin)
        if lane.idle and lane.gate.try_enter():
            if self._gate.try_enter():
                return Exchange(self, lane, order, self._pool.take(lane), told)
            lane.gate.leave()
        lane.tasks += 1
        task = self.loop.create_task(self._post_in_turn(lane, order))
        task.add_done_callback(partial(self._end_task, lane, told))
        return task

    def post(self, delivery: Delivery) -> asyncio.Future[Reply]:
        """`send`, for whoever waits: the future brings what came, and cancels the sending when it is cancelled."""
        coming = _Coming(loop=self.loop)
        coming.sent = self.send(delivery, coming.told)
        return coming

    async def close(self) -> None:
        """Close every connection. Deliveries in flight come back without an answer: drain before."""
        self._closed = True
        self._pool.close()

    def leave(self, lane: Lane, connection: Connection) -> None:
        """End an exchange: keep its connection if it is still good, and let the next one in."""
        if connection.is_open:
            self._pool.keep(lane, connection)
        self._gate.leave()
        lane.gate.leave()
        if not lane.idle:
            self._pool.drop_unused(lane)

    async def _post_in_turn(self, lane: Lane, order: Order) -> Reply:
        """Wait for a place in the lane and one among all; then post."""
        if not lane.gate.try_enter() and not await _enter(lane.gate, order):
            # It is this origin that keeps its places for so long.
            return _busy(order, ours=False)
        try:
            if not self._gate.try_enter() and not await _enter(self._gate, order):
                return _busy(order, ours=True)
            try:
                return await self._exchange(lane, order)
            finally:
                self._gate.leave()
        finally:
            lane.gate.leave()

    def _end_task(self, lane: Lane, told: Told, task: asyncio.Task[Reply]) -> None:
        """A task has ended, even if it was cancelled before it began."""
        lane.tasks -= 1
        self._pool.drop_unused(lane)
        _tell(told, task)

    async def _exchange(self, lane: Lane, order: Order) -> Reply:
        if lane.idle:
            connection = self._pool.take(lane)
            reply = await self._converse(lane, connection, order)
            if not connection.stale:
                return reply
        return await self.afresh(lane, order)

    async def afresh(self, lane: Lane, order: Order) -> Reply:
        """Post on a new connection."""
        progress = Progress()
        try:
            async with asyncio.timeout_at(order.deadline):
                connection = await self._dial(order.goal, progress, deadline=order.deadline)
        except Failed as failure:
            return failure.reply
        except TimeoutError:
            text = f"{progress.waiting_for} within {span_text(order.span)}"
            return NoAnswer(Trouble.TIMEOUT, text, progress.ours)
        return await self._converse(lane, connection, order)

    async def _converse(self, lane: Lane, connection: Connection, order: Order) -> Reply:
        if not connection.is_open:
            # It broke between the moment it was ready and this one.
            return connection.fate or NoAnswer(Trouble.CLOSED, "The target closed the connection")
        coming: asyncio.Future[Reply] = self.loop.create_future()

        def done(reply: Reply) -> None:
            if not coming.done():  # nobody waits for it who was cancelled in the same turn of the loop
                coming.set_result(reply)

        try:
            connection.send(order.request, deadline=order.deadline, span=order.span, done=done)
            reply = await coming
        except asyncio.CancelledError:
            connection.close()
            raise
        if connection.is_open:
            self._pool.keep(lane, connection)
        return reply

    async def _dial(self, goal: Destination, progress: Progress, *, deadline: float) -> Connection:
        if self._closed:
            raise Failed(Trouble.CLOSED, "This service is stopping", ours=True)
        connection = Connection(
            origin=goal.target.origin,
            host=goal.target.host,
            seen=self._seen,
            outbox=self._outbox,
            closed=self._pool.forget,
        )
        self._pool.admit(connection)
        try:
            await self._dialer.dial(goal.target, lambda: connection, progress, deadline=deadline)
        except BaseException:
            connection.close()
            raise
        return connection


class Exchange:
    """A delivery on a kept connection.

    If the connection turns out to have gone stale, the delivery is posted once more, on a fresh one (RFC 9112 §9.3.1:
    not a byte of an answer came, so it was the old connection that failed).
    """

    __slots__ = ("_again", "_connection", "_lane", "_order", "_sender", "_told")

    def __init__(self, sender: Sender, lane: Lane, order: Order, connection: Connection, told: Told) -> None:
        self._sender = sender
        self._lane = lane
        self._order = order
        self._connection = connection
        # None once it was told, or is not to be.
        self._told: Told | None = told
        self._again: asyncio.Task[Reply] | None = None
        connection.send(order.request, deadline=order.deadline, span=order.span, done=self._replied)

    def cancel(self) -> None:
        """Close the connection, and tell nothing."""
        if self._told is None:
            return
        self._told = None
        if self._again is not None:
            self._again.cancel()
        else:
            self._connection.close()
            self._sender.leave(self._lane, self._connection)

    def _replied(self, reply: Reply) -> None:
        if self._connection.stale:
            self._again = self._sender.loop.create_task(self._sender.afresh(self._lane, self._order))
            self._again.add_done_callback(self._replied_again)
            return
        self._sender.leave(self._lane, self._connection)
        told, self._told = self._told, None
        assert told is not None
        told(reply)

    def _replied_again(self, again: asyncio.Task[Reply]) -> None:
        self._sender.leave(self._lane, self._connection)
        told, self._told = self._told, None
        if told is not None:
            _tell(told, again)


class _Coming(asyncio.Future[Reply]):
    """The reply to what was sent."""

    sent: Exchange | asyncio.Task[Reply] | None = None

    def told(self, reply: Reply | Exception) -> None:
        if self.cancelled():
            # After the sending had come to its end, and before we were told of it.
            return
        if isinstance(reply, Exception):
            self.set_exception(reply)
        else:
            self.set_result(reply)

    def cancel(self, msg: object = None) -> bool:
        if self.sent is not None and not self.done():
            self.sent.cancel()
        return super().cancel(msg)


def _tell(told: Told, task: asyncio.Task[Reply]) -> None:
    """Tell what a task came to, unless it was cancelled."""
    if not task.cancelled():
        error = task.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        told(error or task.result())


async def _enter(gate: Gate, order: Order) -> bool:
    """Wait for a place, but not past the deadline; False if there was none."""
    try:
        async with asyncio.timeout_at(order.deadline):
            await gate.enter()
    except TimeoutError:
        return False
    return True


def _busy(order: Order, *, ours: bool) -> NoAnswer:
    text = f"This service was busy and did not begin within {span_text(order.span)}"
    return NoAnswer(Trouble.TIMEOUT, text, ours)
