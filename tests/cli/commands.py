"""Running the real `tidings` command, as a shell would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from tests.serving import wait_until

TIDINGS: Final = str(Path(sys.executable).with_name("tidings"))
SECONDS_MAX: Final = 30.0


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """A clean environment: no setting of the machine's own leaks into a test."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **(more or {})}


def tidings(
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [TIDINGS, *arguments],
        cwd=cwd,
        env=environment(env),
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


class Running:
    """A command that runs until it is told to end; what it prints is gathered line by line."""

    def __init__(self, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self.out: list[str] = []
        self.err: list[str] = []
        self.process = subprocess.Popen(
            [TIDINGS, *arguments],
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._threads = [
            threading.Thread(target=self._gather, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _gather(stream: object, lines: list[str]) -> None:
        for line in stream:  # type: ignore[attr-defined]  # Popen's own type says `IO[Any] | None`
            lines.append(line.rstrip("\n"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._join()

    def said(self, text: str, *, lines: Sequence[str] | None = None) -> str:
        """Wait until a line of stderr (or of `lines`) holds this text; the line."""
        looked = self.err if lines is None else lines

        def found() -> str | None:
            return next((line for line in list(looked) if text in line), None)

        wait_until(
            lambda: found() is not None or self.process.poll() is not None,
            timeout=SECONDS_MAX,
            message=f"never said {text!r}: {self.out} {self.err}",
        )
        line = found()
        assert line is not None, f"ended without saying {text!r}: {self.out} {self.err}"
        return line

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal; the status it ends with."""
        self.process.send_signal(number)
        status = self.process.wait(SECONDS_MAX)
        self._join()
        return status

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
