"""`tidings webhooks`: what is established, and how its deliveries go."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from tidings.cli.options import as_json, connected, connection_options
from tidings.cli.printing import print_json, print_record, print_table, say, waiting

# What a list has to say about each webhook; the API gives less unless asked.
_LIST_FIELDS: Final = (
    "active",
    "resource",
    "target",
    "last_success_at",
    "delivery_retry_count",
    "next_attempt_after",
    "failure_deletion_timestamp",
    "last_failure_content",
    "inactive_reason",
)
_ATTEMPTS_MAX: Final = 10_000


@click.group()
def webhooks() -> None:
    """List, look at, create and delete webhooks.

    \b
    Example:
      tidings webhooks create 8675309 http://127.0.0.1:9000/bugs
    """


@webhooks.command("list")
@click.option("--workspace", required=True, metavar="GID", help="Whose webhooks to list.")
@click.option("--resource", metavar="GID", help="Only those on this resource.")
@as_json
@connection_options
def list_webhooks(workspace: str, resource: str | None, as_json: bool, url: str, token: str | None) -> None:
    """List your webhooks in a workspace.

    \b
    Example:
      tidings webhooks list --workspace 1331
    """
    from tidings.client import Call

    params = {"workspace": workspace, "resource": resource, "limit": 100, "opt_fields": _LIST_FIELDS}
    with connected(url, token) as session, waiting("Reading the list …"):
        pages = session.pages(Call.of("GET", "/webhooks", params=params))
        records = [record for page in pages for record in page.get("data", [])]
    if as_json:
        print_json(records)
        return
    rows = [
        [_text(each["gid"]), _state(each), _resource(each), _text(each.get("target"))] for each in records
    ]
    print_table(("gid", "state", "resource", "target"), rows)
    if not records:
        say("There are none that this token may see.")


@webhooks.command()
@click.argument("gid")
@as_json
@connection_options
def show(gid: str, as_json: bool, url: str, token: str | None) -> None:
    """Show everything about one webhook.

    \b
    Example:
      tidings webhooks show 1200000000000001
    """
    with connected(url, token) as session:
        record = session.request("GET", _path(gid))["data"]
    _print_webhook(record, as_json=as_json)


@webhooks.command()
@click.argument("resource")
@click.argument("target")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="FILTER",
    help="resource_type=task,action=changed,fields=name+due_on; or the same as a JSON object. May be repeated.",
)
@as_json
@connection_options
def create(
    resource: str, target: str, filters: Sequence[str], as_json: bool, url: str, token: str | None
) -> None:
    """Establish a webhook on RESOURCE (a gid) towards TARGET (a URL).

    The target must shake hands while this waits. The secret is printed once, here.

    \b
    Example:
      tidings webhooks create 8675309 http://127.0.0.1:9000/bugs --filter resource_type=task,action=added
    """
    data = {"resource": resource, "target": target, "filters": [_filter(text) for text in filters]}
    with connected(url, token) as session, waiting("Waiting for the target to shake hands …"):
        body = session.request("POST", "/webhooks", json={"data": data})
    _print_webhook({**body["data"], "X-Hook-Secret": body.get("X-Hook-Secret")}, as_json=as_json)


@webhooks.command()
@click.argument("gid")
@connection_options
def delete(gid: str, url: str, token: str | None) -> None:
    """Delete a webhook for good.

    \b
    Example:
      tidings webhooks delete 1200000000000001
    """
    with connected(url, token) as session:
        session.request("DELETE", _path(gid))
    say(f"Deleted webhook {gid}.")


@webhooks.command()
@click.argument("gid")
@click.option(
    "--limit", type=click.IntRange(1, _ATTEMPTS_MAX), default=20, show_default=True, help="At most so many."
)
@as_json
@connection_options
def attempts(gid: str, limit: int, as_json: bool, url: str, token: str | None) -> None:
    """Show what was delivered, and what came of it: the newest first.

    \b
    Example:
      tidings webhooks attempts 1200000000000001 --limit 5
    """
    from tidings.client import Call

    records: list[dict[str, Any]] = []
    call = Call.of("GET", f"{_path(gid)}/attempts", params={"limit": min(limit, 100)})
    with connected(url, token) as session, waiting("Reading the attempts …"):
        for page in session.pages(call):
            records.extend(page.get("data", []))
            if len(records) >= limit:
                break
    del records[limit:]
    if as_json:
        print_json(records)
        return
    rows = [
        [
            _text(each.get("created_at")),
            _text(each.get("result")),
            _text(each.get("status")),
            f"{each.get('duration_ms')} ms",
            "heartbeat" if each.get("heartbeat") else _text(each.get("events")),
            _text(each.get("response")),
        ]
        for each in records
    ]
    print_table(("time", "result", "status", "took", "events", "response"), rows)
    if not records:
        say("Nothing was delivered yet.")


# -- reading what was given ------------------------------------------------------------------------


def _path(gid: str) -> str:
    from urllib.parse import quote

    if gid in ("", ".", ".."):
        raise click.UsageError(f"{gid!r} is not a gid")
    return f"/webhooks/{quote(gid, safe='')}"


def _filter(text: str) -> dict[str, object]:
    """Read one `--filter`; what its keys mean is the service's to judge."""
    if text.lstrip().startswith("{"):
        try:
            parsed = json.loads(text)
        except ValueError as error:
            raise click.UsageError(f"--filter {text!r} is not JSON: {error}") from None
        if isinstance(parsed, dict):
            return parsed
    made: dict[str, object] = {}
    for part in text.split(","):
        key, equals, value = (each.strip() for each in part.partition("="))
        if not (key and equals and value) or key in made:
            raise click.UsageError(
                f"--filter {text!r}: write key=value pairs between commas, or a JSON object"
            )
        made[key] = value.split("+") if key == "fields" else value
    return made


# -- showing what came back ------------------------------------------------------------------------


def _print_webhook(record: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(record)
        return
    lines = {
        "gid": _text(record["gid"]),
        "state": _state(record),
        "resource": _resource(record),
        "target": _text(record.get("target")),
        "filters": "\n".join(map(_filter_text, record.get("filters") or ())) or "none",
        "created": _text(record.get("created_at")),
        "last success": _text(record.get("last_success_at")),
        "last failure": _text(record.get("last_failure_at")),
        "last failure was": _text(record.get("last_failure_content")),
        "retries since": _text(record.get("delivery_retry_count")),
        "next attempt": _text(record.get("next_attempt_after")),
        "deleted if failing at": _text(record.get("failure_deletion_timestamp")),
        "X-Hook-Secret": _text(record.get("X-Hook-Secret")),
    }
    print_record({name: value for name, value in lines.items() if value})


def _state(record: Mapping[str, Any]) -> str:
    if not record.get("active"):
        reason = record.get("inactive_reason")
        return f"stopped, {_text(reason)}" if reason else "stopped"
    if record.get("failure_deletion_timestamp"):
        return f"failing, next attempt {_text(record.get('next_attempt_after'))}"
    return "healthy"


def _resource(record: Mapping[str, Any]) -> str:
    resource = record.get("resource") or {}
    parts = (resource.get("resource_type"), resource.get("gid"), resource.get("name"))
    return " ".join(_text(part) for part in parts if part)


def _filter_text(entry: Mapping[str, Any]) -> str:
    pairs = (
        f"{key}={'+'.join(value) if isinstance(value, list) else value}"
        for key, value in entry.items()
        if value is not None
    )
    return ",".join(pairs) or "everything"


def _text(value: object) -> str:
    return "" if value is None else str(value)
