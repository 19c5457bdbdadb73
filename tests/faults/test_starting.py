"""A start that cannot be: one line that says why, status 1, and a second start that works once the cause is gone."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.commands import Running, tidings
from tests.faults.disks import Disk

KEY_CHARS = 64


def serve(folder: Path, *, database: str = "tidings.db") -> subprocess.CompletedProcess[str]:
    return tidings("serve", "--port", "0", "--database", f"sqlite:///{folder / database}", cwd=folder)


def refused(ran: subprocess.CompletedProcess[str], *words: str) -> None:
    """It ended with status 1 and one line on why, in which these words are."""
    assert (ran.returncode, ran.stdout) == (1, ""), ran
    # What it had begun to do may stand above, in lines of the log.
    *_, last = [line for line in ran.stderr.splitlines() if not line.startswith('{"at":')]
    assert last.startswith("Error: ") and "Traceback" not in ran.stderr, ran.stderr
    for word in words:
        assert word in last


def serves(folder: Path, *, database: str = "tidings.db") -> None:
    """It can be started, and ends well."""
    url = f"sqlite:///{folder / database}"
    with Running("serve", "--port", "0", "--database", url, cwd=folder) as running:
        running.said("serving")
        assert running.end() == 0


# -- the disk --------------------------------------------------------------------------------------


def test_a_new_database_on_a_full_disk(any_disk: Disk) -> None:
    """Not even a key is left that was never written in full."""
    with any_disk.without_room():
        refused(serve(any_disk.folder), "tidings.db.key cannot be made")
    assert list(any_disk.folder.iterdir()) == []
    serves(any_disk.folder)


def test_a_database_on_a_full_disk(any_disk: Disk) -> None:
    serves(any_disk.folder)
    with any_disk.without_room():
        refused(serve(any_disk.folder), "tidings.db")
    serves(any_disk.folder)


def test_a_read_only_disk(any_disk: Disk) -> None:
    serves(any_disk.folder)
    with any_disk.read_only():
        refused(serve(any_disk.folder))
        refused(serve(any_disk.folder, database="new.db"), "new.db.key cannot be made")
    serves(any_disk.folder)


# -- the key ---------------------------------------------------------------------------------------


def test_the_key_is_made_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    serves(tmp_path)
    key = tmp_path / "tidings.db.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(key.read_text())) == KEY_CHARS // 2
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "tidings.db",
        "tidings.db-turns",
        "tidings.db-turns-bell",
        "tidings.db.key",
    ]


def test_a_database_that_lost_its_key_is_not_given_another(tmp_path: Path) -> None:
    serves(tmp_path)
    key = tmp_path / "tidings.db.key"
    kept = key.read_text()
    key.unlink()
    refused(serve(tmp_path), "the key its secrets are sealed with is not", str(key))
    assert not key.exists()
    key.write_text(kept)
    key.chmod(0o600)
    serves(tmp_path)


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "x" * KEY_CHARS, "\xff"])
def test_a_key_that_is_none(text: str, tmp_path: Path) -> None:
    key = tmp_path / "tidings.db.key"
    key.write_text(text)
    key.chmod(0o600)
    refused(serve(tmp_path), "tidings.db.key")


def test_another_key(tmp_path: Path) -> None:
    serves(tmp_path)
    (tmp_path / "tidings.db.key").write_text("ab" * 32)
    refused(serve(tmp_path), "sealed with key")


def test_a_key_for_everybody(tmp_path: Path) -> None:
    serves(tmp_path)
    (tmp_path / "tidings.db.key").chmod(0o644)
    refused(serve(tmp_path), "may be read by others; run: chmod 600")


# -- the database ----------------------------------------------------------------------------------


def test_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "tidings.db.key").write_text("ab" * 32)
    (tmp_path / "tidings.db.key").chmod(0o600)
    (tmp_path / "tidings.db").write_text("Dear diary,\n" * 100)
    refused(serve(tmp_path), "not a database")
    assert (tmp_path / "tidings.db").read_text().startswith("Dear diary")


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "tidings.db").mkdir()
    ran = serve(tmp_path)
    assert ran.returncode in (1, 2) and "Traceback" not in ran.stderr and "Error: " in ran.stderr


def test_what_goes_wrong_once_tasks_run_is_told_in_a_line_too(tmp_path: Path) -> None:
    """The dispatcher cannot register: something else lies where its lock file belongs."""
    serves(tmp_path)
    for number in range(1, 5):
        (tmp_path / f"tidings.db-holder-{number}").mkdir()
    refused(serve(tmp_path), "tidings.db-holder-", "cannot be opened")


def test_a_database_of_a_newer_version(tmp_path: Path) -> None:
    serves(tmp_path)
    with closing(sqlite3.connect(tmp_path / "tidings.db")) as connection:
        connection.execute("PRAGMA user_version = 999")
    refused(serve(tmp_path), "written by a newer Tidings (schema 999; this version knows", "Upgrade")
