"""The description of every call (OpenAPI 3.1), built once from plain data.

parts        what descriptions are made of: references, parameters, bodies, answers
records      the schemas of what goes in and comes out
operations   every call, by path and method
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from tidings import __version__
from tidings.web import answers
from tidings.web.openapi import operations, parts, records

DOCUMENT: Final[dict[str, object]] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Tidings",
        "version": __version__,
        "summary": "Webhooks that speak the Asana Webhooks API, and the calls of those who publish and operate.",
        "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
    },
    "servers": [{"url": "/", "description": "This service."}],
    "tags": [
        {"name": "Webhooks", "description": "Asana's own calls. Metered: 429 with `Retry-After`."},
        {
            "name": "Publishing",
            "description": "What a platform says: events, and the resources they are about.",
        },
        {"name": "Tokens", "description": "Who may call, and for what."},
        {"name": "Service", "description": "The state of the service itself. No token needed."},
    ],
    "paths": operations.PATHS,
    "components": {
        "securitySchemes": {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "A token of this service. An operation names the scopes it needs.",
            }
        },
        "parameters": parts.PARAMETERS,
        "responses": parts.RESPONSES,
        "schemas": records.SCHEMAS,
    },
}


async def describe(request: Request) -> Response:
    """`GET /openapi.json`."""
    return answers.answer(DOCUMENT)
