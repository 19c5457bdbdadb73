"""Names to addresses: what is known is remembered, what is asked is asked once.

A resolver has one question. `CachingResolver` puts a bounded memory in front of another one; what the addresses
are allowed to be is not its affair (`targets.judge_address`, at every use, cached or not).
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Protocol

from tidings.transport.gate import Gate

# Below, a name would be asked again for nearly every delivery; above, a target that moved would be missed.
TTL_MIN_SECONDS: Final = 1.0
TTL_MAX_SECONDS: Final = 300.0
# How long a failure is believed: long enough to spare the server a storm, shorter than the first retry.
NEGATIVE_TTL_SECONDS: Final = 5.0
# Names remembered; the one unused for longest goes.
NAMES_MAX: Final = 16_384
# Lookups in flight: more than there are slots for deliveries, so that slow names do not queue up others.
LOOKUPS_MAX: Final = 1_024
# Whoever asked has given up by then; the place in the gate is needed.
LOOKUP_SECONDS_MAX: Final = 15.0


class Unresolved(Exception):
    """The name has no address that we know of. The text says why, in a few words for people."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True, slots=True)
class Resolution:
    """The addresses of a name, in the resolver's order, and for how many seconds they hold."""

    addresses: tuple[str, ...]
    ttl: float


class Resolver(Protocol):
    """The seam to DNS."""

    async def resolve(self, host: str) -> Resolution:
        """All addresses of a name, v4 and v6. Raises `Unresolved`."""
        ...

    async def close(self) -> None:
        """Give back what it holds. Questions in flight fail."""
        ...


@dataclass(frozen=True, slots=True)
class _Known:
    outcome: Resolution | str
    until: float


class CachingResolver:
    """Remembers answers for as long as they hold, and failures for a moment; asks for a name once at a time.

    A question goes on when whoever asked it has given up: the next one finds its answer.
    """

    def __init__(
        self,
        source: Resolver,
        *,
        ttl_min: float = TTL_MIN_SECONDS,
        negative_ttl: float = NEGATIVE_TTL_SECONDS,
    ) -> None:
        self._source = source
        self._ttl_min = ttl_min
        self._negative_ttl = negative_ttl
        self._loop = asyncio.get_running_loop()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Resolution | str]] = {}
        self._gate = Gate(LOOKUPS_MAX)

    async def resolve(self, host: str) -> Resolution:
        known = self._known.get(host)
        if known is not None and self._loop.time() < known.until:
            self._known.move_to_end(host)
            outcome = known.outcome
        else:
            outcome = await asyncio.shield(self._ask(host))
        if isinstance(outcome, str):
            raise Unresolved(outcome)
        return outcome

    async def close(self) -> None:
        for task in tuple(self._asking.values()):
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        await self._source.close()

    def _ask(self, host: str) -> asyncio.Task[Resolution | str]:
        task = self._asking.get(host)
        if task is None:
            task = self._asking[host] = self._loop.create_task(self._look_up(host))
            task.add_done_callback(lambda _: self._asking.pop(host, None))
        return task

    async def _look_up(self, host: str) -> Resolution | str:
        outcome: Resolution | str
        await self._gate.enter()
        try:
            async with asyncio.timeout(LOOKUP_SECONDS_MAX):
                outcome = await self._source.resolve(host)
        except Unresolved as error:
            outcome = error.text
        except TimeoutError:
            outcome = "the name servers did not answer"
        finally:
            self._gate.leave()
        self._remember(host, outcome)
        return outcome

    def _remember(self, host: str, outcome: Resolution | str) -> None:
        ttl = self._negative_ttl
        if isinstance(outcome, Resolution):
            ttl = min(max(outcome.ttl, self._ttl_min), TTL_MAX_SECONDS)
        self._known[host] = _Known(outcome, self._loop.time() + ttl)
        self._known.move_to_end(host)
        if len(self._known) > NAMES_MAX:
            self._known.popitem(last=False)
