"""How often a token may call: a bucket of one minute's requests that refills as time passes (contract §8).

The buckets lie in a table of fixed size, as bytes: the memory of one process, or one that several processes share. So
a token has its minute's requests once, whichever process answers it. A bucket is a single number, the moment it will
be full again; two processes that count the same token at the very same time may count once, in the caller's favour.
"""

import hashlib
from collections.abc import Callable
from math import ceil
from typing import Final

from tidings.errors import TooManyRequests
from tidings.limits import MICROSECONDS_PER_SECOND
from tidings.model import Micros

# Nanoseconds, so that what is rounded off a request does not add up to one within a minute.
_MICROSECOND: Final = 1_000
_SECOND: Final = MICROSECONDS_PER_SECOND * _MICROSECOND
_MINUTE: Final = 60 * _SECOND
# Tokens whose buckets are kept: so many sets of so many ways. A token has its place in one of the set's ways; where
# all are taken, the one that is full first is forgotten. A forgotten bucket is a full one.
_SETS: Final = 2_048
_WAYS: Final = 8
# Each is two words: whose it is, and when it will be full.
_WORDS: Final = 2
TABLE_BYTES: Final = _SETS * _WAYS * _WORDS * 8


class RateLimit:
    """Lets each token make `per_minute` requests a minute; 0 lets all pass.

    `table` is `TABLE_BYTES` of memory, at first zero. Who shares it must share the clock: `elapsed` is one that all
    processes of a machine read alike.
    """

    def __init__(
        self, per_minute: int, *, elapsed: Callable[[], Micros], table: memoryview | None = None
    ) -> None:
        self._per_minute = per_minute
        self._elapsed = elapsed
        table = memoryview(bytearray(TABLE_BYTES)) if table is None else table
        self._words = table.cast("Q")

    def take(self, token: str) -> None:
        """Count one request.

        Raises:
            TooManyRequests: the bucket is empty; says when the next request will be let pass.
        """
        if not self._per_minute:
            return
        now, cost = self._elapsed() * _MICROSECOND, round(_MINUTE / self._per_minute)
        bucket = self._bucket(token)
        full_at = max(self._words[bucket], now) + cost
        over = full_at - (now + _MINUTE)
        # Half a request is what rounding may come to, and never a request.
        if over > cost // 2:
            raise TooManyRequests(
                "You've made too many requests and hit a rate limit. "
                "Please retry after the given amount of time.",
                code="rate_limited",
                retry_after=max(1, ceil(over / _SECOND)),
            )
        self._words[bucket] = full_at

    def _bucket(self, token: str) -> int:
        """The place of the token's bucket; a full one if it had none."""
        # Not `hash`: every process must find the same place.
        digest = hashlib.blake2b(token.encode(), digest_size=8).digest()
        name = int.from_bytes(digest, "big") or 1
        first = name % _SETS * _WAYS * _WORDS
        places = range(first, first + _WAYS * _WORDS, _WORDS)
        for place in places:
            if self._words[place] == name:
                return place + 1
        place = min(places, key=lambda place: self._words[place + 1])
        self._words[place], self._words[place + 1] = name, 0
        return place + 1
