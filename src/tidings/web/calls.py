"""One request through the common steps: authenticate, meter, read the bounded body, answer.

Routing comes before authentication, authentication before the body is read (contract §2.1).
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from tidings.errors import Incomplete, RequestError, StoreUnavailable, TooLarge
from tidings.limits import BODY_BYTES_MAX
from tidings.model import Token
from tidings.service.rates import RateLimit
from tidings.service.tokens import TokenDesk
from tidings.web import answers
from tidings.wire import bodies, fields
from tidings.wire.bodies import Body, Options
from tidings.wire.fields import Selection

# A body must have arrived within this time, seconds: a megabyte at modem speed takes less.
BODY_SECONDS_MAX: Final = 60.0
# Of a body over the bound, so much is read and thrown away before answering: a client that is still sending would
# otherwise see a reset connection instead of the 413.
DISCARDED_BYTES_MAX: Final = 16 * BODY_BYTES_MAX

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """An authenticated request whose body has been read."""

    request: Request
    caller: Token
    raw: bytes

    @cached_property
    def body(self) -> Body:
        return bodies.parse(self.raw, self.request.headers.get("content-type"))

    @cached_property
    def query(self) -> dict[str, str]:
        """The query's parameters; of one given twice, the last."""
        return dict(self.request.query_params)

    @cached_property
    def options(self) -> Options:
        named = bodies.query_options(self.query)
        return bodies.merge(named, self.body.options) if self.raw else named

    @cached_property
    def selection(self) -> Selection | None:
        """The fields the caller named, None if none were.

        Read before anything is done: an answer that cannot be shaped must not follow a change that was made.
        """
        return None if self.options.fields is None else fields.parse(self.options.fields)

    @property
    def gid(self) -> str:
        return str(self.request.path_params["gid"])

    def shaped(self, record: dict[str, object], *, default: dict[str, object] | None = None) -> object:
        """A record with the fields the caller named; without any, the default (or all of it)."""
        if self.selection is None:
            return record if default is None else default
        return fields.select(record, self.selection)

    def answer(
        self, content: object, *, status: int = 200, headers: dict[str, str] | None = None
    ) -> Response:
        return answers.answer(content, status=status, pretty=self.options.pretty, headers=headers)


Endpoint = Callable[[Call], Awaitable[Response]]


class Desk:
    """Takes requests in: what every endpoint of the API has in common."""

    def __init__(self, tokens: TokenDesk, rates: RateLimit, *, new_phrase: Callable[[], str]) -> None:
        self._tokens = tokens
        self._rates = rates
        self._new_phrase = new_phrase

    def endpoint(
        self, handle: Endpoint, *, metered: bool, reads_body: bool
    ) -> Callable[[Request], Awaitable[Response]]:
        """Wrap an endpoint into the common steps.

        `metered` calls count towards the token's rate limit. Bodies of GET and DELETE are ignored (contract §3):
        only `reads_body` calls get theirs.
        """

        async def respond(request: Request) -> Response:
            try:
                caller = await self._tokens.authenticate(request.headers.get("authorization"))
                if metered:
                    self._rates.take(caller.gid)
                raw = await read_body(request)
                call = Call(request, caller, raw if reads_body else b"")
                _ = call.selection
                return await handle(call)
            except RequestError as error:
                return answers.refusal(error)
            except StoreUnavailable as error:
                logger.error("%s %s: %s", request.method, request.url.path, error)
                return answers.unavailable()
            except ClientDisconnect:
                # Nobody reads this; the framework wants an answer all the same.
                return answers.refusal(Incomplete("The request ended early", code="incomplete"))
            except Exception:
                return self.mistake(request)

        return respond

    def mistake(self, request: Request) -> Response:
        """Answer an error nobody foresaw, and log it under a phrase the caller can quote."""
        phrase = self._new_phrase()
        logger.exception("%s %s failed: %s", request.method, request.url.path, phrase)
        error = sys.exception()
        if isinstance(error, MemoryError):
            # Not this request's alone: who runs the loop decides.
            asyncio.get_running_loop().call_exception_handler({"message": phrase, "exception": error})
        return answers.server_error(phrase)


async def read_body(request: Request) -> bytes:
    """Read a body up to its bound.

    Raises:
        TooLarge: over the bound; what was sent beyond is thrown away, up to a bound of its own. A client that asks
            before it sends (`Expect: 100-continue`) is told at once.
        Incomplete: it did not arrive in time.
    """
    length = request.headers.get("content-length", "")
    if "expect" in request.headers and length.isdecimal() and int(length) > BODY_BYTES_MAX:
        raise _too_large(length)
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            chunks: list[bytes] = []
            size = 0
            async for chunk in request.stream():
                size += len(chunk)
                if size <= BODY_BYTES_MAX:
                    chunks.append(chunk)
                elif size > DISCARDED_BYTES_MAX:
                    break
    except TimeoutError as error:
        raise Incomplete(
            f"The body did not arrive within {BODY_SECONDS_MAX:g} seconds", code="incomplete"
        ) from error
    if size > BODY_BYTES_MAX:
        raise _too_large(length)
    return b"".join(chunks)


def _too_large(announced: str) -> TooLarge:
    told = f" (announced: {announced[:20]})" if announced else ""
    return TooLarge(f"The body is over {BODY_BYTES_MAX} bytes{told}.", code="body_too_large")
