"""A backup under load, the service killed, the backup restored elsewhere: what was acknowledged before it arrives."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import tidings
from tests.kill import disk
from tests.kill.campaign import SETTINGS
from tests.kill.load import Hook, Load, Publisher
from tests.kill.reconcile import Fate
from tests.serving import PROJECT, TASK, Service, event, wait_until


@pytest.fixture
def places(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Two folders: the machine that is lost, and the one that takes over."""
    folders = tmp_path / "old", tmp_path / "new"
    for folder in folders:
        folder.mkdir()
    yield folders


def names_acknowledged(load: Load) -> set[str]:
    return {name for call in load.calls if call.fate is Fate.ACKNOWLEDGED for name in call.names}


def names_taken(load: Load, hook: Hook) -> set[str]:
    arrivals = list(load.receivers.arrivals)
    return {name for each in arrivals if each.hook == hook.path and each.taken for name in each.names}


def test_what_was_acknowledged_before_a_backup_is_delivered_from_it(places: tuple[Path, Path]) -> None:
    old, new = places
    prompt, down = Hook("/prompt", PROJECT), Hook("/down", PROJECT, down=True)
    first = Service(old, environment=SETTINGS)
    second = Service(new, environment=SETTINGS)
    with Load([prompt, down], seed=1) as load:
        first.start()
        first.seed()
        for hook in (prompt, down):
            first.create_webhook(PROJECT, load.url(hook))
        load.publish([Publisher(f"p{n}", [(TASK, PROJECT)], lambda: [first.base_url], n) for n in range(3)])
        wait_until(lambda: len(names_acknowledged(load)) > 1_000, timeout=60)
        before = names_acknowledged(load)
        ran = tidings("backup", str(new / "backup.db"), "--database", first.database, cwd=old)
        assert ran.returncode == 0, ran.stderr
        wait_until(lambda: len(names_acknowledged(load)) > len(before) + 500, timeout=60)
        for publisher in load.publishers:
            publisher.stopping = True
        first.kill()

        ran = tidings("restore", "backup.db", "--database", second.database, cwd=new)
        assert ran.returncode == 0, ran.stderr
        assert f"put it at {new / 'tidings.db.key'}" in ran.stderr
        shutil.copy(old / "tidings.db.key", new / "tidings.db.key")
        down.down = False
        second.start()
        after = {f"after-{number}" for number in range(100)}
        for name in sorted(after):
            second.publish(event(TASK, "changed", change={"field": name, "action": "changed"}))
        wait_until(
            lambda: all(before | after <= names_taken(load, hook) for hook in (prompt, down)), timeout=60
        )
        second.stop()
        log = [name for _, _, name in disk.log(new / "tidings.db")]
        assert before | after <= set(log)
        # The one that was down got all of it from the restored service: once, and in order.
        came = [
            name
            for each in load.receivers.arrivals
            if each.hook == down.path and each.taken
            for name in each.names
        ]
        assert came == log
        assert not load.receivers.errors
        ids = {(each.hook, each.delivery): each.names for each in load.receivers.arrivals}
        assert all(ids[each.hook, each.delivery] == each.names for each in load.receivers.arrivals)


def test_the_commands_say_what_they_did_and_what_is_missing(tmp_path: Path) -> None:
    database = ("--database", "sqlite:///tidings.db")
    assert tidings("migrate", *database, cwd=tmp_path).returncode == 0
    ran = tidings("backup", "copy.db", *database, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "Backed up tidings.db to copy.db" in ran.stderr
    assert "Keep tidings.db.key too, and apart from it" in ran.stderr
    again = tidings("backup", "copy.db", *database, cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr == "Error: copy.db exists already, and nothing is overwritten; name a new file\n"
    ran = tidings("restore", "copy.db", "--database", "sqlite:///new.db", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "which is not here: put it at new.db.key, mode 0600" in ran.stderr
    assert "have them published again" in ran.stderr
    (tmp_path / "other.db.key").write_text("ab" * 32)
    (tmp_path / "other.db.key").chmod(0o600)
    ran = tidings("restore", "copy.db", "--database", "sqlite:///other.db", cwd=tmp_path)
    assert "the key that is here is another" in ran.stderr
    env = {"TIDINGS_SECRET_KEY": (tmp_path / "tidings.db.key").read_text().strip()}
    ran = tidings("restore", "copy.db", "--database", "sqlite:///third.db", cwd=tmp_path, env=env)
    assert "key" not in ran.stderr
    ran = tidings("backup", "fourth.db", "--database", "sqlite:///third.db", cwd=tmp_path, env=env)
    assert "Keep TIDINGS_SECRET_KEY too" in ran.stderr


def test_a_backup_needs_no_key_and_no_running_service(tmp_path: Path) -> None:
    database = ("--database", "sqlite:///tidings.db")
    tidings("migrate", *database, cwd=tmp_path)
    (tmp_path / "tidings.db.key").unlink()
    assert tidings("backup", "copy.db", *database, cwd=tmp_path).returncode == 0
    assert not (tmp_path / "tidings.db.key").exists()
