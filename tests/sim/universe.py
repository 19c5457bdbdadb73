"""Virtual time: what happens next is drawn from a seed, and nothing ever waits.

Each simulated process has an event loop of its own (`ProcessLoop`). Within a loop callbacks run in the order in which
they were asked for, as asyncio promises; what varies is everything asyncio does not promise: which process comes first,
which of two timers of the same instant, and how long disk, network and readers take. When no loop has anything to do,
time jumps to the next thing that will happen.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final, TypeVar

from tidings.model import Micros

T = TypeVar("T")

SECOND: Final[Micros] = 1_000_000
# Callbacks within one instant: more is a loop that turns without waiting.
SPIN_MAX: Final = 50_000


class Spinning(AssertionError):
    """Something turns without letting time pass."""


class Universe:
    """True time in microseconds since the world began, the dice, and all that is to happen."""

    def __init__(self, dice: random.Random) -> None:
        self.now: Micros = 0
        self.dice = dice
        self.stopped = False
        self._heap: list[tuple[Micros, int, int, ProcessLoop | None, Any]] = []
        self._sequence = itertools.count()
        self._loops: list[ProcessLoop] = []
        # Those of dead processes too.
        self.every_loop: list[ProcessLoop] = []
        self._spins = 0

    def at(self, when: Micros, callback: Callable[..., object], *args: object) -> None:
        """Let something of the world itself (network, disk, fate) happen."""
        self._push(max(when, self.now), None, (callback, args))

    def after(self, delay: Micros, callback: Callable[..., object], *args: object) -> None:
        self._push(self.now + delay, None, (callback, args))

    def _push(self, when: Micros, loop: ProcessLoop | None, what: object) -> None:
        # The dice decide between things of the same instant.
        entry = (when, self.dice.getrandbits(16), next(self._sequence), loop, what)
        heapq.heappush(self._heap, entry)

    def add_timer(self, handle: asyncio.TimerHandle, loop: ProcessLoop) -> None:
        self._push(int(handle.when() * SECOND) + 1, loop, handle)

    def add_loop(self, loop: ProcessLoop) -> None:
        self._loops.append(loop)
        self.every_loop.append(loop)

    def remove_loop(self, loop: ProcessLoop) -> None:
        if loop in self._loops:
            self._loops.remove(loop)

    def run(self, until: Micros) -> None:
        """Let time pass until then, or until `stopped` is set."""
        self._run_loops()
        while not self.stopped and self._heap and self._heap[0][0] <= until:
            when, _, _, loop, what = heapq.heappop(self._heap)
            if when > self.now:
                self.now = when
                self._spins = 0
            if loop is None:
                callback, args = what
                callback(*args)
            elif what._cancelled or loop.dead:
                continue
            else:
                loop.ready.append(what)
            self._run_loops()
        if not self.stopped:
            self.now = max(self.now, until)

    def _run_loops(self) -> None:
        while not self.stopped:
            able = [loop for loop in self._loops if loop.ready and not loop.stalled]
            if not able:
                return
            loop = able[0] if len(able) == 1 else self.dice.choice(able)
            self._spins += loop.run_ready()
            if self._spins > SPIN_MAX:
                raise Spinning(f"{self._spins} callbacks within one instant")


class ProcessLoop(asyncio.BaseEventLoop):
    """The event loop of one simulated process."""

    dead = True

    def __init__(self, universe: Universe, *, read_takes: Callable[[], Micros]) -> None:
        super().__init__()
        self.universe = universe
        self.ready: deque[asyncio.Handle] = deque()
        self.stalled = False
        self.dead = False
        # Callbacks until the process is killed between two of them; None while it is left alone.
        self.fuse: int | None = None
        self.on_fuse: Callable[[], None] = lambda: None
        self.on_error: Callable[[dict[str, Any]], None] = lambda context: None
        # Tasks of a dead process never run again, not even to clean up: they are kept until the world has ended.
        self.tasks: list[asyncio.Task[Any]] = []
        self._read_takes = read_takes
        universe.add_loop(self)

    def run_ready(self) -> int:
        """Run callbacks until none is left; gives how many."""
        ran = 0
        ready = self.ready
        events._set_running_loop(self)
        try:
            while ready and not self.dead and not self.universe.stopped:
                if self.fuse is not None:
                    if self.fuse == 0:
                        self.on_fuse()
                        break
                    self.fuse -= 1
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
                    ran += 1
                if ran > SPIN_MAX:
                    break
        finally:
            events._set_running_loop(None)
        return ran

    def kill(self) -> None:
        """End as a killed process does: nothing of it runs any more."""
        self.dead = True
        self.ready.clear()
        self.universe.remove_loop(self)

    # -- what asyncio asks of a loop ---------------------------------------------------------------

    def time(self) -> float:
        return self.universe.now / SECOND

    def call_soon(  # type: ignore[override] # of callbacks of any kind
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self.dead:
            self.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self.dead:
            self.universe.add_timer(handle, self)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are passed over when their time comes."""

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self.tasks.append(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run it at once at some later instant: another thread would, as far as this loop can tell."""
        future: asyncio.Future[T] = self.create_future()
        self.universe.after(self._read_takes(), self._run_blocking, future, func, args)
        return future

    def _run_blocking(self, future: asyncio.Future[Any], func: Callable[..., Any], args: Any) -> None:
        if self.dead:
            return
        try:
            result = func(*args)
        except Exception as error:
            self.call_soon(_set_unless_done, future, None, error)
        else:
            self.call_soon(_set_unless_done, future, result, None)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.dead

    def is_closed(self) -> bool:
        return self.dead

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:
            self.on_error(context)


def _set_unless_done(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
