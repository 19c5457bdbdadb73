"""The rig of these tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.engine.rig import Rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """An engine with the policy of the contract."""
    made = await Rig.open(tmp_path / "tidings.db")
    yield made
    await made.close()
