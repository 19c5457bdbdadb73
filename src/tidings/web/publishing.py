"""Events and resources: the platform's side of the API."""

from starlette.responses import Response

from tidings.service.publishing import Publishing
from tidings.web.calls import Call
from tidings.wire import resources as wire


class PublishingCalls:
    """`/events` and `/resources`, from a call to an answer."""

    def __init__(self, publishing: Publishing) -> None:
        self._publishing = publishing

    async def publish(self, call: Call) -> Response:
        """201 once every event of the call is on disk."""
        published = await self._publishing.publish(
            call.caller, call.body, raw=call.raw, key=call.request.headers.get("idempotency-key")
        )
        return call.answer(
            {"data": {"accepted": published.accepted, "last": str(published.last)}}, status=201
        )

    async def put(self, call: Call) -> Response:
        resource = await self._publishing.put(call.caller, call.gid, call.body)
        return call.answer({"data": call.shaped(wire.render(resource))})

    async def put_many(self, call: Call) -> Response:
        resources = await self._publishing.put_many(call.caller, call.body)
        return call.answer({"data": [call.shaped(wire.render(resource)) for resource in resources]})

    async def get(self, call: Call) -> Response:
        resource = await self._publishing.get(call.caller, call.gid)
        return call.answer({"data": call.shaped(wire.render(resource))})

    async def delete(self, call: Call) -> Response:
        await self._publishing.delete(call.caller, call.gid)
        return call.answer({"data": {}})
