"""Tokens: made, listed and revoked with the `admin` scope."""

from starlette.responses import Response

from tidings.service.tokens import TokenDesk
from tidings.web.calls import Call
from tidings.wire import tokens as wire


class TokenCalls:
    """`/tokens`, from a call to an answer."""

    def __init__(self, desk: TokenDesk) -> None:
        self._desk = desk

    async def create(self, call: Call) -> Response:
        """201 with the record and, this once, the token itself."""
        created = await self._desk.create(wire.parse_create(call.body), caller=call.caller)
        return call.answer({"data": {**wire.render(created.token), "token": created.text}}, status=201)

    async def list_all(self, call: Call) -> Response:
        tokens = await self._desk.list_all(caller=call.caller)
        return call.answer({"data": [call.shaped(wire.render(token)) for token in tokens]})

    async def revoke(self, call: Call) -> Response:
        await self._desk.revoke(call.gid, caller=call.caller)
        return call.answer({"data": {}})
