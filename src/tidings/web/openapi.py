"""The description of every call (OpenAPI 3.1)."""

from starlette.requests import Request
from starlette.responses import Response

from tidings import __version__
from tidings.web import answers


async def describe(request: Request) -> Response:
    return answers.answer(
        {"openapi": "3.1.0", "info": {"title": "Tidings", "version": __version__}, "paths": {}}
    )
