"""The buckets of the rate limit: exact in their number, bounded in their memory, one for all who share a table."""

import mmap

import pytest

from tidings.errors import TooManyRequests
from tidings.service.rates import TABLE_BYTES, RateLimit

MINUTE = 60_000_000


class Turned:
    """A clock that stands until it is turned; microseconds."""

    def __init__(self) -> None:
        self.now = 1_795_000_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Turned:
    return Turned()


def taken(rates: RateLimit, token: str, wanted: int) -> int:
    """How many of so many requests are let pass."""
    passed = 0
    for _ in range(wanted):
        try:
            rates.take(token)
        except TooManyRequests:
            continue
        passed += 1
    return passed


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 11, 59, 61, 997, 1_500, 7_777, 100_003])
def test_a_minutes_requests_pass_and_no_more(limit: int, clock: Turned) -> None:
    """Fractions of a microsecond do not add up to a request."""
    rates = RateLimit(limit, elapsed=clock)
    assert taken(rates, "one", limit + 10) == limit
    clock.now += 3 * MINUTE
    assert taken(rates, "one", limit + 10) == limit


def test_the_bucket_refills_as_time_passes(clock: Turned) -> None:
    rates = RateLimit(6, elapsed=clock)
    assert taken(rates, "one", 7) == 6
    with pytest.raises(TooManyRequests) as refused:
        rates.take("one")
    assert refused.value.retry_after == 10
    clock.now += 10_000_000
    assert taken(rates, "one", 2) == 1
    assert taken(rates, "other", 7) == 6


def test_who_shares_a_table_counts_together(clock: Turned) -> None:
    with mmap.mmap(-1, TABLE_BYTES) as memory, memoryview(memory) as table:
        first = RateLimit(10, elapsed=clock, table=table)
        second = RateLimit(10, elapsed=clock, table=table)
        assert taken(first, "one", 6) + taken(second, "one", 6) == 10
        assert taken(first, "one", 1) == 0
        assert taken(second, "other", 11) == 10
        del first, second


def test_many_tokens_do_not_push_out_the_busy_one(clock: Turned) -> None:
    """Its bucket is kept while any other of its set is fuller."""
    rates = RateLimit(1_500, elapsed=clock)
    assert taken(rates, "busy", 1_500) == 1_500
    for number in range(50_000):
        rates.take(f"token {number}")
    assert taken(rates, "busy", 1) == 0
