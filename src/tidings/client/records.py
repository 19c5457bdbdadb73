"""What goes over the wire, as types: the reference's objects (contract §0a), key by key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, Required, TypedDict


class CompactResource(TypedDict, total=False):
    """The resource of a webhook, in short."""

    gid: Required[str]
    resource_type: str
    name: str | None


class FilterRecord(TypedDict, total=False):
    """One filter. Sent: only the keys that matter; received: all four, null where unset."""

    resource_type: str | None
    resource_subtype: str | None
    action: str | None
    fields: list[str] | None


class WebhookRecord(TypedDict, total=False):
    """A webhook. Create, get and update answer with everything, a list with the first five keys.

    With `opt_fields` it holds what was named and `gid`. Times are text, `YYYY-MM-DDTHH:mm:ss.SSSZ`.
    """

    gid: Required[str]
    resource_type: str
    active: bool
    resource: CompactResource
    target: str
    created_at: str
    last_success_at: str | None
    last_failure_at: str | None
    last_failure_content: str | None
    delivery_retry_count: int
    next_attempt_after: str | None
    failure_deletion_timestamp: str | None
    is_workspace_webhook: bool
    filters: list[FilterRecord]


class WebhookPayload(TypedDict):
    """The whole body of an answer about one webhook."""

    data: WebhookRecord


# The secret stands beside `data`, under a key that is no identifier.
CreatedWebhook = TypedDict("CreatedWebhook", {"data": WebhookRecord, "X-Hook-Secret": str})
"""The whole body of the answer to a create; the one place besides the handshake where the secret is told."""


class NextPage(TypedDict):
    """Where a list goes on. `path` is below the base URL, `uri` absolute."""

    offset: str
    path: str
    uri: str


class WebhookPage(TypedDict):
    """The whole body of one page of a list. `next_page` is there when `limit` was sent; null on the last page."""

    data: list[WebhookRecord]
    next_page: NotRequired[NextPage | None]


class CreateWebhookData(TypedDict):
    """What to establish. `target` is kept byte for byte."""

    resource: str
    target: str
    filters: NotRequired[Sequence[FilterRecord]]


class CreateWebhookBody(TypedDict):
    """The body of a create."""

    data: CreateWebhookData


class UpdateWebhookData(TypedDict):
    """The filters that replace the old ones, all of them."""

    filters: Sequence[FilterRecord]


class UpdateWebhookBody(TypedDict):
    """The body of an update."""

    data: UpdateWebhookData


class Options(TypedDict, total=False):
    """`opt_fields` is a list of names, or the same joined by commas."""

    opt_fields: str | Sequence[str]
    opt_pretty: bool


class ListOptions(Options, total=False):
    """`limit` is the size of a page, 1 to 100; `offset` is from the `next_page` of an earlier one."""

    resource: str
    limit: int
    offset: str
