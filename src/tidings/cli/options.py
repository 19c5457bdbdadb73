"""Options that several commands share, and what they come to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from tidings.limits import TOKEN_CHARS_MAX

if TYPE_CHECKING:
    from tidings.client import Session
    from tidings.config import Settings

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_URL: Final = "http://127.0.0.1:8080"
BASE_PATH: Final = "/api/1.0"

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def settings_options(command: F) -> F:
    """The options of every command that opens the database."""
    command = click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="TOML file of settings; variables and flags beat it.",
    )(command)
    return click.option(
        "--database",
        metavar="URL",
        help="sqlite:///relative.db, sqlite:////absolute.db (or TIDINGS_DATABASE).",
    )(command)


def load_settings(config: Path | None, flags: Mapping[str, object]) -> Settings:
    """The settings of this process. Raises `SettingsError` with all mistakes."""
    from tidings.config import Settings

    return Settings.load(os.environ, config, flags)


def connection_options(command: F) -> F:
    """The options of every command that speaks HTTP to a service."""
    command = click.option(
        "--token",
        metavar="TOKEN",
        envvar="TIDINGS_TOKEN",
        help="Better in TIDINGS_TOKEN: command lines show in process lists. - reads it from standard input.",
    )(command)
    return click.option(
        "--url",
        metavar="URL",
        envvar="TIDINGS_URL",
        default=DEFAULT_URL,
        help=f"Where the service is (or TIDINGS_URL). Default: {DEFAULT_URL}",
    )(command)


@contextmanager
def connected(url: str, token: str | None) -> Iterator[Session]:
    """A session with the service; what goes wrong in it ends the command with a sentence and status 1."""
    from tidings.client import ApiError, Session

    secret = _token(token)
    try:
        session = Session(secret, base_url=_base_url(url))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with session:
        try:
            yield session
        except ApiError as error:
            raise Failed(_explained(error, url)) from None


class Failed(click.ClickException):
    """The command was used rightly, and what it does failed: status 1."""

    exit_code = 1


def _base_url(url: str) -> str:
    bare = url.strip().rstrip("/")
    if "://" not in bare:
        raise click.UsageError(f"--url {url!r}: write it with its scheme, such as {DEFAULT_URL}")
    return bare if bare.endswith(BASE_PATH) else bare + BASE_PATH


def _token(token: str | None) -> str:
    if token == "-":
        token = sys.stdin.readline(TOKEN_CHARS_MAX + 2).strip()
    if not token:
        raise click.UsageError("no token: set TIDINGS_TOKEN, or pipe it to --token -")
    return token


def _explained(error: Any, url: str) -> str:
    from tidings.cli.printing import harmless

    if error.status is None:
        return f"{url}: {harmless(error.message)}. Is the service running, and is --url right?"
    code = f" ({harmless(error.code)})" if error.code else ""
    lines = [f"{harmless(error.message)}{code}"]
    if error.status == 401:
        lines.append("Is the token right, and not revoked? `tidings token create` makes one.")
    if error.help:
        lines.append(harmless(error.help))
    return "\n".join(lines)
