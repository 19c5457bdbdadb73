"""Holds answers against the service's own description: every answer of every test in-process passes here."""

import re
from functools import lru_cache
from typing import Any, Final

import httpx
import jsonschema_rs

from tidings.web.openapi import DOCUMENT

METHODS: Final = ("get", "put", "post", "delete")
_PATHS: Final[dict[str, Any]] = DOCUMENT["paths"]  # type: ignore[assignment]  # plain data
_ERRORS: Final = {"$ref": "#/components/schemas/Errors"}


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    """Every described call: method, path, operation."""
    return [
        (method.upper(), path, item[method])
        for path, item in _PATHS.items()
        for method in METHODS
        if method in item
    ]


def resolve(reference: str) -> Any:
    """What a reference within the document leads to."""
    found: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


@lru_cache
def validator(method: str, path: str, status: int) -> Any:
    """The validator for an answer of a call; the status must be described."""
    answers = _PATHS[path][method.lower()]["responses"]
    assert str(status) in answers, f"{method} {path} may answer {status}: the description does not say so"
    answer = answers[str(status)]
    if "$ref" in answer:
        answer = resolve(answer["$ref"])
    return _compiled(answer["content"]["application/json"]["schema"])


@lru_cache
def errors() -> Any:
    return _compiled(_ERRORS)


def _compiled(schema: dict[str, Any]) -> Any:
    return jsonschema_rs.Draft202012Validator(
        {**schema, "components": DOCUMENT["components"]}, validate_formats=True
    )


def find(method: str, path: str) -> str | None:
    """The described path that a request's path matches, for this method."""
    for template, item in _PATHS.items():
        if method.lower() in item and re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path):
            return str(template)
    return None


def check(response: httpx.Response) -> None:
    """Fail unless the answer is one that the description gives for its request."""
    method = response.request.method
    if method == "HEAD" or response.headers.get("Content-Type", "").startswith("text/plain"):
        return  # no body; or the answer to a preflight, which is not the API's
    template = find(method, response.request.url.path)
    wanted = errors() if template is None else validator(method, template, response.status_code)
    wanted.validate(response.json())
    if response.status_code in (429, 503) and template != "/readyz":
        assert response.headers["Retry-After"].isdigit()
