"""A service as users run it, and receivers as they write them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.serving import Receiver, Service

Start = Callable[..., Service]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a seeded service with these settings; a second call starts another on the same database."""
    with ExitStack() as stack:

        def make(*arguments: str, **settings: str) -> Service:
            service = stack.enter_context(Service(tmp_path, environment=settings, arguments=arguments))
            service.seed()
            return service

        yield make
