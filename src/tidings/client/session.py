"""Carrying calls over the network: one connection pool, sync or async, over the same values.

`httpx` is imported when a session is made, so that programs which only verify need not have it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from tidings import __version__
from tidings.client.calls import (
    Answer,
    Call,
    Parameter,
    gather,
    next_call,
    read,
    unanswered,
    wait_before_retry,
)

if TYPE_CHECKING:
    import httpx

LOCAL_URL: Final = "http://127.0.0.1:8080/api/1.0"
# Creating waits for the target's handshake, which may take ten seconds.
TIMEOUT_SECONDS: Final = 30.0
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class Session:
    """Calls of one token at one service. Safe to share between threads; close it, or use it with `with`.

    `timeout` is in seconds, for connecting and for every silence of the service. Redirects are not followed.
    Calls that may be repeated are, a few times, when the service is overloaded (429, 500, 502 to 504), after the
    wait it asks for. `sleep` is how to wait.
    """

    def __init__(
        self,
        token: str,
        *,
        base_url: str = LOCAL_URL,
        timeout: float = TIMEOUT_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        library = _httpx()
        self._http: httpx.Client = library.Client(**_settings(token, base_url=base_url, timeout=timeout))
        self._failures = _failures(library)
        self._sleep = sleep

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Parameter] | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Any call: its whole body. `path` is below the base URL; `json` is the whole body to send."""
        return self.call(Call.of(method, path, params=params, json=json, headers=headers))

    def call(self, call: Call) -> dict[str, Any]:
        """Carry out a call; its whole body. Raises `ApiError`."""
        retries = 0
        while True:
            answer = self._exchange(call)
            wait = wait_before_retry(call, answer, retries=retries)
            if wait is None:
                return read(answer)
            self._sleep(wait)
            retries += 1

    def pages(self, call: Call) -> Iterator[dict[str, Any]]:
        """The bodies of a list, page after page, each asked for when it is needed."""
        following: Call | None = call
        while following is not None:
            body = self.call(following)
            yield body
            following = next_call(following, body)

    def _exchange(self, call: Call) -> Answer:
        chunks, size = [], 0
        try:
            with self._http.stream(**_arguments(call)) as response:
                for chunk in response.iter_raw():
                    size = gather(size, chunk)
                    chunks.append(chunk)
                return Answer(response.status_code, response.headers, b"".join(chunks))
        except self._failures as error:
            raise unanswered(error) from error

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class AsyncSession:
    """`Session` for asyncio; the same arguments, promises and errors."""

    def __init__(
        self,
        token: str,
        *,
        base_url: str = LOCAL_URL,
        timeout: float = TIMEOUT_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        library = _httpx()
        self._http: httpx.AsyncClient = library.AsyncClient(
            **_settings(token, base_url=base_url, timeout=timeout)
        )
        self._failures = _failures(library)
        self._sleep = sleep

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Parameter] | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Any call: its whole body. `path` is below the base URL; `json` is the whole body to send."""
        return await self.call(Call.of(method, path, params=params, json=json, headers=headers))

    async def call(self, call: Call) -> dict[str, Any]:
        """Carry out a call; its whole body. Raises `ApiError`."""
        retries = 0
        while True:
            answer = await self._exchange(call)
            wait = wait_before_retry(call, answer, retries=retries)
            if wait is None:
                return read(answer)
            await self._sleep(wait)
            retries += 1

    async def pages(self, call: Call) -> AsyncIterator[dict[str, Any]]:
        """The bodies of a list, page after page, each asked for when it is needed."""
        following: Call | None = call
        while following is not None:
            body = await self.call(following)
            yield body
            following = next_call(following, body)

    async def _exchange(self, call: Call) -> Answer:
        chunks, size = [], 0
        try:
            async with self._http.stream(**_arguments(call)) as response:
                async for chunk in response.aiter_raw():
                    size = gather(size, chunk)
                    chunks.append(chunk)
                return Answer(response.status_code, response.headers, b"".join(chunks))
        except self._failures as error:
            raise unanswered(error) from error

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()


def _httpx() -> ModuleType:
    try:
        import httpx
    except ImportError:
        raise ImportError("tidings.client needs httpx to make calls: pip install httpx") from None
    return httpx


def _failures(library: ModuleType) -> tuple[type[Exception], ...]:
    return library.HTTPError, library.StreamError, library.InvalidURL


def _settings(token: str, *, base_url: str, timeout: float) -> dict[str, Any]:
    """What both httpx clients are made with."""
    if not (token and token.isascii() and token.isprintable()) or " " in token:
        raise ValueError("a token is printable ASCII without spaces")
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"not a base URL: {base_url!r}")
    return {
        "base_url": base_url.rstrip("/"),
        "timeout": timeout,
        "headers": {
            "Authorization": f"Bearer {token}",
            "User-Agent": f"Tidings-client/{__version__}",
            # The bound on an answer's size is on what travels.
            "Accept-Encoding": "identity",
        },
        "follow_redirects": False,
        # A proxy for the world outside has no business between here and here.
        "trust_env": parts.hostname not in LOOPBACK,
    }


def _arguments(call: Call) -> dict[str, Any]:
    return {
        "method": call.method,
        "url": call.path,
        "params": call.params or None,
        "headers": call.headers,
        "content": call.body,
    }
