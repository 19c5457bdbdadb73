"""Typing what a document says into real shells, in a fresh directory and a clean environment."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final, Self

from tests.clients import install
from tests.docs.blocks import Block, differs
from tests.serving import free_port, wait_until

SECONDS_MAX: Final = 60.0
# The ports that documents name: the service's, and the receiver's.
PORTS: Final = (8080, 9000)
_DONE: Final = "-- done --"


class Terminal:
    """A shell whose output is gathered, with its errors among it."""

    def __init__(self, command: list[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self.printed = ""
        self._thread = threading.Thread(target=self._gather, args=(self._process.stdout,), daemon=True)
        self._thread.start()

    def _gather(self, stream: IO[str]) -> None:
        for line in stream:
            self.printed += line

    def wait_for(self, text: str, what: str) -> None:
        wait_until(
            lambda: text in self.printed or not self._thread.is_alive(),
            timeout=SECONDS_MAX,
            message=self.printed,
        )
        assert text in self.printed, f"{what} ended:\n{self.printed}"

    def type(self, text: str) -> str:
        """Run commands to their end; what they printed."""
        assert self._process.stdin is not None
        self.printed = ""
        self._process.stdin.write(f"{text}echo '{_DONE}'\n")
        self._process.stdin.flush()
        self.wait_for(f"{_DONE}\n", f"a command failed, and the shell with it:\n{text}")
        return self.printed.removesuffix(f"{_DONE}\n")

    def close(self) -> None:
        """End everything that was started here, and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(SECONDS_MAX)
            self._thread.join(SECONDS_MAX)
        finally:
            if self._thread.is_alive():
                os.killpg(self._process.pid, signal.SIGKILL)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Desk:
    """Follows one document: its blocks in order, each in the terminal it belongs to."""

    def __init__(self, folder: Path, *, path: tuple[Path, ...] = ()) -> None:
        self._folder = folder
        # Where another run of these tests is at it, the ports are that one's, though it may not listen yet.
        self._lock = (Path(tempfile.gettempdir()) / "tidings-tests-ports").open("wb")
        ours = _is_locked(self._lock)
        self._ports = tuple(port if ours and _is_free(port) else free_port() for port in PORTS)
        programs = [*path, Path(sys.executable).parent]
        install.install_python("5.4.0")
        self._env = {
            "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "COLUMNS": "100",
            "PYTHONPATH": str(install.python_folder("5.4.0")),
        }
        if self._ports != PORTS:
            service = str(self._ports[0])
            self._env |= {
                "PORT": service,
                "TIDINGS_PORT": service,
                "TIDINGS_URL": f"http://127.0.0.1:{service}",
            }
        self._terminals: dict[str | None, Terminal] = {}
        self._printed = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for terminal in reversed(self._terminals.values()):
            terminal.close()
        self._lock.close()

    def follow(self, block: Block) -> None:
        """Run a block, or compare what it shows with what was printed."""
        match block.language:
            case "sh" if block.name is not None:
                if block.name in self._terminals:
                    self._terminals.pop(block.name).close()
                terminal = self._open(["bash", "-euc", self._here(block.text)])
                self._terminals[block.name] = terminal
                terminal.wait_for("http://", block.text)
            case "sh":
                self._printed = self._shell().type(self._here(block.text))
            case "python":
                script = self._folder / "example.py"
                script.write_text(self._here(block.text))
                self._printed = self._shell().type(f"python {script}\n")
            case "text" | "json":
                self._compare(block)

    def _open(self, command: list[str]) -> Terminal:
        # The documents say where to open a terminal: in the clone, once there is one.
        clone = self._folder / "tidings"
        return Terminal(command, cwd=clone if clone.is_dir() else self._folder, env=self._env)

    def _shell(self) -> Terminal:
        if None not in self._terminals:
            self._terminals[None] = self._open(["bash", "-eu", "-o", "pipefail"])
        return self._terminals[None]

    def _compare(self, block: Block) -> None:
        if block.name is None:
            trouble = differs(block, self._there(self._printed))
            assert trouble is None, f"line {block.line}: {trouble}\n{self._printed}"
            return
        terminal = self._terminals[block.name]

        def shown() -> bool:
            return differs(block, self._there(terminal.printed)) is None

        wait_until(
            shown, message=f"line {block.line}: {block.text}\nis not what it shows:\n{terminal.printed}"
        )

    def _here(self, text: str) -> str:
        """The text with the ports that are free on this machine."""
        if self._ports == PORTS:
            return text
        text = re.sub(r"tidings listen(?! --port)", f"tidings listen --port {PORTS[1]}", text)
        token = 'os.environ["TIDINGS_TOKEN"]'
        where = f'base_url="http://127.0.0.1:{PORTS[0]}/api/1.0"'
        text = text.replace(f"({token})", f"({token}, {where})")
        for port, free in zip(PORTS, self._ports, strict=True):
            text = text.replace(str(port), str(free))
        return text

    def _there(self, printed: str) -> str:
        for port, free in zip(PORTS, self._ports, strict=True):
            printed = printed.replace(str(free), str(port))
        return printed


def _is_locked(file: IO[bytes]) -> bool:
    """Whether we have it for ourselves until it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
