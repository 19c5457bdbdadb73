"""The connections of a sender: who may open one, which are kept, which go first."""

import asyncio
from collections import OrderedDict
from typing import Final

from tidings.transport.connection import Connection
from tidings.transport.gate import Gate

# A target that moves in DNS is followed within this time, however busy its connections are.
CONNECTION_AGE_MAX_SECONDS: Final = 600.0


class Lane:
    """What goes to one origin: how many exchanges are in flight, which connections wait for the next."""

    __slots__ = ("gate", "idle", "origin", "tasks")

    def __init__(self, origin: str, limit: int) -> None:
        self.origin = origin
        self.gate = Gate(limit)
        # Deliveries that are tasks, begun or not: the gate does not know of one before its first step.
        self.tasks = 0
        # The last one used is the likeliest to be alive; those at the bottom grow old and go.
        self.idle: list[Connection] = []


class Pool:
    """Open connections by origin, bounded in number and in age.

    Connections to one origin never outnumber the exchanges its gate lets in: one is opened only when none is idle.
    All together they never outnumber `connections`: the one unused for longest makes room.
    """

    def __init__(self, *, per_origin: int, connections: int, idle_seconds: float) -> None:
        self._per_origin = per_origin
        self._connections = connections
        self._idle_seconds = idle_seconds
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[str, Lane] = {}
        # Every idle connection, the one unused for longest first, with when it fell idle.
        self._idle: OrderedDict[Connection, float] = OrderedDict()
        self._open: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def open_count(self) -> int:
        return len(self._open)

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    @property
    def lane_count(self) -> int:
        return len(self._lanes)

    def lane(self, origin: str) -> Lane:
        lane = self._lanes.get(origin)
        if lane is None:
            lane = self._lanes[origin] = Lane(origin, self._per_origin)
        return lane

    def take(self, lane: Lane) -> Connection:
        """The connection that waits for work in a lane, where one does (`lane.idle`)."""
        connection = lane.idle.pop()
        del self._idle[connection]
        return connection

    def admit(self, connection: Connection) -> None:
        """Count a connection that is about to be opened, at the cost of the longest unused if there are too many."""
        while len(self._open) >= self._connections and self._idle:
            next(iter(self._idle)).close()
        self._open.add(connection)

    def keep(self, lane: Lane, connection: Connection) -> None:
        """Put a connection aside for the next exchange, unless it has served long enough."""
        now = self._loop.time()
        if now - connection.since > CONNECTION_AGE_MAX_SECONDS:
            connection.close()
            return
        lane.idle.append(connection)
        self._idle[connection] = now
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._idle_seconds, self._close_expired)

    def forget(self, connection: Connection) -> None:
        """A connection has closed, whoever closed it."""
        self._open.discard(connection)
        if self._idle.pop(connection, None) is None:
            return
        lane = self._lanes[connection.origin]
        lane.idle.remove(connection)
        self.drop_unused(lane)

    def drop_unused(self, lane: Lane) -> None:
        """Forget a lane that nobody is in and nothing waits in; there are as many as targets in use."""
        if not lane.idle and not lane.tasks and lane.gate.unused:
            self._lanes.pop(lane.origin, None)

    def close(self) -> None:
        """Close everything; exchanges in flight end without an answer."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in tuple(self._open):
            connection.stop()

    def _close_expired(self) -> None:
        self._sweep = None
        horizon = self._loop.time() - self._idle_seconds
        while self._idle:
            connection, since = next(iter(self._idle.items()))
            if since > horizon:
                self._sweep = self._loop.call_at(since + self._idle_seconds, self._close_expired)
                return
            connection.close()
