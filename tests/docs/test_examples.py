"""Every command in README and docs is run, in order, and shows what the document says it shows."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.docs.blocks import Block, blocks_of
from tests.docs.terminal import Desk
from tidings.config import Settings

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = sorted((ROOT / "docs").glob("*.md"))
# Shown, and neither run nor compared: requests as they travel, and other programs' files.
SHOWN_ONLY: Final = frozenset({"http", "ini"})
FOLLOWED: Final = frozenset({"sh", "python", "text", "json"})
CLONE: Final = "<this repository>"


def followed(document: Path) -> list[Block]:
    """The blocks that can be followed; nothing else may stand in a document unnoticed."""
    blocks = blocks_of(document)
    for block in blocks:
        known = block.language in FOLLOWED | SHOWN_ONLY | {"toml"}
        assert known, f"{document.name}:{block.line}: nobody tests {block.language}"
    return [block for block in blocks if block.language in FOLLOWED]


def runs(document: Path) -> bool:
    return any(block.language in ("sh", "python") for block in blocks_of(document))


@pytest.mark.parametrize("document", [*filter(runs, DOCS)], ids=lambda path: path.name)
def test_a_document_can_be_followed(document: Path, tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        for block in followed(document):
            desk.follow(block)


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.name)
def test_settings_files_are_accepted(document: Path, tmp_path: Path) -> None:
    for block in blocks_of(document):
        if block.language == "toml":
            file = tmp_path / "tidings.toml"
            file.write_text(block.text)
            Settings.load({}, file, {})
            assert tomllib.loads(block.text)


def test_the_five_minutes_of_the_readme(tmp_path: Path) -> None:
    """To the letter, from the clone on; only what `make` installs is there already."""
    origin, programs = make_origin(tmp_path), make_git(tmp_path)
    with Desk(tmp_path, path=(programs,)) as desk:
        for block in followed(ROOT / "README.md"):
            if block.text == "make test\n":
                continue  # this is it
            desk.follow(Block(block.language, block.name, block.text.replace(CLONE, str(origin)), block.line))


def test_the_readme_begins_with_the_two_commands() -> None:
    first, second = followed(ROOT / "README.md")[:2]
    assert first.text == f"git clone {CLONE} tidings\ncd tidings\nmake serve\n"
    assert second.text == "make test\n"


def make_origin(folder: Path) -> Path:
    """A repository with what `make serve` reads, as it is in the working tree."""
    origin = folder / "origin"
    origin.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, origin / name)
    git = ["git", "-c", "user.name=Tests", "-c", "user.email=tests@example.com"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "As it is now"]):
        subprocess.run([*git, *command], cwd=origin, check=True)
    return origin


def make_git(folder: Path) -> Path:
    """A `git` whose clones hold an environment already: this one."""
    programs = folder / "programs"
    programs.mkdir()
    real = shutil.which("git")
    here = Path(sys.executable)
    script = programs / "git"
    script.write_text(
        "#!/bin/sh -e\n"
        f'"{real}" "$@"\n'
        "cd tidings && mkdir -p .venv/bin\n"
        f'ln -s "{here}" .venv/bin/python\n'
        f'ln -s "{here.with_name("tidings")}" .venv/bin/tidings\n'
        "pwd > .venv/.here && touch .venv/.run .venv/.dev\n"
    )
    script.chmod(0o755)
    return programs
