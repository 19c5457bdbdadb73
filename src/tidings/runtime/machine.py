"""What is taken from the machine: its clocks, its dice, its loop, its open files."""

import asyncio
import base64
import gc
import logging
import os
import random
import resource
import threading
import time
from collections.abc import Coroutine
from typing import Any, Final, NoReturn, TypeVar

import uvloop

from tidings.dispatcher import Clocks
from tidings.errors import TidingsError
from tidings.model import Micros

T = TypeVar("T")

logger = logging.getLogger(__name__)

SECRET_BYTES: Final = 32
# Objects made before the young ones are looked through. Deliveries make and drop thousands without cycles; at Python's
# 700 the collector took a tenth of the time and found nothing.
GC_THRESHOLD: Final = 20_000
_PHRASE_WORDS: Final = (
    *(
        "amber",
        "brave",
        "calm",
        "dusty",
        "eager",
        "fuzzy",
        "gentle",
        "hollow",
        "icy",
        "jolly",
        "keen",
        "lucky",
    ),
    *(
        "badgers",
        "comets",
        "dolphins",
        "engines",
        "falcons",
        "geysers",
        "harbors",
        "islands",
        "jackdaws",
        "kites",
    ),
    *(
        "argue",
        "bounce",
        "crawl",
        "drift",
        "echo",
        "float",
        "gather",
        "hurry",
        "invent",
        "juggle",
        "knit",
        "listen",
    ),
)


def now() -> Micros:
    """The time of day, in microseconds since the epoch."""
    return time.time_ns() // 1000


def elapsed() -> Micros:
    """A clock that only goes forward, in microseconds."""
    return time.monotonic_ns() // 1000


# The operating system's randomness: gids, secrets and tokens must not be guessed.
DICE: Final = random.SystemRandom()


def new_gid(dice: random.Random) -> str:
    """A fresh gid: sixteen digits, as Asana's are."""
    return str(dice.randrange(1_000_000_000_000_000, 9_000_000_000_000_000))


def new_token(dice: random.Random) -> str:
    """A fresh bearer token: 256 random bits, recognisable in a leak."""
    return "tdg_" + base64.urlsafe_b64encode(dice.randbytes(SECRET_BYTES)).rstrip(b"=").decode()


def new_phrase(dice: random.Random) -> str:
    """A few words that an operator finds in the log when a caller quotes them."""
    words = " ".join(dice.choice(_PHRASE_WORDS) for _ in range(4))
    return f"{dice.randrange(1000, 10_000)} {words}"


CLOCKS: Final = Clocks(now=now, elapsed=elapsed, jitter=random.random)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of this module to its end, on the loop the service is made for.

    Errors of ours that end tasks within it come as they were raised, not in groups: they are told to people.
    """
    gc.set_threshold(GC_THRESHOLD)
    threading.excepthook = _end_with_thread
    try:
        with asyncio.Runner(loop_factory=_make_loop) as runner:
            try:
                return runner.run(main)
            except (MemoryError, BaseExceptionGroup) as error:
                # To close the loop takes a thread, which may wait for ever to begin where there is no memory for it.
                if isinstance(error, MemoryError) or error.subgroup(MemoryError):
                    _end("out of memory")
                raise
    except ExceptionGroup as group:
        ours, rest = group.split(TidingsError)
        if ours is None or rest is not None:
            raise
        raise _first(ours) from None


def _make_loop() -> asyncio.AbstractEventLoop:
    loop = uvloop.new_event_loop()
    loop.set_exception_handler(_end_without_memory)
    return loop


def _end_without_memory(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Whatever met the end of memory was given up halfway, and the next will be: a process afresh does better."""
    if isinstance(context.get("exception"), MemoryError):
        _end("out of memory")
    loop.default_exception_handler(context)


def _end_with_thread(failure: threading.ExceptHookArgs) -> None:
    """What waits for a thread that died would wait for ever."""
    _end(f"{failure.thread.name if failure.thread else 'a thread'} died: {failure.exc_value!r}")


def _end(why: str) -> NoReturn:
    """End this process at once, as a kill would: nothing that was acknowledged is lost by that."""
    try:
        logger.critical("%s; the process ends", why)
    finally:
        os._exit(1)


def _first(group: ExceptionGroup[TidingsError]) -> TidingsError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


def allow_open_files(wanted: int) -> None:
    """Raise the limit of open files to what may be needed, as far as the machine lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        logger.warning("%d open files are allowed, %d may be needed: see ulimit -n", allowed, wanted)
