"""`/openapi.json`: it is valid, it describes every route and no other, and what it says of bounds is so."""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR
from starlette.routing import Route

from tests.http.described import METHODS, operations, resolve
from tests.http.edge import ROOT, Edge
from tidings import limits
from tidings.model import Scope
from tidings.web.openapi import DOCUMENT

COMPONENTS: Any = DOCUMENT["components"]


def references(part: Any) -> Iterator[str]:
    """Every reference below a part of the document."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for below in part.values():
            yield from references(below)
    elif isinstance(part, list):
        for below in part:
            yield from references(below)


async def test_it_is_served_without_a_token(edge: Edge) -> None:
    """What is served is the document, and it survives JSON."""
    response = await edge.api("GET", f"{ROOT}/openapi.json", token=None)
    assert response.json() == DOCUMENT


def test_it_is_an_openapi_document() -> None:
    """By the schema of the specification; the schemas in it by that of JSON Schema."""
    OPENAPI_31_VALIDATOR.validate(DOCUMENT)
    for described in COMPONENTS["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **described})


def test_every_reference_leads_somewhere_and_every_component_is_used() -> None:
    """No dead ends, no dead weight."""
    found = set(references(DOCUMENT))
    for reference in found:
        assert isinstance(resolve(reference), dict)
    made = {
        f"#/components/{kind}/{name}"
        for kind in ("schemas", "parameters", "responses")
        for name in COMPONENTS[kind]
    }
    assert found == made


async def test_every_route_is_described_and_every_description_is_a_route(edge: Edge) -> None:
    """Method by method."""
    routes = {
        (method, route.path)
        for route in edge.service.application.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method.lower() in METHODS
    }
    assert routes == {(method, path) for method, path, _ in operations()}


def test_every_operation_has_a_name_of_its_own() -> None:
    """Generators name methods after it."""
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("method", "path", "operation"), [pytest.param(*each, id=f"{each[0]} {each[1]}") for each in operations()]
)
async def test_the_scope_a_call_needs(edge: Edge, method: str, path: str, operation: dict[str, Any]) -> None:
    """A token with the described scopes alone gets past the gate; one with all others does not."""
    security = operation["security"]
    if not security:
        assert (await edge.api(method, ROOT + path, token=None)).status_code == 200
        return
    (named,) = security
    wanted = set(named["token"])
    assert wanted <= {scope.value for scope in Scope}
    path = ROOT + path.replace("{gid}", "9999")
    # Enough of a body to be judged by its scope, and too little to change anything.
    data = {
        "resource": "9999",
        "target": "https://receiver.example",
        "filters": [],
        "action": "added",
        "resource_type": "task",
        "gid": "9999",
        "user": "1",
        "scopes": ["admin"],
    }
    body: dict[str, Any] = {"json": {"data": data}} if method in ("POST", "PUT") else {}
    bearing = await edge.new_token(scopes=sorted(wanted))
    lacking = await edge.new_token(scopes=sorted({scope.value for scope in Scope} - wanted))
    assert (await edge.api(method, path, token=bearing, **body)).json().get("errors", [{}])[0].get(
        "code"
    ) != "missing_scope"
    refused = await edge.api(method, path, token=lacking, **body)
    assert refused.status_code == 403
    assert refused.json()["errors"][0]["code"] == "missing_scope"


def test_bounds_are_those_of_the_service() -> None:
    """Spot checks that limits stand where they belong."""
    schemas, parameters = COMPONENTS["schemas"], COMPONENTS["parameters"]
    request = schemas["WebhookRequest"]["properties"]
    assert request["target"]["maxLength"] == limits.TARGET_CHARS_MAX
    assert request["filters"]["maxItems"] == limits.FILTERS_MAX
    assert request["resource"]["maxLength"] == limits.GID_CHARS_MAX
    assert schemas["EventsRequest"]["anyOf"][1]["maxItems"] == limits.EVENTS_PER_PUBLISH_MAX
    assert schemas["ResourcesRequest"]["anyOf"][1]["maxItems"] == limits.RESOURCES_PER_PUT_MAX
    assert parameters["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": limits.PAGE_SIZE_MAX}
    assert parameters["opt_fields"]["schema"]["maxItems"] == limits.OPT_FIELDS_MAX
    assert parameters["idempotency_key"]["schema"]["maxLength"] == limits.IDEMPOTENCY_KEY_CHARS_MAX
