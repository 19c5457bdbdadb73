"""The questions the nouns answer about themselves."""

import pytest

from tidings.model import (
    Answer,
    EndReason,
    Health,
    Owner,
    Resource,
    Scope,
    StopReason,
    Token,
    Webhook,
)


@pytest.mark.parametrize(
    ("stopped", "ended", "active"),
    [
        (None, None, True),
        (StopReason.PAUSED, None, False),
        (StopReason.ACCESS_LOST, None, False),
        (None, EndReason.EXPIRED, False),
        (StopReason.PAUSED, EndReason.DELETED, False),
    ],
)
def test_a_webhook_is_active_unless_stopped_or_ended(
    stopped: StopReason | None, ended: EndReason | None, active: bool
) -> None:
    """Contract §12.19: one that is failing is active, it is being retried."""
    webhook = Webhook(
        gid="7",
        owner=Owner("u", "a"),
        resource=Resource(gid="1", resource_type="workspace", workspace="1"),
        target="https://receiver.example/",
        filters=(),
        secrets=(),
        created_at=0,
        cursor=0,
        health=Health(last_success_at=0, failures=3, failing_since=1, next_attempt_at=2, heartbeat_at=1),
        stopped=stopped,
        ended=ended,
    )
    assert webhook.active is active


def token(
    *,
    workspaces: frozenset[str] | None = None,
    expires_at: int | None = None,
    revoked_at: int | None = None,
) -> Token:
    return Token(
        gid="1",
        owner=Owner("u", "a"),
        user_name=None,
        prefix="abc",
        scopes=frozenset(Scope),
        workspaces=workspaces,
        created_at=0,
        expires_at=expires_at,
        revoked_at=revoked_at,
    )


@pytest.mark.parametrize(
    ("workspaces", "covered"),
    [(None, True), (frozenset(), False), (frozenset({"1"}), True), (frozenset({"2", "3"}), False)],
)
def test_which_workspaces_a_token_covers(workspaces: frozenset[str] | None, covered: bool) -> None:
    assert token(workspaces=workspaces).covers("1") is covered


@pytest.mark.parametrize(
    ("expires_at", "revoked_at", "live"),
    [
        (None, None, True),
        (101, None, True),
        (100, None, False),
        (99, None, False),
        (None, 100, False),
        (101, 5, False),
    ],
)
def test_a_token_lives_until_it_expires_or_is_revoked(
    expires_at: int | None, revoked_at: int | None, live: bool
) -> None:
    """The instant of expiry is already too late."""
    assert token(expires_at=expires_at, revoked_at=revoked_at).live(100) is live


def test_of_equal_headers_the_last_counts() -> None:
    answer = Answer(200, "OK", (("a", "1"), ("b", "2"), ("a", "3")), b"")
    assert (answer.header("a"), answer.header("b"), answer.header("c")) == ("3", "2", None)
