"""Bytes and headers of every response, errors included (contract §2.1, §12.27)."""

from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.responses import Response

from tidings.errors import DuplicateWebhook, Incomplete, RequestError, TooLarge, TooManyRequests
from tidings.wire import failures

_HEADERS: Final = {
    "Content-Type": "application/json; charset=UTF-8",
    "Cache-Control": "no-store",
    "X-Asana-Api-Version": "1.1",
    "X-Content-Type-Options": "nosniff",
}

_encode = msgspec.json.Encoder().encode


def answer(
    content: object, *, status: int = 200, pretty: bool = False, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON response."""
    body = _encode(content)
    if pretty:
        body = msgspec.json.format(body, indent=2)
    return Response(body, status, headers={**_HEADERS, **(headers or {})})


def refusal(error: RequestError) -> Response:
    """What a `RequestError` is answered with."""
    headers: dict[str, str] = {}
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, TooLarge | Incomplete):
        # What is still on its way is not read: the connection cannot be used again.
        headers["Connection"] = "close"
    gid = error.gid if isinstance(error, DuplicateWebhook) else None
    return answer(failures.render(error.message, error.code, gid=gid), status=error.status, headers=headers)


def unavailable() -> Response:
    """The store did not take or give what was asked for."""
    return answer(
        failures.render(
            "The service cannot reach its database. Nothing was accepted; please try again.",
            "store_unavailable",
        ),
        status=503,
        headers={"Retry-After": "1"},
    )


def overloaded() -> Response:
    """There are more connections than the service can hold."""
    return answer(
        failures.render(
            "The service has too many connections. Please retry after the given amount of time.", "overloaded"
        ),
        status=503,
        headers={"Retry-After": "1", "Connection": "close"},
    )


def server_error(phrase: str) -> Response:
    """A mistake of ours. The phrase is in the log line that tells the operator what happened."""
    return answer(failures.render("Server Error", "server_error", phrase=phrase), status=500)


def not_http(reason: str) -> Response:
    """What arrived is not HTTP as this server reads it, or its head is over a bound."""
    return answer(failures.render(reason, "invalid_request"), status=400, headers={"Connection": "close"})


def no_route() -> Response:
    """An unknown path, or a method a path does not have: never 405 (contract §2.1)."""
    return answer(failures.render("No matching route for request", "no_route"), status=404)
