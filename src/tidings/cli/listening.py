"""`tidings listen`: a receiver whose only purpose is to be looked at."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from tidings.cli.options import Failed
from tidings.cli.printing import one_line, say

if TYPE_CHECKING:
    from tidings.cli.listener import Arrival, Finding, Reply, Show

_BACKLOG: Final = 128
# Of a body that is not a delivery.
_EXCERPT_CHARS: Final = 300


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=9000, show_default=True, help="0 takes a free one."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--forward", metavar="URL", help="Pass everything on to this receiver, and its answers back.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per request.")
def listen(port: int, host: str, forward: str | None, as_json: bool) -> None:
    """Receive webhooks and print them.

    Shakes hands, checks signatures, answers 200, whatever comes. Every path is a receiver of its own; secrets
    are kept in memory only. With --forward, the other receiver's answers count: if its URL has a path,
    everything goes there, else each request keeps its own.

    \b
    Examples:
      tidings listen --port 9000
      tidings listen --forward http://127.0.0.1:3000/webhooks
    """
    _check(forward)
    from tidings.cli import listener
    from tidings.cli.forwarding import Forwarder

    bound = _bind(host, port)
    address = f"[{host}]" if ":" in host else host
    url = f"http://{address}:{bound.getsockname()[1]}"

    def ready() -> None:
        say(f"Listening on {url} (any path; Ctrl-C ends it)")
        if forward:
            say(f"Forwarding to {forward}")

    listener.listen(
        bound,
        forward=Forwarder(forward) if forward else None,
        show=_to_pipe(_show_json if as_json else _show),
        ready=ready,
    )


def _check(forward: str | None) -> None:
    from urllib.parse import urlsplit

    if forward is None:
        return
    try:
        parts = urlsplit(forward)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise click.UsageError(f"--forward {forward!r}: write a URL such as http://127.0.0.1:3000/webhooks")


def _bind(host: str, port: int) -> socket.socket:
    """A socket that listens already: what connects from now on is served, if only in a moment."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as error:
        raise Failed(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return bound


def _to_pipe(show: Show) -> Show:
    """Once the reader of our output is gone, let the rest of it go nowhere: Python flushes at the very end too."""

    def shown(arrival: Arrival, finding: Finding, reply: Reply) -> None:
        try:
            show(arrival, finding, reply)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
            raise

    return shown


# -- what is shown ---------------------------------------------------------------------------------


def _show_json(arrival: Arrival, finding: Finding, reply: Reply) -> None:
    shown = {
        "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
        "method": arrival.method,
        "path": arrival.target,
        "kind": finding.kind.value,
        "genuine": finding.problem is None,
        "problem": finding.problem,
        "webhook": finding.webhook,
        "delivery": finding.delivery,
        "events": finding.events,
        "status": reply.status,
        "note": reply.note,
    }
    click.echo(json.dumps(shown, ensure_ascii=False, separators=(",", ":")))


def _show(arrival: Arrival, finding: Finding, reply: Reply) -> None:
    at = datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]
    request = click.style(f"{arrival.method} {one_line(arrival.target)}", bold=True)
    click.echo(f"{click.style(at, dim=True)}  {request}  {_headline(finding)}  {_status(reply)}")
    for line in _details(arrival, finding):
        click.echo(f"              {line}")


def _headline(finding: Finding) -> str:
    from tidings.cli.listener import Kind

    if finding.problem is not None:
        what = "" if finding.kind is Kind.OTHER else f"{finding.kind.upper()} NOT GENUINE: "
        return click.style(f"{what}{finding.problem}", fg="yellow" if finding.kind is Kind.OTHER else "red")
    good = click.style("signature good", fg="green")
    match finding.kind:
        case Kind.HANDSHAKE:
            return click.style("handshake", fg="cyan") + ", secret remembered"
        case Kind.HEARTBEAT:
            return click.style("heartbeat", fg="cyan") + f", {good}"
        case _:
            number = len(finding.events)
            return f"{number} event{'' if number == 1 else 's'}, {good}"


def _status(reply: Reply) -> str:
    colour = "green" if 200 <= reply.status < 300 else "red"
    note = f" {one_line(reply.note)}" if reply.note else ""
    return f"→ {click.style(str(reply.status), fg=colour)}{note}"


def _details(arrival: Arrival, finding: Finding) -> Iterator[str]:
    if finding.webhook or finding.delivery:
        parts = (("webhook", finding.webhook), ("delivery", finding.delivery))
        yield click.style("  ".join(f"{name} {one_line(value)}" for name, value in parts if value), dim=True)
    if finding.secret_of is not None:
        yield click.style(f"signed with the secret that came to {one_line(finding.secret_of)}", fg="yellow")
    for event in finding.events:
        yield _event(event)
    if finding.problem is not None and arrival.body:
        yield one_line(arrival.body[:_EXCERPT_CHARS].decode("utf-8", "replace"))


def _event(event: Mapping[str, Any]) -> str:
    parts = [
        click.style(f"{one_line(str(event.get('action', '?'))):<9}", bold=True),
        _thing(event.get("resource")),
    ]
    change = event.get("change")
    if isinstance(change, dict):
        parts.append(f"{one_line(str(change.get('field')))} {one_line(str(change.get('action')))}")
    if event.get("parent"):
        parts.append(f"in {_thing(event['parent'])}")
    if event.get("user"):
        parts.append(f"by {_thing(event['user'])}")
    parts.append(click.style(one_line(str(event.get("created_at", ""))), dim=True))
    return "  ".join(parts)


def _thing(record: object) -> str:
    if not isinstance(record, dict):
        return one_line(str(record))
    subtype = record.get("resource_subtype")
    text = f"{record.get('resource_type', '?')} {record.get('gid', '?')}" + (
        f" ({subtype})" if subtype else ""
    )
    return one_line(text)
