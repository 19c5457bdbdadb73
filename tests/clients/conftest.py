"""One service for all tests of this folder, and a receiver for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving import Receiver, Service


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("clients"), environment={"TIDINGS_RATE_LIMIT": "0"}) as running:
        running.seed()
        yield running


@pytest.fixture
def service(running: Service) -> Iterator[Service]:
    """The service, without webhooks before and after."""
    yield running
    for webhook in running.ask("GET", "/webhooks?workspace=1331"):
        running.ask("DELETE", f"/webhooks/{webhook['gid']}")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver
