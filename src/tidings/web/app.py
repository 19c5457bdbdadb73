"""The ASGI application: every route in one table."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tidings.web import answers, openapi
from tidings.web.calls import Desk, Endpoint
from tidings.web.health import Health
from tidings.web.publishing import PublishingCalls
from tidings.web.tokens import TokenCalls
from tidings.web.webhooks import BASE_PATH, WebhookCalls

# What the official SDK's browser build sends, and our own (contract §8).
_CORS_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "X-Asana-Client-Lib",
    "Asana-Enable",
    "Asana-Disable",
)


@dataclass(frozen=True, slots=True)
class Calls:
    """Everything that answers, put together by the composition root."""

    desk: Desk
    webhooks: WebhookCalls
    publishing: PublishingCalls
    tokens: TokenCalls
    health: Health


def build(calls: Calls, *, cors_origins: Sequence[str] = ()) -> Starlette:
    """Make the application."""
    middleware = (
        [
            Middleware(
                CORSMiddleware,
                allow_origins=list(cors_origins),
                allow_methods=["GET", "POST", "PUT", "DELETE"],
                allow_headers=_CORS_HEADERS,
                expose_headers=["Retry-After", "Location"],
            )
        ]
        if cors_origins
        else []
    )

    async def no_route(request: Request, error: Exception) -> Response:
        return answers.no_route()

    async def mistake(request: Request, error: Exception) -> Response:
        return calls.desk.mistake(request)

    app = Starlette(
        routes=_routes(calls),
        middleware=middleware,
        exception_handlers={HTTPException: no_route, Exception: mistake},
    )
    app.router.redirect_slashes = False
    return app


def _routes(calls: Calls) -> list[Route]:
    webhooks, publishing, tokens = calls.webhooks, calls.publishing, calls.tokens
    # Asana's own calls are metered; the platform's and the operator's are not.
    metered: list[tuple[str, str, Endpoint]] = [
        ("POST", "/webhooks", webhooks.create),
        ("GET", "/webhooks", webhooks.list_all),
        ("GET", "/webhooks/{gid}", webhooks.get),
        ("PUT", "/webhooks/{gid}", webhooks.update),
        ("DELETE", "/webhooks/{gid}", webhooks.delete),
    ]
    free: list[tuple[str, str, Endpoint]] = [
        ("GET", "/webhooks/{gid}/attempts", webhooks.list_attempts),
        ("POST", "/events", publishing.publish),
        ("POST", "/resources", publishing.put_many),
        ("PUT", "/resources/{gid}", publishing.put),
        ("GET", "/resources/{gid}", publishing.get),
        ("DELETE", "/resources/{gid}", publishing.delete),
        ("POST", "/tokens", tokens.create),
        ("GET", "/tokens", tokens.list_all),
        ("DELETE", "/tokens/{gid}", tokens.revoke),
    ]

    def route(method: str, path: str, handle: Endpoint, *, is_metered: bool) -> Route:
        respond = calls.desk.endpoint(handle, metered=is_metered, reads_body=method in ("POST", "PUT"))
        return Route(BASE_PATH + path, respond, methods=[method])

    return [
        *(route(*entry, is_metered=True) for entry in metered),
        *(route(*entry, is_metered=False) for entry in free),
        _open("/healthz", calls.health.live),
        _open("/readyz", calls.health.ready),
        _open("/openapi.json", openapi.describe),
    ]


def _open(path: str, respond: Callable[[Request], Awaitable[Response]]) -> Route:
    """A route that needs no token."""
    return Route(path, respond, methods=["GET"])
