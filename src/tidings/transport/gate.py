"""A bound on how many are inside, first come, first served."""

import asyncio
from collections import deque


class Gate:
    """A counting semaphore whose free path costs no await."""

    __slots__ = ("_limit", "_queue", "inside")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.inside = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def unused(self) -> bool:
        return self.inside == 0 and not self._queue

    def try_enter(self) -> bool:
        """Go in if there is room and nobody waits."""
        if self.inside < self._limit and not self._queue:
            self.inside += 1
            return True
        return False

    async def enter(self) -> None:
        """Go in, after everybody who came before. Cancelled, it leaves no trace."""
        if self.try_enter():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.leave()  # the turn came while we were being cancelled
            elif turn in self._queue:  # else `leave` has passed over it
                self._queue.remove(turn)
            raise

    def leave(self) -> None:
        """Go out, and let the next one in: the place changes hands, so nobody can slip between."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.inside -= 1
