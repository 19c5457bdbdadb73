"""The locks of the SDKs: exact versions and digests, and no word of where they were fetched."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.clients import install

NODE_LOCK = install.ROOT / "tests" / "clients" / "node" / "package-lock.json"


def packages() -> dict[str, dict[str, Any]]:
    locked = json.loads(NODE_LOCK.read_text())["packages"]
    assert isinstance(locked, dict)
    return locked


def test_every_node_package_has_a_digest_and_no_address() -> None:
    installed = {name: package for name, package in packages().items() if name}
    assert installed
    for name, package in installed.items():
        assert package["integrity"].startswith("sha512-") or package["integrity"].startswith("sha1-"), name
        assert "resolved" not in package, name


@pytest.mark.parametrize("version", install.NODE_SDKS)
def test_the_node_sdks_are_the_official_ones(version: str) -> None:
    package = packages()[f"node_modules/asana-{version}"]
    assert (package["name"], package["version"]) == ("asana", version)


@pytest.mark.parametrize("version", install.PYTHON_SDKS)
def test_every_python_package_has_digests_and_no_address(version: str) -> None:
    lock = (install.ROOT / "requirements" / f"sdk-python-{version}.lock").read_text()
    assert f"asana=={version} \\\n" in lock
    assert "://" not in lock
    pins = re.split(r"^(?=\w)", re.sub(r"^\s*#.*\n", "", lock, flags=re.M), flags=re.M)[1:]
    assert all(" --hash=sha256:" in pin for pin in pins)
