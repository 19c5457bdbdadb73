"""Install the official SDKs that the tests drive, each in a folder of its own under build/sdk.

`make test` runs it every time; a folder whose stamp holds the digest of its lock is left alone. The two Python
SDKs contradict each other's dependencies, hence `--target` folders instead of the virtual environment.
Without node the Node SDKs are left out, loudly; where CI is true that is a failure.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SDKS: Final = ROOT / "build" / "sdk"
PYTHON_SDKS: Final = ("5.4.0", "3.2.3")
NODE_SDKS: Final = ("3.0.16", "3.2.0", "1.0.5")
NODE_FILES: Final = ("package.json", "package-lock.json", ".npmrc")
INSTALL_SECONDS: Final = 600


def python_folder(version: str) -> Path:
    """What to put on PYTHONPATH to import this version of the Python SDK."""
    return SDKS / f"python-{version}"


def node_folder() -> Path:
    """Where the Node SDKs are, under the names `asana-<version>`; its node_modules goes on NODE_PATH."""
    return SDKS / "node"


def install_python(version: str) -> None:
    lock = ROOT / "requirements" / f"sdk-python-{version}.lock"
    folder = python_folder(version)
    digest = _digest([lock], sys.version)
    if _done(folder, digest):
        return
    print(f"Installing the official Python SDK {version} …", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _run([*pip, "--target", str(folder), "--no-deps", "--require-hashes", "-r", str(lock)], ROOT)
    _stamp(folder, digest)


def install_node() -> None:
    sources = [Path(__file__).parent / "node" / name for name in NODE_FILES]
    folder = node_folder()
    digest = _digest(sources, "")
    if _done(folder, digest):
        return
    print(f"Installing the official Node SDKs {', '.join(NODE_SDKS)} …", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for source in sources:
        shutil.copy(source, folder)
    _run(["npm", "ci", "--loglevel=error"], folder)
    _stamp(folder, digest)


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_SECONDS)


def _digest(files: list[Path], more: str) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in files) + more.encode()).hexdigest()


def _stamp_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.stamp")


def _done(folder: Path, digest: str) -> bool:
    stamp = _stamp_of(folder)
    return folder.is_dir() and stamp.exists() and stamp.read_text() == digest


def _stamp(folder: Path, digest: str) -> None:
    _stamp_of(folder).write_text(digest)


def main() -> int:
    for version in PYTHON_SDKS:
        install_python(version)
    if shutil.which("node") and shutil.which("npm"):
        install_node()
        return 0
    in_ci = os.environ.get("CI", "").lower() == "true"
    what = "this is CI, where nothing is skipped" if in_ci else "tests of the Node SDKs WILL BE SKIPPED"
    print(f"*** node or npm is not installed: {what}. ***", file=sys.stderr, flush=True)
    return 1 if in_ci else 0


if __name__ == "__main__":
    sys.exit(main())
