"""How often a token may call: a bucket of one minute's requests that refills as time passes (contract §8)."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Final

from tidings.errors import TooManyRequests
from tidings.limits import MICROSECONDS_PER_SECOND
from tidings.model import Micros

_MINUTE: Final = 60 * MICROSECONDS_PER_SECOND
# Tokens whose buckets are kept; a forgotten bucket is a full one.
_BUCKETS_MAX: Final = 10_000


@dataclass(slots=True)
class _Bucket:
    left: float
    at: Micros


class RateLimit:
    """Lets each token make `per_minute` requests a minute; 0 lets all pass. One per process."""

    def __init__(self, per_minute: int, *, elapsed: Callable[[], Micros]) -> None:
        self._per_minute = per_minute
        self._elapsed = elapsed
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, token: str) -> None:
        """Count one request.

        Raises:
            TooManyRequests: the bucket is empty; says when the next request will be let pass.
        """
        if not self._per_minute:
            return
        now = self._elapsed()
        bucket = self._buckets.pop(token, None) or _Bucket(self._per_minute, now)
        self._buckets[token] = bucket
        if len(self._buckets) > _BUCKETS_MAX:
            self._buckets.popitem(last=False)
        bucket.left = min(self._per_minute, bucket.left + (now - bucket.at) * self._per_minute / _MINUTE)
        bucket.at = now
        if bucket.left < 1:
            raise TooManyRequests(
                "You've made too many requests and hit a rate limit. "
                "Please retry after the given amount of time.",
                code="rate_limited",
                retry_after=max(1, ceil((1 - bucket.left) * 60 / self._per_minute)),
            )
        bucket.left -= 1
