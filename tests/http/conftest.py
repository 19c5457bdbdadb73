"""The HTTP edge in-process: see `edge.py`."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.http.edge import Edge, Opener


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens an edge with settings of its own; all are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_edge(**settings: object) -> Edge:
            return await stack.enter_async_context(Edge(tmp_path / "tidings.db", **settings))

        yield open_edge


@pytest.fixture
async def edge(opened: Opener) -> Edge:
    """An edge with the default settings, seeded."""
    return await opened()
