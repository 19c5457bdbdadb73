"""The five calls, and the log of attempts."""

from typing import Final
from urllib.parse import urlencode

from starlette.responses import Response

from tidings.delivery import Policy
from tidings.limits import PAGE_SIZE_MAX
from tidings.service.webhooks import ListQuery, WebhookDesk
from tidings.web.calls import Call
from tidings.wire import values
from tidings.wire import webhooks as wire

BASE_PATH: Final = "/api/1.0"
# The largest integer every store of ours can count to.
SEQUENCE_MAX: Final = (1 << 63) - 1


class WebhookCalls:
    """`/webhooks`, from a call to an answer."""

    def __init__(self, desk: WebhookDesk, *, policy: Policy, public_url: str | None) -> None:
        self._desk = desk
        self._policy = policy
        self._public_url = public_url

    async def create(self, call: Call) -> Response:
        """201 with the full record, and the secret beside it (contract §0.1, §0.2)."""
        established = await self._desk.establish(call.caller, wire.parse_create(call.body))
        record = wire.render(established.webhook, self._policy)
        return call.answer(
            {"data": call.shaped(record), "X-Hook-Secret": established.secret},
            status=201,
            headers={"Location": f"{BASE_PATH}/webhooks/{established.webhook.gid}"},
        )

    async def get(self, call: Call) -> Response:
        webhook = await self._desk.get(call.caller, call.gid)
        return call.answer({"data": call.shaped(wire.render(webhook, self._policy))})

    async def list_all(self, call: Call) -> Response:
        """`next_page` only where a limit was asked for, null on the last page (contract §0.12)."""
        query = call.query
        page = await self._desk.list_page(
            call.caller,
            ListQuery(query.get("workspace"), query.get("resource"), query.get("limit"), query.get("offset")),
        )
        content: dict[str, object] = {
            "data": [
                call.shaped(wire.render(webhook, self._policy), default=wire.render_compact(webhook))
                for webhook in page.webhooks
            ]
        }
        if page.paged:
            content["next_page"] = self._next_page(call, "/webhooks", offset=page.offset, limit=page.limit)
        return call.answer(content)

    def _next_page(self, call: Call, path: str, *, offset: str | None, limit: int) -> dict[str, str] | None:
        """Where the list goes on: the path below the API's base, and the whole uri with our own host."""
        if offset is None:
            return None
        path = f"{path}?{urlencode({**call.query, 'limit': str(limit), 'offset': offset})}"
        base = self._public_url or str(call.request.base_url).rstrip("/")
        return {"offset": offset, "path": path, "uri": f"{base}{BASE_PATH}{path}"}

    async def update(self, call: Call) -> Response:
        filters = wire.parse_update(call.body)
        webhook = await self._desk.replace_filters(call.caller, call.gid, filters)
        return call.answer({"data": call.shaped(wire.render(webhook, self._policy))})

    async def delete(self, call: Call) -> Response:
        await self._desk.remove(call.caller, call.gid)
        return call.answer({"data": {}})

    async def list_attempts(self, call: Call) -> Response:
        """Newest first, always in pages; `offset` is the gid of the last attempt seen."""
        limit = values.whole_number(
            call.query.get("limit", str(PAGE_SIZE_MAX)), "limit", low=1, high=PAGE_SIZE_MAX
        )
        offset = call.query.get("offset")
        before = None if offset is None else values.whole_number(offset, "offset", low=1, high=SEQUENCE_MAX)
        found = await self._desk.list_attempts(call.caller, call.gid, before=before, limit=limit + 1)
        page = found[:limit]
        following = str(page[-1].sequence) if len(found) > limit else None
        return call.answer(
            {
                "data": [call.shaped(wire.render_attempt(entry.attempt, entry.sequence)) for entry in page],
                "next_page": self._next_page(
                    call, f"/webhooks/{call.gid}/attempts", offset=following, limit=limit
                ),
            }
        )
