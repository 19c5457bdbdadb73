"""Tokens, and what their coming and going does to their owners' webhooks."""

from __future__ import annotations

import asyncio

import pytest

from tests.store.building import (
    DAY,
    ELSEWHERE,
    FOREIGN_PROJECT,
    HOUR,
    KEEPING,
    NOON,
    OTHER_OWNER,
    OWNER,
    WORKSPACE,
    Case,
    fields,
    token,
)
from tidings.errors import BadRequest
from tidings.limits import DEAD_TOKEN_KEPT
from tidings.model import Micros, Owner, StopReason, Token, Webhook
from tidings.store import Store

HERE = frozenset({WORKSPACE})
THERE = frozenset({ELSEWHERE})


async def add(store: Store, made: Token, *, only_first: bool = False) -> bool:
    return await store.add_token(made, digest=made.gid.encode(), only_first=only_first)


async def stopped(case: Case, webhook: Webhook) -> StopReason | None:
    return (await case.webhook(webhook.gid)).stopped


# -- keeping ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workspaces", [None, frozenset(), HERE | THERE], ids=["all", "none", "two"])
async def test_a_token_is_found_by_its_hash_as_it_was(
    store: Store, workspaces: frozenset[str] | None
) -> None:
    made = token("t", workspaces=workspaces, expires_at=NOON + DAY)
    assert await store.add_token(made, digest=b"\x00\xff")
    assert await store.find_token(b"\x00\xff") == made
    assert await store.find_token(b"\x00") is None


async def test_tokens_are_listed_in_the_order_they_came(store: Store) -> None:
    made = [token(gid) for gid in ("b", "a", "c")]
    for one in made:
        await add(store, one)
    assert list(await store.list_tokens()) == made


async def test_only_the_first_is_kept_if_so_asked(store: Store) -> None:
    assert await add(store, token("first"), only_first=True)
    assert not await add(store, token("second"), only_first=True)
    assert await add(store, token("third"))
    assert [one.gid for one in await store.list_tokens()] == ["first", "third"]


async def test_a_revoked_token_is_not_none(store: Store) -> None:
    """Or who revokes the last token would let the settings' token in again."""
    await add(store, token("t"))
    await store.revoke_token("t", now=NOON)
    assert not await add(store, token("second"), only_first=True)


async def test_tokens_are_forgotten_a_week_after_their_end(case: Case) -> None:
    """And those that live are not, however old."""
    for made in (token("revoked"), token("expired", expires_at=NOON + HOUR), token("live")):
        await add(case.store, made)
    await case.store.revoke_token("revoked", now=NOON)
    week = NOON + DEAD_TOKEN_KEPT
    for now, left in (
        (week, {"revoked", "expired", "live"}),
        (week + 1, {"expired", "live"}),
        (week + HOUR, {"expired", "live"}),
        (week + HOUR + 1, {"live"}),
        (week + 1_000 * DAY, {"live"}),
    ):
        await case.trim_all(now=now)
        assert {one.gid for one in await case.store.list_tokens()} == left


async def test_a_clock_that_ran_ahead_forgets_no_token(case: Case) -> None:
    await add(case.store, token("t", expires_at=NOON + DAY))
    await case.live_until(NOON + HOUR)
    sweep = await case.store.survey(now=NOON + 1_000 * DAY, keeping=KEEPING)
    await case.store.trim(sweep, now=NOON + 1_000 * DAY)
    assert [one.gid for one in await case.store.list_tokens()] == ["t"]


async def test_a_forgotten_token_is_not_none(case: Case) -> None:
    await add(case.store, token("t"))
    await case.store.revoke_token("t", now=NOON)
    await case.trim_all(now=NOON + DEAD_TOKEN_KEPT + 1)
    assert await case.store.list_tokens() == ()
    assert not await add(case.store, token("second"), only_first=True)


async def test_webhooks_of_forgotten_tokens_stay_stopped(case: Case) -> None:
    """Until a token covers them again."""
    await add(case.store, token("t"))
    webhook = await case.establish()
    await case.store.revoke_token("t", now=NOON)
    await case.trim_all(now=NOON + DEAD_TOKEN_KEPT + 1)
    await case.store.review_access(now=NOON + DEAD_TOKEN_KEPT + 1)
    assert await stopped(case, webhook) is StopReason.ACCESS_LOST
    await add(case.store, token("u"))
    assert await stopped(case, webhook) is None


async def test_forgotten_tokens_do_not_count_towards_the_most_there_can_be(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings.store.sqlite.access.TOKENS_MAX", 2)
    await add(case.store, token("t"))
    await add(case.store, token("u"))
    await case.store.revoke_token("t", now=NOON)
    with pytest.raises(BadRequest, match="there are 2 tokens already"):
        await add(case.store, token("v"))
    await case.trim_all(now=NOON + DEAD_TOKEN_KEPT + 1)
    assert await add(case.store, token("v"))


async def test_of_several_first_tokens_at_the_same_moment_one_is_kept(store: Store) -> None:
    added = await asyncio.gather(*(add(store, token(gid), only_first=True) for gid in "abc"))
    assert sum(added) == 1


async def test_a_token_is_revoked_for_good(store: Store) -> None:
    await add(store, token("t"))
    assert await store.revoke_token("t", now=NOON + 1)
    assert await store.revoke_token("t", now=NOON + 2)
    found = await store.find_token(b"t")
    assert found is not None
    assert (found.revoked_at, found.live(NOON + 2)) == (NOON + 1, False)


async def test_an_unknown_token_cannot_be_revoked(store: Store) -> None:
    assert await store.revoke_token("404", now=NOON) is False


async def test_a_tokens_last_use_is_noted(store: Store) -> None:
    await add(store, token("t"))
    await add(store, token("other"))
    await store.touch_tokens({"t": NOON + HOUR, "404": NOON})
    assert [one.last_used_at for one in await store.list_tokens()] == [NOON + HOUR, None]


# -- losing access ---------------------------------------------------------------------------------


async def test_webhooks_stop_when_the_last_token_is_revoked(case: Case) -> None:
    await add(case.store, token("t"))
    await add(case.store, token("u"))
    webhook = await case.establish()
    await case.store.revoke_token("t", now=NOON)
    assert await stopped(case, webhook) is None
    await case.store.revoke_token("u", now=NOON)
    assert await stopped(case, webhook) is StopReason.ACCESS_LOST
    assert not (await case.webhook(webhook.gid)).active


async def test_a_webhook_whose_owner_lost_access_during_the_handshake_is_added_stopped(case: Case) -> None:
    """And goes on when a token covers its workspace again."""
    await add(case.store, token("t"))
    await case.store.revoke_token("t", now=NOON)
    webhook = await case.establish()
    assert await stopped(case, webhook) is StopReason.ACCESS_LOST
    await add(case.store, token("u"))
    assert await stopped(case, webhook) is None


async def test_webhooks_stop_when_the_last_token_has_expired(case: Case) -> None:
    await add(case.store, token("t", expires_at=NOON + HOUR))
    await add(case.store, token("u", expires_at=NOON + 2 * HOUR))
    webhook = await case.establish()
    for now, reason in (
        (NOON + HOUR, None),
        (NOON + 2 * HOUR - 1, None),
        (NOON + 2 * HOUR, StopReason.ACCESS_LOST),
    ):
        await case.store.review_access(now=now)
        assert await stopped(case, webhook) is reason


async def test_reviewing_again_and_again_changes_nothing_more(case: Case) -> None:
    await add(case.store, token("t", expires_at=NOON + HOUR))
    webhook = await case.establish()
    for hours in (1, 1, 2, 30):
        await case.store.review_access(now=NOON + hours * HOUR)
        assert await stopped(case, webhook) is StopReason.ACCESS_LOST


@pytest.mark.parametrize(
    "other",
    [
        token("other", owner=OTHER_OWNER),
        token("other", owner=Owner(OWNER.user, "another")),
        token("other", workspaces=THERE),
        token("other", workspaces=frozenset()),
        token("other", expires_at=NOON + HOUR),
    ],
    ids=["another user", "another app", "another workspace", "no workspace", "expired"],
)
async def test_a_token_that_does_not_cover_a_webhook_does_not_keep_it(case: Case, other: Token) -> None:
    await add(case.store, other)
    await add(case.store, token("t"))
    webhook = await case.establish()
    await case.store.revoke_token("t", now=NOON + HOUR)
    assert await stopped(case, webhook) is StopReason.ACCESS_LOST


async def test_access_is_lost_by_workspace(case: Case) -> None:
    await add(case.store, token("here", workspaces=HERE))
    await add(case.store, token("there", workspaces=THERE))
    here = await case.establish()
    there = await case.establish(resource=FOREIGN_PROJECT)
    await case.store.revoke_token("there", now=NOON)
    assert (await stopped(case, here), await stopped(case, there)) == (None, StopReason.ACCESS_LOST)


async def test_others_keep_their_access(case: Case) -> None:
    await add(case.store, token("t"))
    await add(case.store, token("other", owner=OTHER_OWNER))
    theirs = await case.establish(owner=OTHER_OWNER)
    await case.store.revoke_token("t", now=NOON)
    assert await stopped(case, theirs) is None


async def test_an_ended_webhook_is_not_touched(case: Case) -> None:
    await add(case.store, token("t"))
    webhook = await case.establish()
    await case.store.remove_webhook(webhook.gid, now=NOON)
    await case.store.revoke_token("t", now=NOON)
    assert await case.store.get_webhook(webhook.gid) is None


# -- and getting it back ---------------------------------------------------------------------------


async def test_a_new_token_lets_webhooks_go_on_where_they_stopped(case: Case) -> None:
    await add(case.store, token("t"))
    webhook = await case.establish()
    await case.publish("before")
    await case.store.revoke_token("t", now=NOON)
    await case.publish("meanwhile")
    assert await case.claimed() == {}
    await add(case.store, token("u", created_at=NOON + HOUR))
    assert await stopped(case, webhook) is None
    assert fields(await case.only(now=NOON + HOUR)) == ["before", "meanwhile"]


@pytest.mark.parametrize(
    "other",
    [
        token("other", owner=OTHER_OWNER),
        token("other", workspaces=THERE),
        token("other", expires_at=NOON),
    ],
    ids=["another user", "another workspace", "expired"],
)
async def test_a_new_token_that_does_not_cover_a_webhook_leaves_it_stopped(case: Case, other: Token) -> None:
    await add(case.store, token("t"))
    webhook = await case.establish()
    await case.store.revoke_token("t", now=NOON)
    await add(case.store, other)
    assert await stopped(case, webhook) is StopReason.ACCESS_LOST


@pytest.mark.parametrize("back_to", [NOON, NOON + DAY - 1])
async def test_a_clock_that_ran_ahead_stops_nobody_for_good(case: Case, back_to: Micros) -> None:
    await add(case.store, token("t", expires_at=NOON + DAY))
    webhook = await case.establish()
    await case.store.review_access(now=NOON + 2 * DAY)
    assert await stopped(case, webhook) is StopReason.ACCESS_LOST
    await case.store.review_access(now=back_to)
    assert await stopped(case, webhook) is None
    await case.store.review_access(now=NOON + DAY)
    assert await stopped(case, webhook) is StopReason.ACCESS_LOST
