"""The five calls of the reference, sync and async, over the same call values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from typing import Any, Final, Literal, Self, cast, overload

from tidings.client.calls import Call, Parameter, data_of, in_path
from tidings.client.records import (
    CreatedWebhook,
    CreateWebhookBody,
    ListOptions,
    Options,
    UpdateWebhookBody,
    WebhookPage,
    WebhookPayload,
    WebhookRecord,
)
from tidings.client.session import LOCAL_URL, TIMEOUT_SECONDS, AsyncSession, Session

# What the official SDK asks for; a page of the largest size costs the fewest calls.
PAGE_SIZE: Final = 100


class WebhooksApi:
    """The calls about webhooks. Make it with a token, or over a `Session` that you close yourself.

    Each returns the `data` of the answer; with `full_payload=True` the whole body. Each raises `ApiError`.
    """

    def __init__(
        self,
        token: str = "",
        *,
        base_url: str = LOCAL_URL,
        timeout: float = TIMEOUT_SECONDS,
        session: Session | None = None,
    ) -> None:
        self._owned = session is None
        self.session = session or Session(token, base_url=base_url, timeout=timeout)

    @overload
    def create_webhook(
        self, body: CreateWebhookBody, opts: Options | None = None, *, full_payload: Literal[False] = False
    ) -> WebhookRecord: ...
    @overload
    def create_webhook(
        self, body: CreateWebhookBody, opts: Options | None = None, *, full_payload: Literal[True]
    ) -> CreatedWebhook: ...
    def create_webhook(
        self, body: CreateWebhookBody, opts: Options | None = None, *, full_payload: bool = False
    ) -> Any:
        """Establish a webhook. The target must shake hands while this call waits.

        The secret is beside `data`: pass `full_payload=True` to see it.
        """
        return _part(self.session.call(_create(body, opts)), full_payload)

    def delete_webhook(self, webhook_gid: str) -> dict[str, Any]:
        """Remove a webhook for good. A delivery already under way may still arrive; none follows."""
        return cast(dict[str, Any], _part(self.session.call(_delete(webhook_gid)), False))

    @overload
    def get_webhook(
        self, webhook_gid: str, opts: Options | None = None, *, full_payload: Literal[False] = False
    ) -> WebhookRecord: ...
    @overload
    def get_webhook(
        self, webhook_gid: str, opts: Options | None = None, *, full_payload: Literal[True]
    ) -> WebhookPayload: ...
    def get_webhook(
        self, webhook_gid: str, opts: Options | None = None, *, full_payload: bool = False
    ) -> Any:
        """The full record of a webhook."""
        return _part(self.session.call(_get(webhook_gid, opts)), full_payload)

    @overload
    def get_webhooks(
        self, workspace: str, opts: ListOptions | None = None, *, full_payload: Literal[False] = False
    ) -> Iterator[WebhookRecord]: ...
    @overload
    def get_webhooks(
        self, workspace: str, opts: ListOptions | None = None, *, full_payload: Literal[True]
    ) -> WebhookPage: ...
    def get_webhooks(
        self, workspace: str, opts: ListOptions | None = None, *, full_payload: bool = False
    ) -> Any:
        """Your webhooks in a workspace, page after page as you go on; with `full_payload` one page."""
        call = _list(workspace, opts)
        return self.session.call(call) if full_payload else self._each(call)

    def _each(self, call: Call) -> Iterator[WebhookRecord]:
        for page in self.session.pages(call):
            yield from data_of(page, list)

    @overload
    def update_webhook(
        self,
        body: UpdateWebhookBody,
        webhook_gid: str,
        opts: Options | None = None,
        *,
        full_payload: Literal[False] = False,
    ) -> WebhookRecord: ...
    @overload
    def update_webhook(
        self,
        body: UpdateWebhookBody,
        webhook_gid: str,
        opts: Options | None = None,
        *,
        full_payload: Literal[True],
    ) -> WebhookPayload: ...
    def update_webhook(
        self,
        body: UpdateWebhookBody,
        webhook_gid: str,
        opts: Options | None = None,
        *,
        full_payload: bool = False,
    ) -> Any:
        """Replace the filters of a webhook, all of them."""
        return _part(self.session.call(_update(body, webhook_gid, opts)), full_payload)

    def close(self) -> None:
        if self._owned:
            self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class AsyncWebhooksApi:
    """`WebhooksApi` for asyncio: the same with `await`, and `async for` over a list."""

    def __init__(
        self,
        token: str = "",
        *,
        base_url: str = LOCAL_URL,
        timeout: float = TIMEOUT_SECONDS,
        session: AsyncSession | None = None,
    ) -> None:
        self._owned = session is None
        self.session = session or AsyncSession(token, base_url=base_url, timeout=timeout)

    @overload
    async def create_webhook(
        self, body: CreateWebhookBody, opts: Options | None = None, *, full_payload: Literal[False] = False
    ) -> WebhookRecord: ...
    @overload
    async def create_webhook(
        self, body: CreateWebhookBody, opts: Options | None = None, *, full_payload: Literal[True]
    ) -> CreatedWebhook: ...
    async def create_webhook(
        self, body: CreateWebhookBody, opts: Options | None = None, *, full_payload: bool = False
    ) -> Any:
        """Establish a webhook. The target must shake hands while this call waits.

        The secret is beside `data`: pass `full_payload=True` to see it.
        """
        return _part(await self.session.call(_create(body, opts)), full_payload)

    async def delete_webhook(self, webhook_gid: str) -> dict[str, Any]:
        """Remove a webhook for good. A delivery already under way may still arrive; none follows."""
        return cast(dict[str, Any], _part(await self.session.call(_delete(webhook_gid)), False))

    @overload
    async def get_webhook(
        self, webhook_gid: str, opts: Options | None = None, *, full_payload: Literal[False] = False
    ) -> WebhookRecord: ...
    @overload
    async def get_webhook(
        self, webhook_gid: str, opts: Options | None = None, *, full_payload: Literal[True]
    ) -> WebhookPayload: ...
    async def get_webhook(
        self, webhook_gid: str, opts: Options | None = None, *, full_payload: bool = False
    ) -> Any:
        """The full record of a webhook."""
        return _part(await self.session.call(_get(webhook_gid, opts)), full_payload)

    @overload
    def get_webhooks(
        self, workspace: str, opts: ListOptions | None = None, *, full_payload: Literal[False] = False
    ) -> AsyncIterator[WebhookRecord]: ...
    @overload
    def get_webhooks(
        self, workspace: str, opts: ListOptions | None = None, *, full_payload: Literal[True]
    ) -> Awaitable[WebhookPage]: ...
    def get_webhooks(
        self, workspace: str, opts: ListOptions | None = None, *, full_payload: bool = False
    ) -> Any:
        """Your webhooks in a workspace, page after page as you go on; with `full_payload` one page."""
        call = _list(workspace, opts)
        return self.session.call(call) if full_payload else self._each(call)

    async def _each(self, call: Call) -> AsyncIterator[WebhookRecord]:
        async for page in self.session.pages(call):
            for webhook in data_of(page, list):
                yield webhook

    @overload
    async def update_webhook(
        self,
        body: UpdateWebhookBody,
        webhook_gid: str,
        opts: Options | None = None,
        *,
        full_payload: Literal[False] = False,
    ) -> WebhookRecord: ...
    @overload
    async def update_webhook(
        self,
        body: UpdateWebhookBody,
        webhook_gid: str,
        opts: Options | None = None,
        *,
        full_payload: Literal[True],
    ) -> WebhookPayload: ...
    async def update_webhook(
        self,
        body: UpdateWebhookBody,
        webhook_gid: str,
        opts: Options | None = None,
        *,
        full_payload: bool = False,
    ) -> Any:
        """Replace the filters of a webhook, all of them."""
        return _part(await self.session.call(_update(body, webhook_gid, opts)), full_payload)

    async def aclose(self) -> None:
        if self._owned:
            await self.session.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()


def _create(body: CreateWebhookBody, opts: Options | None) -> Call:
    return Call.of("POST", "/webhooks", params=_params(opts), json=body)


def _delete(webhook_gid: str) -> Call:
    return Call.of("DELETE", f"/webhooks/{in_path(webhook_gid)}")


def _get(webhook_gid: str, opts: Options | None) -> Call:
    return Call.of("GET", f"/webhooks/{in_path(webhook_gid)}", params=_params(opts))


def _list(workspace: str, opts: ListOptions | None) -> Call:
    return Call.of("GET", "/webhooks", params={"workspace": workspace, "limit": PAGE_SIZE, **_params(opts)})


def _update(body: UpdateWebhookBody, webhook_gid: str, opts: Options | None) -> Call:
    return Call.of("PUT", f"/webhooks/{in_path(webhook_gid)}", params=_params(opts), json=body)


def _params(opts: Options | None) -> dict[str, Parameter]:
    return dict(cast(Mapping[str, Parameter], opts or {}))


def _part(body: dict[str, Any], full_payload: bool) -> Any:
    data = data_of(body, dict)
    return body if full_payload else data
