"""Webhooks: what establishes and updates one, and the record of it."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.delivery import Policy
from tidings.errors import BadRequest
from tidings.limits import FILTERS_BYTES_MAX, FILTERS_MAX
from tidings.model import Action, Attempt, EndReason, Filter, Health, Owner, Resource, StopReason, Webhook
from tidings.wire import webhooks
from tidings.wire.bodies import Body
from tidings.wire.webhooks import CreateRequest

TARGET = "https://receiver.example/asana/projects?x=1"
CREATED = 1_630_418_587_687_000
SHAKEN = 1_630_418_589_022_000


def message(read: Callable[[], object]) -> str:
    with pytest.raises(BadRequest) as refused:
        read()
    return refused.value.message


# -- requests --------------------------------------------------------------------------------------


def test_a_request_to_establish() -> None:
    data = {"resource": "1", "target": TARGET, "filters": [{"resource_type": "task"}], "opt_pretty": True}
    assert webhooks.parse_create(Body(data)) == CreateRequest("1", TARGET, (Filter(resource_type="task"),))
    assert webhooks.parse_create(Body({"resource": "1", "target": TARGET})) == CreateRequest("1", TARGET, ())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, "You should specify one of resource"),
        ({}, "You should specify one of resource"),
        ({"target": TARGET}, "You should specify one of resource"),
        ({"resource": None, "target": TARGET}, "You should specify one of resource"),
        ({"resource": "1"}, "You should specify one of target"),
        ({"data": {"resource": "1", "target": TARGET}}, "You should specify one of resource"),
        ({"resource": 1, "target": TARGET}, "resource: Not a valid GID type: number"),
        ({"resource": "a b", "target": TARGET}, "resource: Not a recognized ID: a b"),
        ({"resource": "1", "target": 1}, "target: expected a string, got number"),
        ({"resource": "1", "target": ""}, "target: must not be empty"),
        ({"resource": "1", "target": "x" * 2_049}, "target: at most 2048 characters, not 2049"),
        ([], "data: expected an object, got array"),
    ],
)
def test_what_is_missing_is_named_in_the_recorded_words(data: object, expected: str) -> None:
    """Contract §2.2, §12.8."""
    assert message(lambda: webhooks.parse_create(Body(data))) == expected


def test_an_update_replaces_the_filters() -> None:
    assert webhooks.parse_update(Body({"filters": []})) == ()
    assert webhooks.parse_update(Body({"filters": [{"action": "added"}]})) == (Filter(action="added"),)
    for data in (None, {}, {"filters": None}):
        expected = "You should specify one of filters"
        assert message(lambda data=data: webhooks.parse_update(Body(data))) == expected  # type: ignore[misc]  # bound early


@pytest.mark.parametrize(
    ("value", "filters"),
    [
        (None, ()),
        ([], ()),
        ([{}], (Filter(),)),
        ([{"resource_type": None, "resource_subtype": None, "action": None, "fields": None}], (Filter(),)),
        ([{"fields": []}], (Filter(),)),
        ([{"resource_type": "task", "whatever": 1}], (Filter(resource_type="task"),)),
        (
            [
                {
                    "resource_type": "task",
                    "resource_subtype": "x",
                    "action": "changed",
                    "fields": ["due on", "né"],
                },
                {"action": "undeleted"},
            ],
            (
                Filter(resource_type="task", resource_subtype="x", action="changed", fields=("due on", "né")),
                Filter(action="undeleted"),
            ),
        ),
    ],
)
def test_filters_are_read(value: object, filters: tuple[Filter, ...]) -> None:
    assert webhooks.parse_filters(value) == filters


@pytest.mark.parametrize(
    ("value", "starts"),
    [
        ("task", "filters: expected an array, got string"),
        ({}, "filters: expected an array, got object"),
        ([{}] * 101, "filters: at most 100 entries, not 101"),
        ([{}, "task"], "filters: [1]: expected an object, got string"),
        (
            [{"action": "exploded"}],
            "filters: [0]: action: must be one of added, changed, deleted, removed, undeleted",
        ),
        ([{"action": ["added"]}], "filters: [0]: action: must be one of "),
        ([{"action": "Added"}], "filters: [0]: action: must be one of "),
        ([{"resource_type": 1}], "filters: [0]: resource_type: expected a string, got number"),
        ([{"resource_subtype": "a b"}], "filters: [0]: resource_subtype: not a type name"),
        ([{"fields": "name"}], "filters: [0]: fields: expected an array, got string"),
        ([{"fields": ["name", 1]}], "filters: [0]: fields: [1]: expected a string"),
        ([{"fields": [""]}], "filters: [0]: fields: [0]: must not be empty"),
        ([{"fields": ["x" * 256]}], "filters: [0]: fields: [0]: at most 255 characters"),
        ([{"fields": ["x"] * 101}], "filters: [0]: fields: at most 100 entries"),
    ],
)
def test_wrong_filters_are_named_by_place_and_key(value: object, starts: str) -> None:
    """Contract §12.10."""
    assert message(lambda: webhooks.parse_filters(value)).startswith(starts)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"target": TARGET}, "missing_input"),
        ({"resource": "1"}, "missing_input"),
        ({"resource": 1, "target": TARGET}, "invalid_gid_type"),
        ({"resource": "a b", "target": TARGET}, "unrecognized_id"),
        ({"resource": "1", "target": TARGET, "filters": [{"action": "exploded"}]}, "invalid_filter"),
        ({"resource": "1", "target": TARGET, "filters": [{}] * 101}, "too_many"),
    ],
)
def test_each_kind_of_mistake_has_its_code(data: object, code: str) -> None:
    with pytest.raises(BadRequest) as refused:
        webhooks.parse_create(Body(data))
    assert refused.value.code == code


names = st.from_regex(r"\A[A-Za-z0-9_.-]{1,64}\Z")
filters = st.builds(
    Filter,
    resource_type=st.none() | names,
    resource_subtype=st.none() | names,
    action=st.none() | st.sampled_from([action.value for action in Action]),
    fields=st.none()
    | st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1), min_size=1).map(
        tuple
    ),
)


@given(st.lists(filters, max_size=5).map(tuple))
def test_filters_come_back_from_their_record(entries: tuple[Filter, ...]) -> None:
    """All four keys, unset ones null (contract §0.5), and the same filters again when read."""
    records = [webhooks.render_filter(entry) for entry in entries]
    assert all(
        list(record) == ["resource_type", "resource_subtype", "action", "fields"] for record in records
    )
    assert webhooks.parse_filters(records) == entries


def filling(size: int) -> list[dict[str, object]]:
    """Filters that come to so many bytes as JSON, by the length of their last field."""

    def ending(last: str) -> list[dict[str, object]]:
        fields = [*(["x" * 200] * 80), last]
        return [{"resource_type": None, "resource_subtype": None, "action": "changed", "fields": fields}]

    return ending("x" * (size - len(json.dumps(ending(""), separators=(",", ":")))))


def test_filters_are_bounded_as_a_whole() -> None:
    """As many bytes as are allowed, and one more."""
    webhooks.parse_filters(filling(FILTERS_BYTES_MAX))
    for parse in (webhooks.parse_update, webhooks.parse_create):
        with pytest.raises(BadRequest) as refused:
            parse(Body({"resource": "1", "target": TARGET, "filters": filling(FILTERS_BYTES_MAX + 1)}))
        assert refused.value.code == "filters_too_large"
        assert refused.value.message == "filters: at most 16384 bytes in all, not 16385"


def test_a_hundred_filters_without_fields_are_few_enough_bytes() -> None:
    entry = {"resource_type": "project_status", "resource_subtype": "default_task", "action": "undeleted"}
    assert len(webhooks.parse_filters([entry] * FILTERS_MAX)) == FILTERS_MAX


# -- records ---------------------------------------------------------------------------------------

POLICY = Policy()
HEALTHY = Health(last_success_at=SHAKEN, heartbeat_at=SHAKEN)


def webhook(
    *,
    health: Health = HEALTHY,
    stopped: StopReason | None = None,
    ended: EndReason | None = None,
    resource: Resource | None = None,
    lost_at: int | None = None,
) -> Webhook:
    return Webhook(
        gid="1200890863508545",
        owner=Owner("u", "a"),
        resource=resource
        or Resource(
            gid="1199978051314275",
            resource_type="workspace",
            name="tesselo.com",
            workspace="1199978051314275",
        ),
        target=TARGET,
        filters=(Filter(resource_type="project", action="added"),),
        secrets=(),
        created_at=CREATED,
        cursor=0,
        health=health,
        stopped=stopped,
        ended=ended,
        lost_at=lost_at,
    )


def test_the_full_record_as_recorded() -> None:
    """The 201 of contract §1.1, with the fields that were added since."""
    assert webhooks.render(webhook(), POLICY) == {
        "gid": "1200890863508545",
        "resource_type": "webhook",
        "resource": {"gid": "1199978051314275", "resource_type": "workspace", "name": "tesselo.com"},
        "target": TARGET,
        "active": True,
        "is_workspace_webhook": True,
        "created_at": "2021-08-31T14:03:07.687Z",
        "last_failure_at": None,
        "last_failure_content": "",
        "last_success_at": "2021-08-31T14:03:09.022Z",
        "delivery_retry_count": 0,
        "next_attempt_after": None,
        "failure_deletion_timestamp": None,
        "filters": [
            {"resource_type": "project", "resource_subtype": None, "action": "added", "fields": None}
        ],
    }


def test_the_record_begins_with_gid_and_type() -> None:
    assert list(webhooks.render(webhook(), POLICY))[:2] == ["gid", "resource_type"]
    assert list(webhooks.render_compact(webhook())) == [
        "gid",
        "resource_type",
        "active",
        "resource",
        "target",
    ]


def test_the_record_of_a_failing_webhook() -> None:
    failing = Health(
        last_success_at=SHAKEN,
        last_failure_at=SHAKEN + 20_000_000,
        last_failure_content="500 Server Error\n\nCould not complete the request",
        failing_since=SHAKEN + 10_000_000,
        failures=2,
        next_attempt_at=SHAKEN + 40_000_000,
        heartbeat_at=SHAKEN,
    )
    record = webhooks.render(webhook(health=failing), POLICY)
    assert record["active"] is True
    assert record["delivery_retry_count"] == 1
    assert record["last_failure_at"] == "2021-08-31T14:03:29.022Z"
    assert record["next_attempt_after"] == "2021-08-31T14:03:49.022Z"
    assert record["failure_deletion_timestamp"] == "2021-09-01T14:03:19.022Z"
    assert record["last_failure_content"] == "500 Server Error\n\nCould not complete the request"


@pytest.mark.parametrize("reason", list(StopReason))
def test_a_stopped_webhook_says_why(reason: StopReason) -> None:
    record = webhooks.render(webhook(stopped=reason), POLICY)
    assert (record["active"], record["inactive_reason"]) == (False, reason.value)
    assert webhooks.render_compact(webhook(stopped=reason))["active"] is False
    assert "inactive_reason" not in webhooks.render(webhook(), POLICY)


def test_a_webhook_that_lost_events_says_when() -> None:
    """Design: past the ceiling of retention events may be lost, and the record says so."""
    record = webhooks.render(webhook(lost_at=SHAKEN), POLICY)
    assert record["events_lost_at"] == "2021-08-31T14:03:09.022Z"
    assert "events_lost_at" not in webhooks.render(webhook(), POLICY)


def test_only_a_workspaces_webhook_is_one() -> None:
    project = Resource(gid="1", resource_type="project", workspace="2")
    record = webhooks.render(webhook(resource=project), POLICY)
    assert record["is_workspace_webhook"] is False
    assert record["resource"] == {"gid": "1", "resource_type": "project", "name": None}


def test_the_record_of_an_attempt() -> None:
    attempt = Attempt(
        delivery="d" * 32,
        started_at=CREATED,
        duration=1_234_567,
        events=3,
        status=503,
        result="refused",
        excerpt="busy",
    )
    assert webhooks.render_attempt(attempt, 17) == {
        "gid": "17",
        "resource_type": "attempt",
        "delivery": "d" * 32,
        "created_at": "2021-08-31T14:03:07.687Z",
        "duration_ms": 1_234,
        "events": 3,
        "heartbeat": False,
        "status": 503,
        "result": "refused",
        "response": "busy",
    }
