"""`tidings serve`, `tidings dispatch` and `tidings migrate`."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidings import __version__
from tidings.cli.options import load_settings, settings_options
from tidings.cli.printing import say

if TYPE_CHECKING:
    from tidings.config import Settings
    from tidings.runtime import Serving


@click.command()
@click.option("--host", metavar="HOST", help="Address to listen on. Default: 127.0.0.1")
@click.option("--port", metavar="PORT", help="Port to listen on. Default: 8080")
@settings_options
@click.option(
    "--migrate", is_flag=True, default=None, help="Bring the database up to date first; SQLite always is."
)
@click.option("--no-dispatch", is_flag=True, help="Answer calls only; another process delivers.")
@click.option("--workers", metavar="N", help="So many processes, on one port and one database. Default: 1")
@click.option(
    "--sandbox", is_flag=True, default=None, help="For trying things out: seeded, local targets open."
)
@click.option(
    "--speed",
    metavar="FACTOR",
    help="In sandbox mode: how many times faster retries, heartbeats, expiry are.",
)
@click.option(
    "--sandbox-anywhere",
    is_flag=True,
    default=None,
    help="Let sandbox mode listen on more than loopback: told twice.",
)
def serve(
    host: str | None,
    port: str | None,
    database: str | None,
    config: Path | None,
    migrate: bool | None,
    no_dispatch: bool,
    workers: str | None,
    sandbox: bool | None,
    speed: str | None,
    sandbox_anywhere: bool | None,
) -> None:
    """Serve the API, and deliver.

    Ends with SIGTERM or Ctrl-C, once what is under way is done. Settings come from flags, TIDINGS_… variables
    and the file named by --config, in this order.

    \b
    Examples:
      tidings serve --sandbox --speed 3600
      tidings serve --workers 4
      TIDINGS_DATABASE=sqlite:////var/lib/tidings/tidings.db tidings serve --port 8080
    """
    flags = {
        "host": host,
        "port": port,
        "database": database,
        "migrate": migrate,
        "dispatch": False if no_dispatch else None,
        "workers": workers,
        "sandbox": sandbox,
        "speed": speed,
        "sandbox_anywhere": sandbox_anywhere,
    }
    settings = load_settings(config, flags)
    from tidings import runtime

    runtime.run(runtime.serve(settings, announce=lambda serving: _announce(serving, settings)))


@click.command()
@settings_options
@click.option(
    "--migrate", is_flag=True, default=None, help="Bring the database up to date first; SQLite always is."
)
def dispatch(database: str | None, config: Path | None, migrate: bool | None) -> None:
    """Deliver only: no API, no port.

    For a database that `tidings serve` answers for, with --no-dispatch or without. Ends with SIGTERM or Ctrl-C,
    once what is under way is done. Settings that belong to the API are read and not used.

    \b
    Example:
      tidings dispatch --database sqlite:////var/lib/tidings/tidings.db
    """
    settings = load_settings(config, {"database": database, "migrate": migrate})
    from tidings import runtime

    def announce() -> None:
        about = {"database": str(settings.database), "version": __version__}
        logging.getLogger("tidings").info("delivering", extra=about)

    runtime.run(runtime.dispatch(settings, announce=announce))


@click.command()
@settings_options
def migrate(database: str | None, config: Path | None) -> None:
    """Make the database, or bring it up to date.

    \b
    Example:
      tidings migrate --database sqlite:////var/lib/tidings/tidings.db
    """
    settings = load_settings(config, {"database": database})
    from tidings import runtime

    runtime.run(runtime.migrate(settings))
    say(f"{settings.database} is up to date.")


def _announce(serving: Serving, settings: Settings) -> None:
    """Say where the service is: one line of the log; in sandbox mode, what to do next."""
    if serving.sandbox_token is None:
        about = {
            "url": serving.url,
            "database": serving.database,
            "workers": settings.workers,
            "version": __version__,
        }
        logging.getLogger("tidings").info("serving", extra=about)
        return
    from tidings.sandbox import PROJECT, TASK, USER, WORKSPACE

    change = {"field": "name", "action": "changed"}
    pace = f" Time runs {settings.speed:g} times faster." if settings.speed != 1 else ""
    say(
        _BANNER.format(
            version=__version__,
            pace=pace,
            api=f"{serving.url}/api/1.0",
            database=serving.database,
            token=serving.sandbox_token,
            tidings=_ourselves(),
            webhook=_body({"resource": PROJECT, "target": "http://127.0.0.1:9000/bugs"}),
            event=_body({"resource": TASK, "action": "changed", "user": USER, "change": change}),
            workspace=WORKSPACE,
            url=serving.url,
        )
    )


# What the README's first minutes say, with this service's own address and token.
_BANNER = """\
Tidings {version}, sandbox mode.{pace}

  API       {api}
  Token     {token}
  Database  {database}

What to do next. In a second terminal, a receiver to look at:

  {tidings} listen --port 9000

In a third, a webhook on the project "Bugs" towards it (403 says that it is there already):

  curl {api}/webhooks \\
    -H 'Authorization: Bearer {token}' \\
    -H 'Content-Type: application/json' \\
    -d '{webhook}'

Then let something happen to a task of that project, and look at the receiver:

  curl {api}/events \\
    -H 'Authorization: Bearer {token}' \\
    -H 'Content-Type: application/json' \\
    -d '{event}'

How it fares:

  TIDINGS_URL={url} TIDINGS_TOKEN={token} \\
    {tidings} webhooks list --workspace {workspace}
"""


def _body(data: object) -> str:
    """A body for the shell; nothing in it needs more than single quotes."""
    return json.dumps({"data": data}, separators=(",", ":"))


def _ourselves() -> str:
    """This command as it can be typed again, here: by its name if the shell finds it, else by its path."""
    typed = Path(sys.argv[0])
    found = shutil.which("tidings")
    if typed.name != "tidings" or (found is not None and Path(found).resolve() == typed.resolve()):
        return "tidings" if found is not None else f"{sys.executable} -m tidings"
    path = os.path.relpath(typed)
    return str(typed.absolute()) if path.startswith("..") else path
