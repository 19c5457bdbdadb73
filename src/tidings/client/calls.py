"""Calls and answers as values: what to send, what came back, whether to try again. No I/O.

The sync and the async session only carry these over the network.
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote

T = TypeVar("T")

Parameter: TypeAlias = str | int | bool | Sequence[str] | None

# Sixteen times the largest page there is.
RESPONSE_BYTES_MAX: Final = 16 << 20
# Calls that may be repeated without doing anything twice. A POST is never repeated: it may have been carried out.
IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})
RETRIED: Final = frozenset({429, 500, 502, 503, 504})
RETRIES_MAX: Final = 4
# Seconds before the first retry; doubles.
RETRY_FIRST: Final = 0.5
# A caller who has to wait longer than this wants to be told instead.
RETRY_AFTER_MAX: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: `path` is below the base URL, `params` become its query, `body` is JSON."""

    method: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes | None

    @classmethod
    def of(
        cls,
        method: str,
        path: str,
        *,
        params: Mapping[str, Parameter] | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Call:
        """Put a call together. Parameters that are None are left out; lists are joined by commas."""
        if not path.startswith("/"):
            raise ValueError("a path is below the base URL and begins with a slash")
        body = None if json is None else _json(json)
        content = {} if body is None else {"Content-Type": "application/json; charset=UTF-8"}
        query = {name: _text(value) for name, value in (params or {}).items() if value is not None}
        return cls(
            method=method.upper(),
            path=path,
            params=query,
            headers={"Accept": "application/json", **content, **(headers or {})},
            body=body,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class ApiErrorItem:
    """One entry of an error body.

    `phrase` comes with a 500, for whoever can search the service's log. Only Tidings sends `code`, which is stable
    and for programs, and `gid`, the webhook that stands in the way of a duplicate.
    """

    message: str
    help: str | None = None
    code: str | None = None
    phrase: str | None = None
    gid: str | None = None


class ApiError(Exception):
    """The call did not succeed: refused by the service, or never answered.

    `status` is None when there was no answer; whether the call was carried out is then unknown. `body` is the
    answer's, as it came; `retry_after` the seconds the service asked to wait.
    """

    def __init__(
        self,
        status: int | None,
        errors: Sequence[ApiErrorItem],
        *,
        body: bytes = b"",
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.errors = tuple(errors)
        self.body = body
        self.retry_after = retry_after
        super().__init__(self.message if status is None else f"{status}: {self.message}")

    @property
    def message(self) -> str:
        """What the service says is wrong."""
        return "; ".join(error.message for error in self.errors)

    @property
    def help(self) -> str | None:
        """Where the first error says more can be read."""
        return self.errors[0].help if self.errors else None

    @property
    def code(self) -> str | None:
        """The first error's machine-readable name."""
        return self.errors[0].code if self.errors else None


def read(answer: Answer) -> dict[str, Any]:
    """The body of a successful answer; raises `ApiError` for every other."""
    parsed = _parsed(answer.body)
    if not 200 <= answer.status < 300:
        retry_after = wanted_wait(answer)
        raise ApiError(answer.status, _errors(answer, parsed), body=answer.body, retry_after=retry_after)
    if parsed is None:
        raise ApiError(answer.status, [ApiErrorItem("the answer is not a JSON object")], body=answer.body)
    return parsed


def unanswered(error: Exception) -> ApiError:
    """The error for a call that the network did not carry, or whose answer it did not."""
    what = str(error) or type(error).__name__
    return ApiError(None, [ApiErrorItem(f"no answer: {what}")])


def gather(size: int, chunk: bytes) -> int:
    """The size so far; raises `ApiError` once a body is larger than anything this API answers."""
    size += len(chunk)
    if size > RESPONSE_BYTES_MAX:
        raise ApiError(None, [ApiErrorItem(f"the answer is larger than {RESPONSE_BYTES_MAX} bytes")])
    return size


def wait_before_retry(call: Call, answer: Answer, *, retries: int) -> float | None:
    """Seconds to wait before sending this call again, after so many retries; None if it is not to be."""
    if call.method not in IDEMPOTENT or answer.status not in RETRIED or retries >= RETRIES_MAX:
        return None
    wanted = wanted_wait(answer)
    wait = max(RETRY_FIRST * 2**retries, wanted or 0.0)
    return wait if wait <= RETRY_AFTER_MAX else None


def wanted_wait(answer: Answer) -> float | None:
    """The seconds that `Retry-After` asks for. A date counts from the answer's own, whatever our clock says."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        until, sent = (parsedate_to_datetime(each) for each in (text, answer.headers.get("date", "")))
        return max(0.0, (until - sent).total_seconds())
    except (TypeError, ValueError):  # not there, not a date, or one of them without a zone
        return None


def next_call(call: Call, body: Mapping[str, Any]) -> Call | None:
    """The call for the page after this one; None after the last."""
    next_page = body.get("next_page")
    offset = next_page.get("offset") if isinstance(next_page, dict) else None
    if offset is None:
        return None
    if not isinstance(offset, str) or offset == call.params.get("offset"):
        raise ApiError(200, [ApiErrorItem("the list does not go on: it gave an offset that leads nowhere")])
    return replace(call, params={**call.params, "offset": offset})


def data_of(body: Mapping[str, Any], kind: type[T]) -> T:
    """The `data` of a body; raises `ApiError` if it is not of this kind."""
    data = body.get("data")
    if not isinstance(data, kind):
        raise ApiError(200, [ApiErrorItem("the answer holds no data, or other data than was asked for")])
    return data


def in_path(gid: str) -> str:
    """A gid as a segment of a path; raises `ValueError` if it cannot be one."""
    if gid in ("", ".", ".."):
        raise ValueError(f"{gid!r} is not a gid")
    return quote(gid, safe="")


def _json(value: object) -> bytes:
    return jsonlib.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _text(value: str | int | bool | Sequence[str]) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case _:
            return ",".join(value)


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        parsed = jsonlib.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _errors(answer: Answer, parsed: Mapping[str, Any] | None) -> list[ApiErrorItem]:
    given = (parsed or {}).get("errors")
    items = [_item(each) for each in given if isinstance(each, dict)] if isinstance(given, list) else []
    return items or [ApiErrorItem(f"the service answered {answer.status}")]


def _item(given: Mapping[str, Any]) -> ApiErrorItem:
    def text(name: str) -> str | None:
        value = given.get(name)
        return value if isinstance(value, str) else None

    return ApiErrorItem(
        text("message") or "no message",
        help=text("help"),
        code=text("code"),
        phrase=text("phrase"),
        gid=text("gid"),
    )
