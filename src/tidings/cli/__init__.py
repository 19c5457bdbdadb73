"""The `tidings` command. A module for each noun; what a command needs beyond click it imports when it runs."""

from __future__ import annotations

import os
from typing import Any

import click

from tidings import __version__
from tidings.cli.backups import backup, restore
from tidings.cli.events import events
from tidings.cli.listening import listen
from tidings.cli.serving import dispatch, migrate, serve
from tidings.cli.tokens import token
from tidings.cli.webhooks import webhooks
from tidings.errors import SettingsError, TidingsError

USED_WRONGLY = 2
FAILED = 1


class Commands(click.Group):
    """A group that ends with a sentence and the promised status, whatever of ours goes wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        if os.environ.get("NO_COLOR"):
            ctx.color = False
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            click.secho("Error: the settings are wrong, nothing was started.", err=True, fg="red")
            for mistake in error.mistakes:
                click.echo(f"  {mistake}", err=True)
            ctx.exit(USED_WRONGLY)
        except TidingsError as error:
            click.secho(f"Error: {error}", err=True, fg="red")
            ctx.exit(FAILED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Webhooks that never lose an event, speaking the Asana Webhooks API.

    \b
    First steps:
      tidings serve --sandbox          a service to try things on, with a project in it
      tidings listen --port 9000       a receiver to look at
    """


for command in (serve, dispatch, migrate, backup, restore, token, webhooks, events, listen):
    main.add_command(command)
