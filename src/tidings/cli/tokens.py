"""`tidings token`: make, list and revoke tokens, in the database itself."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tidings.cli.options import as_json, load_settings, settings_options
from tidings.cli.printing import print_json, print_table, say
from tidings.model import Scope

if TYPE_CHECKING:
    from tidings.service.tokens import TokenDesk

T = TypeVar("T")


@click.group()
def token() -> None:
    """Make, list and revoke the tokens that callers use.

    \b
    Example:
      export TIDINGS_TOKEN=$(tidings token create --user 1)
    """


@token.command()
@click.option("--user", required=True, metavar="GID", help="Whose token it is.")
@click.option("--user-name", metavar="NAME", help="How that user is called.")
@click.option(
    "--app", metavar="GID", help="The app it is for; webhooks belong to user and app. Default: default"
)
@click.option("--workspace", "workspaces", multiple=True, metavar="GID", help="May be repeated. Default: all")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="SCOPE",
    help=f"May be repeated. Default: all but admin. One of {', '.join(Scope)}",
)
@as_json
@settings_options
def create(
    user: str,
    user_name: str | None,
    app: str | None,
    workspaces: Sequence[str],
    scopes: Sequence[str],
    as_json: bool,
    database: str | None,
    config: Path | None,
) -> None:
    """Make a token; prints it alone, and this once.

    \b
    Examples:
      export TIDINGS_TOKEN=$(tidings token create --user 1)
      tidings token create --user 7 --workspace 1331 --scope events:write --scope resources:write
    """
    from tidings.wire import tokens as wire
    from tidings.wire.bodies import Body

    data = {
        "user": user,
        "user_name": user_name,
        "app": app,
        "workspaces": list(workspaces) or None,
        "scopes": list(scopes) or None,
    }
    request = _used_rightly(lambda: wire.parse_create(Body(data)))
    created = _at_the_desk(database, config, lambda desk: desk.create(request))
    if as_json:
        print_json({**wire.render(created.token), "token": created.text})
    else:
        click.echo(created.text)


@token.command("list")
@as_json
@settings_options
def list_tokens(as_json: bool, database: str | None, config: Path | None) -> None:
    """List every token; for a week also those that were revoked or have expired. The tokens themselves are not kept.

    \b
    Example:
      tidings token list
    """
    from tidings.wire import tokens as wire

    records = [wire.render(each) for each in _at_the_desk(database, config, lambda desk: desk.list_all())]
    if as_json:
        print_json(records)
        return
    print_table(
        ("gid", "state", "begins", "user", "app", "workspaces", "scopes", "last used"),
        list(map(_row, records)),
    )
    if not records:
        say("There are none. `tidings token create --user GID` makes one.")


@token.command()
@click.argument("gid")
@settings_options
def revoke(gid: str, database: str | None, config: Path | None) -> None:
    """Revoke a token, by its gid. What only it covered stops being delivered.

    \b
    Example:
      tidings token revoke 1200000000000001
    """
    _at_the_desk(database, config, lambda desk: desk.revoke(gid))
    say(f"Revoked token {gid}.")


def _used_rightly(parse: Callable[[], T]) -> T:
    from tidings.errors import BadRequest

    try:
        return parse()
    except BadRequest as error:
        raise click.UsageError(str(error)) from None


def _at_the_desk(
    database: str | None, config: Path | None, act: Callable[[TokenDesk], Coroutine[Any, Any, T]]
) -> T:
    """Do one thing with the tokens of the database that the settings name."""
    settings = load_settings(config, {"database": database})
    from tidings import runtime

    async def within() -> T:
        async with runtime.open_tokens(settings) as desk:
            return await act(desk)

    return runtime.run(within())


def _row(record: dict[str, Any]) -> list[str]:
    user = record["user"]
    workspaces = record["workspaces"]
    return [
        record["gid"],
        "revoked" if record["revoked_at"] else "active",
        record["prefix"] + "…",
        " ".join(filter(None, (user["gid"], user["name"]))),
        record["app"],
        "all" if workspaces is None else " ".join(workspaces),
        _scopes(record["scopes"]),
        record["last_used_at"] or "never",
    ]


def _scopes(scopes: Sequence[str]) -> str:
    missing = set(Scope) - set(scopes)
    match len(missing):
        case 0:
            return "all"
        case 1:
            return f"all but {missing.pop()}"
        case _:
            return " ".join(scopes)
