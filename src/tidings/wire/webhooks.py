"""Webhooks: what a create or update says, and the record every call answers with (contract §1.1, §3)."""

from dataclasses import dataclass

import msgspec

from tidings import delivery
from tidings.delivery import Policy
from tidings.errors import BadRequest
from tidings.hierarchy import WORKSPACE
from tidings.limits import (
    FIELD_CHARS_MAX,
    FILTER_FIELDS_MAX,
    FILTERS_BYTES_MAX,
    FILTERS_MAX,
    TARGET_CHARS_MAX,
)
from tidings.matching import ACTIONS
from tidings.model import Attempt, Filter, Resource, Webhook
from tidings.wire import times, values
from tidings.wire.bodies import Body, data_record


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """What a caller wants established: read, not yet judged."""

    resource: str
    target: str
    filters: tuple[Filter, ...]


def parse_create(body: Body) -> CreateRequest:
    """Read `POST /webhooks`.

    Raises:
        BadRequest: in the recorded words where there are any (contract §2.2, §12.8).
    """
    record = data_record(body)
    for key in ("resource", "target"):
        if record.get(key) is None:
            raise BadRequest(f"You should specify one of {key}", code="missing_input")
    return CreateRequest(
        resource=values.gid(record["resource"], "resource"),
        target=values.text(record["target"], "target", chars_max=TARGET_CHARS_MAX),
        filters=parse_filters(record.get("filters")),
    )


def parse_update(body: Body) -> tuple[Filter, ...]:
    """Read `PUT /webhooks/{gid}`: the filters replace the old ones whole."""
    record = data_record(body)
    if record.get("filters") is None:
        raise BadRequest("You should specify one of filters", code="missing_input")
    return parse_filters(record["filters"])


def parse_filters(value: object) -> tuple[Filter, ...]:
    """Read an array of filters; null and left out mean none, unknown keys are ignored."""
    if value is None:
        return ()
    entries = values.array(value, "filters", length_max=FILTERS_MAX)
    filters = tuple(_parse_filter(entry, f"filters: [{index}]") for index, entry in enumerate(entries))
    size = len(msgspec.json.encode([render_filter(entry) for entry in filters]))
    if size > FILTERS_BYTES_MAX:
        raise BadRequest.at(
            "filters", f"at most {FILTERS_BYTES_MAX} bytes in all, not {size}", code="filters_too_large"
        )
    return filters


def _parse_filter(entry: object, path: str) -> Filter:
    record = values.record(entry, path)
    action = record.get("action")
    if action is not None and action not in ACTIONS:
        raise BadRequest.at(
            values.join(path, "action"),
            f"must be one of {', '.join(ACTIONS)}, not {values.shown(action)}",
            code="invalid_filter",
        )
    return Filter(
        resource_type=values.optional_type_name(
            record.get("resource_type"), values.join(path, "resource_type")
        ),
        resource_subtype=values.optional_type_name(
            record.get("resource_subtype"), values.join(path, "resource_subtype")
        ),
        action=None if action is None else str(action),
        fields=_parse_fields(record.get("fields"), values.join(path, "fields")),
    )


def _parse_fields(value: object, path: str) -> tuple[str, ...] | None:
    """An empty array is read as unset: a filter that accepts nothing is never what was meant."""
    if value is None:
        return None
    names = values.array(value, path, length_max=FILTER_FIELDS_MAX)
    return (
        tuple(
            values.text(name, f"{path}: [{index}]", chars_max=FIELD_CHARS_MAX)
            for index, name in enumerate(names)
        )
        or None
    )


def render_filter(entry: Filter) -> dict[str, object]:
    """A filter with all four keys, unset ones as null (contract §0.5). Stores keep them so."""
    return {
        "resource_type": entry.resource_type,
        "resource_subtype": entry.resource_subtype,
        "action": entry.action,
        "fields": None if entry.fields is None else list(entry.fields),
    }


def render(webhook: Webhook, policy: Policy) -> dict[str, object]:
    """The full record. Beyond Asana's, and only where they say something: `inactive_reason`, `events_lost_at`."""
    health = webhook.health
    record: dict[str, object] = {
        "gid": webhook.gid,
        "resource_type": "webhook",
        "active": webhook.active,
        "resource": render_compact_resource(webhook.resource),
        "target": webhook.target,
        "is_workspace_webhook": webhook.resource.resource_type == WORKSPACE,
        "created_at": times.render(webhook.created_at),
        "last_success_at": times.render_optional(health.last_success_at),
        "last_failure_at": times.render_optional(health.last_failure_at),
        "last_failure_content": health.last_failure_content,
        "delivery_retry_count": delivery.retry_count(health),
        "next_attempt_after": times.render_optional(health.next_attempt_at),
        "failure_deletion_timestamp": times.render_optional(delivery.deletion_at(health, policy)),
        "filters": [render_filter(entry) for entry in webhook.filters],
    }
    if webhook.stopped is not None:
        record["inactive_reason"] = webhook.stopped.value
    if webhook.lost_at is not None:
        record["events_lost_at"] = times.render(webhook.lost_at)
    return record


def render_compact(webhook: Webhook) -> dict[str, object]:
    """The record a list shows by default (contract §3)."""
    return {
        "gid": webhook.gid,
        "resource_type": "webhook",
        "active": webhook.active,
        "resource": render_compact_resource(webhook.resource),
        "target": webhook.target,
    }


def render_compact_resource(resource: Resource) -> dict[str, object]:
    return {"gid": resource.gid, "resource_type": resource.resource_type, "name": resource.name}


def render_attempt(attempt: Attempt, sequence: int) -> dict[str, object]:
    """One line of a webhook's log of attempts."""
    return {
        "gid": str(sequence),
        "resource_type": "attempt",
        "delivery": attempt.delivery,
        "created_at": times.render(attempt.started_at),
        "duration_ms": attempt.duration // 1000,
        "events": attempt.events,
        "heartbeat": attempt.heartbeat,
        "status": attempt.status,
        "result": attempt.result,
        "response": attempt.excerpt,
    }
