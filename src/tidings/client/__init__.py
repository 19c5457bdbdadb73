"""For other people's programs: the calls of the webhooks API, against Tidings or against Asana.

    from tidings.client import ApiError, WebhooksApi

    with WebhooksApi("0/my-token") as webhooks:           # Tidings on this machine
        created = webhooks.create_webhook(
            {"data": {"resource": "8675309", "target": "https://example.com/receive"}}, full_payload=True
        )
        secret, gid = created["X-Hook-Secret"], created["data"]["gid"]
        for webhook in webhooks.get_webhooks("1331"):      # page after page, as you go on
            print(webhook["target"])

`base_url="https://app.asana.com/api/1.0"` speaks to the real service. The arguments are those of the reference
and of the official Python SDK 5. `AsyncWebhooksApi` is the same with `await` and `async for`. Everything that
goes wrong is an `ApiError`. `Session.request` reaches every other call.

Importing this needs the standard library alone; making a client needs `httpx`.
"""

from tidings.client.calls import ApiError, ApiErrorItem, Call
from tidings.client.records import (
    CompactResource,
    CreatedWebhook,
    CreateWebhookBody,
    CreateWebhookData,
    FilterRecord,
    ListOptions,
    NextPage,
    Options,
    UpdateWebhookBody,
    UpdateWebhookData,
    WebhookPage,
    WebhookPayload,
    WebhookRecord,
)
from tidings.client.session import LOCAL_URL, AsyncSession, Session
from tidings.client.webhooks import AsyncWebhooksApi, WebhooksApi

__all__ = [
    "LOCAL_URL",
    "ApiError",
    "ApiErrorItem",
    "AsyncSession",
    "AsyncWebhooksApi",
    "Call",
    "CompactResource",
    "CreateWebhookBody",
    "CreateWebhookData",
    "CreatedWebhook",
    "FilterRecord",
    "ListOptions",
    "NextPage",
    "Options",
    "Session",
    "UpdateWebhookBody",
    "UpdateWebhookData",
    "WebhookPage",
    "WebhookPayload",
    "WebhookRecord",
    "WebhooksApi",
]
