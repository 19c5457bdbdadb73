"""Times as text: `YYYY-MM-DDTHH:mm:ss.SSSZ`, always three decimals (contract §1.1)."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from tidings.errors import BadRequest
from tidings.model import Micros

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SECOND: Final = 1_000_000
# The longest a time can be with its offset, as ISO 8601 writes it; anything longer is not one.
_CHARS_MAX: Final = 40
# The end of the year 9999, UTC: what lies behind it cannot be written. An offset can lead there.
_LAST: Final[Micros] = 253_402_300_800 * _SECOND - 1


@lru_cache(maxsize=64)
def _to_the_second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


# All events of a publish may be of the same instant.
@lru_cache(maxsize=64)
def render(at: Micros) -> str:
    """Write an instant, cut to milliseconds."""
    seconds, rest = divmod(at, _SECOND)
    return f"{_to_the_second(seconds)}.{rest // 1000:03d}Z"


def render_optional(at: Micros | None) -> str | None:
    return None if at is None else render(at)


def parse(value: object, path: str) -> Micros:
    """Read an instant with its offset from UTC.

    Raises:
        BadRequest: not a time, or one without an offset, before 1970, or behind 9999.
    """
    if isinstance(value, str) and len(value) <= _CHARS_MAX:
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            at = None
        if at is not None and at.tzinfo is not None:
            since = (at - _EPOCH) // _MICROSECOND
            if 0 <= since <= _LAST:
                return since
    raise BadRequest.at(
        path,
        "expected a time with its offset, such as 2026-02-22T02:06:58.158Z",
        code="invalid_time",
    )
