"""Passing what arrives on to another receiver, byte for byte, and its answer back."""

from __future__ import annotations

import time
from typing import Final
from urllib.parse import urlsplit

import httpx

from tidings import signing
from tidings.cli.listener import Arrival, HeaderList, Reply

# Longer than the sender waits for us.
TIMEOUT_SECONDS: Final = 30.0
ANSWER_BYTES_MAX: Final = 1 << 20
# What concerns one connection only (RFC 9110 §7.6.1), and what the new request has of its own.
_NOT_PASSED_ON: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "date",
        "server",
    }
)


class Forwarder:
    """Posts arrivals to one receiver. To its URL; if that has no path, under the path they came to."""

    def __init__(self, url: str) -> None:
        self._url = url
        parts = urlsplit(url)
        self._base = url.rstrip("/") if parts.path in ("", "/") and not parts.query else None
        self._client: httpx.AsyncClient | None = None

    async def __call__(self, arrival: Arrival) -> Reply:
        """The receiver's answer; 502 with the reason when there is none."""
        began = time.monotonic()
        try:
            response, body = await self._exchange(arrival)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            return Reply(status=502, body=reason.encode(), note=f"forwarding failed: {reason}")
        took = (time.monotonic() - began) * 1_000
        note = f"forwarded in {took:.0f} ms"
        offered = arrival.header(signing.SECRET_HEADER)
        if offered is not None and not signing.echoed(offered, response.headers.get(signing.SECRET_HEADER)):
            note += "; it did NOT answer with the secret"
        return Reply(
            status=response.status_code,
            headers=_passed_on(response.headers.multi_items()),
            body=body,
            note=note,
        )

    async def _exchange(self, arrival: Arrival) -> tuple[httpx.Response, bytes]:
        client = self._opened()
        request = httpx.Request(
            arrival.method, self._target(arrival), headers=_passed_on(arrival.headers), content=arrival.body
        )
        response = await client.send(request, stream=True)
        try:
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > ANSWER_BYTES_MAX:
                    raise httpx.ReadError(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
            return response, bytes(body)
        finally:
            await response.aclose()

    def _target(self, arrival: Arrival) -> str:
        return self._url if self._base is None else self._base + arrival.target

    def _opened(self) -> httpx.AsyncClient:
        """The client, made within the event loop; what it reaches is named, so no proxy has a say."""
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False, follow_redirects=False)
        return self._client


def _passed_on(headers: HeaderList) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in _NOT_PASSED_ON]
