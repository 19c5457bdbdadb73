"""Requests made from `/openapi.json` by Schemathesis against the real process: never a 5xx, always as described.

A run repeats itself: the seed is fixed. To look further, set `FUZZ_SEED` and `FUZZ_EXAMPLES` (per call and mode).
"""

import os
from collections.abc import Iterator
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import (
    CheckFunction,
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.http.described import operations
from tests.serving import PROJECT, SECTION, TASK, WORKSPACE, Receiver, Service, event, wait_until
from tidings.web.openapi import DOCUMENT

SEED: Final = int(os.environ.get("FUZZ_SEED", "1"))
EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "50"))
CHECKS: Final[list[CheckFunction]] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# Fields that hold gids: of these, every other one is given a gid that exists, so that calls get past the gate.
GIDS: Final = ("gid", "resource", "workspace", "parent", "user")


class World:
    """A service with something in it, and what is in it."""

    def __init__(self, service: Service, receiver: Receiver) -> None:
        self.service = service
        self.receiver = receiver
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {service.token}"
        service.seed()
        self.webhooks = [
            service.create_webhook(PROJECT, receiver.url(f"/{number}"))["gid"] for number in range(20)
        ]
        service.publish(event(TASK))
        wait_until(lambda: service.ask("GET", f"/webhooks/{self.webhooks[0]}/attempts"))

    def resources(self) -> st.SearchStrategy[str]:
        return st.sampled_from([WORKSPACE, PROJECT, SECTION, TASK])

    def named(self, method: str, path: str) -> st.SearchStrategy[str]:
        """What the path of a call may be about. Only half of the webhooks are ever ended."""
        if "/webhooks/" not in path:
            return self.resources()
        return st.sampled_from(self.webhooks[:10] if method == "DELETE" else self.webhooks)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One process for all calls: what one of them leaves behind is met by the next."""
    directory = tmp_path_factory.mktemp("fuzz")
    environment = {"TIDINGS_RATE_LIMIT": "0", "TIDINGS_DELIVERY_TIMEOUT": "1s"}
    with Service(directory, environment=environment) as service, Receiver() as receiver:
        yield World(service, receiver)
        assert '"phrase"' not in service.log()
        assert "Traceback" not in service.log()


def acquaint(value: Any, draw: Any, world: World) -> Any:
    """A copy in which some gids are known ones, and targets lead to the receiver."""
    if isinstance(value, list):
        return [acquaint(entry, draw, world) for entry in value]
    if not isinstance(value, dict):
        return value
    copy = {}
    for key, entry in value.items():
        copy[key] = acquaint(entry, draw, world)
        if key in GIDS and isinstance(entry, str) and draw(st.booleans()):
            copy[key] = draw(world.resources())
        elif key == "parents" and isinstance(entry, list) and draw(st.booleans()):
            copy[key] = [draw(world.resources())]
        elif key == "target" and draw(st.booleans()):
            copy[key] = world.receiver.url(f"/{draw(st.integers(0, 99))}")
    return copy


# What takes nothing cannot be given anything wrong.
CALLS: Final = [
    pytest.param(method, path, mode, id=f"{method} {path} {mode.value}")
    for method, path, operation in operations()
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or operation["security"]
]


@pytest.mark.parametrize(("method", "path", "mode"), CALLS)
def test_a_call(world: World, method: str, path: str, mode: GenerationMode) -> None:
    """What the description allows, and what it does not."""
    description = schemathesis.openapi.from_dict(dict(DOCUMENT))
    operation = description[path][method]

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
    def ask(case: Case[Any], data: st.DataObject) -> None:
        case.body = acquaint(case.body, data.draw, world)
        case.query = acquaint(case.query, data.draw, world)
        if "gid" in case.path_parameters and data.draw(st.booleans()):
            case.path_parameters = {"gid": data.draw(world.named(method, path))}
        response = case.call(base_url=world.service.root_url, session=world.session, timeout=10)
        case.validate_response(response, checks=CHECKS)

    ask()
