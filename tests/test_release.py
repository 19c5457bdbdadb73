"""What a stranger gets: the wheel, the locks, the commands of the Makefile and the run of CI."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tidings

ROOT: Final = Path(__file__).parents[1]
SOURCE: Final = ROOT / "src"
LOCKS: Final = sorted((ROOT / "requirements").glob("*.lock"))
COMMAND_SECONDS: Final = 60
PIN: Final = re.compile(
    r"^([\w.-]+)==(\S+)((?: ; [^\\\n]+)?)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE
)


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """A command that must succeed; what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def project() -> dict[str, Any]:
    declared: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return declared


# -- the wheel -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    """Migrations and the marker of its types too."""
    wanted = {
        path.relative_to(SOURCE).as_posix()
        for path in (SOURCE / "tidings").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"tidings/py.typed", "tidings/store/sqlite/migrations/0001_log.sql"} <= wanted
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if not name.startswith("tidings-")}
    assert held == wanted


def test_the_wheel_says_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        metadata = Parser().parsestr(
            opened.read(f"tidings-{tidings.__version__}.dist-info/METADATA").decode()
        )
        licence = opened.read(f"tidings-{tidings.__version__}.dist-info/licenses/LICENSE")
    declared = project()["project"]
    needed = {str(Requirement(line)) for line in metadata.get_all("Requires-Dist", [])}
    assert needed == {str(Requirement(line)) for line in declared["dependencies"]}
    assert metadata["Requires-Python"] == declared["requires-python"]
    assert licence == (ROOT / "LICENSE").read_bytes()


def test_the_installed_wheel_gives_a_working_command(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, beside the dependencies of this one but not the source tree."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    installed = run(
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install"),
        *("--no-deps", "--no-index", "--quiet", wheel),
        cwd=tmp_path,
    )
    assert installed == ""
    # Nothing that is installed in place is found through PYTHONPATH: only the wheel's own files are.
    alone = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": sysconfig.get_path("purelib")}
    place = run(python, "-c", "import tidings; print(tidings.__file__)", cwd=tmp_path, env=alone)
    assert place.startswith(str(environment))
    command = environment / "bin" / "tidings"
    assert run(command, "--version", cwd=tmp_path, env=alone) == f"tidings {tidings.__version__}\n"
    run(command, "migrate", cwd=tmp_path, env=alone)
    assert run(command, "token", "create", "--user", "1", cwd=tmp_path, env=alone).startswith("tdg_")
    assert (tmp_path / "tidings.db").is_file()


# -- what is declared and locked -------------------------------------------------------------------


def imported() -> Iterator[tuple[str, Path]]:
    """The top-level packages that the source imports, wherever in a module."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((name.name.split(".")[0], path) for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                yield node.module.split(".")[0], path


def test_what_is_imported_is_declared() -> None:
    """A dependency of a dependency may go away; what we import ourselves we also ask for."""
    declared = {canonicalize_name(Requirement(line).name) for line in project()["project"]["dependencies"]}
    known = {*sys.stdlib_module_names, "tidings"}
    undeclared = {
        name: path.name
        for name, path in imported()
        if name not in known and canonicalize_name(name) not in declared
    }
    assert undeclared == {}


def pins(lock: Path) -> dict[str, str]:
    """Each package of a lock and its version; everything else in it must be a comment."""
    text = lock.read_text("utf-8")
    found: dict[str, str] = {canonicalize_name(name): version for name, version, _, _ in PIN.findall(text)}
    rest = [line for line in PIN.sub("", text).splitlines() if line and not line.startswith("#")]
    assert found and rest == [], lock.name
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_holds_versions_and_digests_alone(lock: Path) -> None:
    pins(lock)
    assert "://" not in lock.read_text("utf-8")


@pytest.mark.parametrize("group", ["run", "dev", "build"])
def test_a_lock_answers_what_is_asked_for(group: str) -> None:
    declared = project()
    asked = {
        "run": declared["project"]["dependencies"],
        "dev": [*declared["project"]["dependencies"], *declared["dependency-groups"]["dev"]],
        "build": declared["build-system"]["requires"],
    }[group]
    locked = pins(ROOT / "requirements" / f"{group}.lock")
    for requirement in map(Requirement, asked):
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is locked to {version}"


def test_the_locks_agree() -> None:
    """What serves is what is tested."""
    dev = pins(ROOT / "requirements" / "dev.lock")
    for name in ("run", "build"):
        assert pins(ROOT / "requirements" / f"{name}.lock").items() <= dev.items()


# -- make and CI -----------------------------------------------------------------------------------


def test_make_alone_lists_what_it_can_do() -> None:
    listed = dict(re.findall(r"^  make (\w+) +(\S.*)$", run("make", cwd=ROOT), re.MULTILINE))
    assert {"help", "serve", "test", "check", "fix", "bench"} <= listed.keys()


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of programs that only say how they were called."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("make", "git", "curl", "node", "npm"):
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $* CI=$CI HOME=$HOME"\n')
        (folder / name).chmod(0o755)
    (folder / "python3").symlink_to(sys.executable)
    return folder


def test_ci_checks_then_tests_whatever_the_environment_lacks(programs: Path, tmp_path: Path) -> None:
    """From anywhere, without HOME; the tests come last, so that their summary does."""
    bare = {"PATH": f"{programs}:/usr/bin:/bin"}
    lines = run(ROOT / ".ci" / "run", cwd=tmp_path, env=bare).splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["make", "check", "PYTHON=python3"],
        ["make", "test", "PYTHON=python3"],
    ]
    assert all("CI=true" in line and not line.endswith("HOME=") for line in lines)


def test_ci_fails_when_a_check_does(programs: Path, tmp_path: Path) -> None:
    (programs / "make").write_text('#!/bin/sh\necho "make $*"\ntest "$1" != check\n')
    failed = subprocess.run(
        [ROOT / ".ci" / "run"],
        cwd=tmp_path,
        env={"PATH": f"{programs}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert failed.returncode != 0
    assert "make test" not in failed.stdout
