"""Running the drivers: each official SDK in a process of its own, unchanged but for its base URL."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.clients import install
from tests.serving import PROJECT, WORKSPACE, Service

HERE: Final = Path(__file__).parent
PYTHON: Final = tuple(f"python-{version}" for version in install.PYTHON_SDKS)
NODE: Final = tuple(f"node-{version}" for version in install.NODE_SDKS)
DRIVER_SECONDS: Final = 90


def need_node() -> str:
    """The node program; skips the test where there is none, except in CI."""
    node = shutil.which("node")
    if node and shutil.which("npm"):
        return node
    message = "node and npm are not installed: the Node SDKs are NOT tested"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(message)
    pytest.skip(message)


def drive(sdk: str, phase: str, service: Service, **wanted: Any) -> Any:
    """Let a driver do its part against the service; what it saw."""
    language, _, version = sdk.partition("-")
    told = {
        "phase": phase,
        "version": version,
        "base_url": service.base_url,
        "root_url": service.root_url,
        "token": service.token,
        "workspace": WORKSPACE,
        "project": PROJECT,
        **wanted,
    }
    if language == "node":
        return run_node(f"sdk_{version[0]}.js", told)
    install.install_python(version)
    environment = {
        "PYTHONPATH": str(install.python_folder(version)),
        # What oauthlib wants before it speaks to a service without TLS.
        "OAUTHLIB_INSECURE_TRANSPORT": "1",
    }
    return _run([sys.executable, str(HERE / "python" / f"sdk_{version[0]}.py")], told, environment)


def run_node(script: str, told: Any) -> Any:
    """Run a script with the Node packages; what it prints."""
    node = need_node()
    install.install_node()
    modules = str(install.node_folder() / "node_modules")
    return _run([node, str(HERE / "node" / script)], told, {"NODE_PATH": modules})


def _run(command: list[str], told: Any, environment: dict[str, str]) -> Any:
    done = subprocess.run(
        [*command, json.dumps(told)],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment},
        capture_output=True,
        text=True,
        timeout=DRIVER_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def node_receiver() -> Iterator[tuple[str, Iterator[Any]]]:
    """Asana's kind of receiver: its URL, and what it says about each request, as it comes."""
    node = need_node()
    with subprocess.Popen(
        [node, str(HERE / "node" / "receiver.js")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = (json.loads(line) for line in process.stdout)
        try:
            yield f"http://127.0.0.1:{next(said)['port']}/receive", said
        finally:
            process.kill()
