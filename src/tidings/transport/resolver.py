"""Names to addresses: what is known is remembered, what is asked is asked once.

A resolver has one question. `CachingResolver` puts a bounded memory in front of another one; what the addresses
are allowed to be is not its affair (`targets.judge_address`, at every use, cached or not).
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

# Below, a name would be asked again for nearly every delivery; above, a target that moved would be missed.
TTL_MIN_SECONDS: Final = 1.0
TTL_MAX_SECONDS: Final = 300.0
# How long a failure is believed: long enough to spare the server a storm, shorter than the first retry.
NEGATIVE_TTL_SECONDS: Final = 5.0
# Names remembered; the one unused for longest goes.
NAMES_MAX: Final = 16_384
# Addresses a name may have: all are remembered and judged at each use. An answer of DNS has room for thousands.
ADDRESSES_MAX: Final = 64
# Look-ups in flight, unless told otherwise: more than there are slots for deliveries.
LOOKUPS_MAX: Final = 1_024
# Whoever asked has given up by then.
LOOKUP_SECONDS_MAX: Final = 15.0


class Unresolved(Exception):
    """The name has no address that we know of. The text says why, in a few words for people.

    `ours`: no name could be looked up, so that it says nothing of this one.
    """

    def __init__(self, text: str, *, ours: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.ours = ours


@dataclass(frozen=True, slots=True)
class Resolution:
    """The addresses of a name, in the resolver's order, and for how many seconds they hold."""

    addresses: tuple[str, ...]
    ttl: float


@dataclass(frozen=True, slots=True)
class _Nothing:
    """Why there is no resolution; as in `Unresolved`."""

    text: str
    ours: bool = False


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
    outcome: Resolution | _Nothing
    until: float


class _Question:
    """A look-up in flight, and what those who wait for it will be told."""

    __slots__ = ("answer", "asking")

    def __init__(self, answer: asyncio.Future[Resolution | _Nothing]) -> None:
        self.answer = answer
        self.asking: asyncio.Task[None] | None = None

    def settle(self, outcome: Resolution | _Nothing) -> None:
        if not self.answer.done():
            self.answer.set_result(outcome)

    def drop(self, why: _Nothing) -> None:
        self.settle(why)
        if self.asking is not None:
            self.asking.cancel()


class CachingResolver:
    """Remembers answers for as long as they hold, and failures for a moment; asks for a name once at a time.

    A question goes on when whoever asked it has given up: the next one finds its answer. No name waits for another:
    at `lookups_max` in flight, the one that has been for longest is given up. With more look-ups than there are slots
    for deliveries, that is one whose deliveries have ended.
    """

    def __init__(
        self,
        source: Resolver,
        *,
        ttl_min: float = TTL_MIN_SECONDS,
        negative_ttl: float = NEGATIVE_TTL_SECONDS,
        lookups_max: int = LOOKUPS_MAX,
    ) -> None:
        self._source = source
        self._ttl_min = ttl_min
        self._negative_ttl = negative_ttl
        self._lookups_max = lookups_max
        self._loop = asyncio.get_running_loop()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        # In the order they were asked.
        self._asking: dict[str, _Question] = {}

    async def resolve(self, host: str) -> Resolution:
        known = self._known.get(host)
        if known is not None and self._loop.time() < known.until:
            self._known.move_to_end(host)
            outcome = known.outcome
        else:
            outcome = await asyncio.shield(self._ask(host))
        if isinstance(outcome, _Nothing):
            raise Unresolved(outcome.text, ours=outcome.ours)
        return outcome

    async def close(self) -> None:
        asking = [question.asking for question in self._asking.values() if question.asking is not None]
        for question in tuple(self._asking.values()):
            question.drop(_Nothing("this service is stopping", ours=True))
        self._asking.clear()
        await asyncio.gather(*asking, return_exceptions=True)
        await self._source.close()

    def _ask(self, host: str) -> asyncio.Future[Resolution | _Nothing]:
        question = self._asking.get(host)
        if question is None:
            if len(self._asking) >= self._lookups_max:
                longest = next(iter(self._asking))
                self._asking.pop(longest).drop(_Nothing("too many slow names are being looked up"))
            question = self._asking[host] = _Question(self._loop.create_future())
            question.asking = self._loop.create_task(self._look_up(host, question))
        return question.answer

    async def _look_up(self, host: str, question: _Question) -> None:
        outcome: Resolution | _Nothing
        try:
            async with asyncio.timeout(LOOKUP_SECONDS_MAX):
                outcome = _bounded(await self._source.resolve(host))
        except Unresolved as error:
            outcome = _Nothing(error.text, error.ours)
        except TimeoutError:
            outcome = _Nothing("the name servers did not answer")
        except Exception as error:  # a fault of the source: whoever waits for it is told, if anybody does
            if not question.answer.done():
                question.answer.set_exception(error)
            return
        finally:
            if self._asking.get(host) is question:
                del self._asking[host]
        self._remember(host, outcome)
        question.settle(outcome)

    def _remember(self, host: str, outcome: Resolution | _Nothing) -> None:
        ttl = self._negative_ttl
        if isinstance(outcome, Resolution):
            ttl = min(max(outcome.ttl, self._ttl_min), TTL_MAX_SECONDS)
        self._known[host] = _Known(outcome, self._loop.time() + ttl)
        self._known.move_to_end(host)
        # Those unused for longest first, and each time one more than comes: what has expired does not stay.
        for host in tuple(islice(self._known, 2)):
            if len(self._known) > NAMES_MAX or self._known[host].until <= self._loop.time():
                del self._known[host]


def _bounded(found: Resolution) -> Resolution | _Nothing:
    if len(found.addresses) > ADDRESSES_MAX:
        return _Nothing(f"the name has more than {ADDRESSES_MAX} addresses")
    return found
