"""A small disk, and a receiver."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disks import Disk, LimitedFolder, small_disk
from tests.serving import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """The real one where this machine lets us mount it, else its stand-in."""
    with small_disk(tmp_path / "disk") as made:
        yield made


@pytest.fixture(params=["mounted", "limited"])
def any_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """Each of both, so that the stand-in is not run for the first time where it is needed."""
    if request.param == "mounted":
        with small_disk(tmp_path / "disk") as made:
            yield made
    else:
        folder = tmp_path / "limited"
        folder.mkdir()
        yield LimitedFolder(folder)
