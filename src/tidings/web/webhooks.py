"""The five calls, and the log of attempts."""

from urllib.parse import urlencode

from starlette.responses import Response

from tidings.delivery import Policy
from tidings.limits import PAGE_SIZE_MAX
from tidings.service.webhooks import ListQuery, Page, WebhookDesk
from tidings.web.calls import Call
from tidings.wire import values
from tidings.wire import webhooks as wire

BASE_PATH = "/api/1.0"


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
            content["next_page"] = None if page.offset is None else self._next_page(call, page, page.offset)
        return call.answer(content)

    def _next_page(self, call: Call, page: Page, offset: str) -> dict[str, str]:
        query = {**call.query, "limit": str(page.limit), "offset": offset}
        path = f"/webhooks?{urlencode(query)}"
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
        """Newest first; `offset` is the gid of the last attempt seen."""
        limit = values.whole_number(call.query.get("limit", "100"), "limit", low=1, high=PAGE_SIZE_MAX)
        offset = call.query.get("offset")
        before = None if offset is None else values.whole_number(offset, "offset", low=1, high=(1 << 63) - 1)
        attempts = await self._desk.list_attempts(call.caller, call.gid, before=before, limit=limit)
        records = [wire.render_attempt(entry.attempt, entry.sequence) for entry in attempts]
        content: dict[str, object] = {"data": [call.shaped(record) for record in records]}
        if "limit" in call.query or "offset" in call.query:
            full = len(attempts) == limit
            content["next_page"] = {"offset": str(attempts[-1].sequence)} if full else None
        return call.answer(content)
