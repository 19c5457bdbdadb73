"""The policy: what an answer means, what becomes of the webhook, what one delivery carries."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tidings import delivery
from tidings.delivery import Policy
from tidings.limits import BATCH_BYTES_MAX, FAILURE_CONTENT_BYTES_MAX
from tidings.model import (
    Answer,
    Batch,
    Delivered,
    End,
    EndReason,
    Event,
    Gone,
    Health,
    Hindered,
    Keep,
    Micros,
    NoAnswer,
    Outcome,
    Refused,
    Trouble,
    Verdict,
)
from tidings.wire.events import envelope

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
NOW = 1_800_000_000 * SECOND
POLICY = Policy()
HEALTHY = Health(last_success_at=NOW - HOUR, heartbeat_at=NOW + HOUR)
REFUSED = Refused("500 Internal Server Error")
HINDERED = Hindered("This service has too many open files")

jitters = st.floats(0, 1, exclude_max=True)
policies = st.builds(
    Policy,
    retry_first=st.integers(1, HOUR),
    retry_max=st.integers(1, DAY),
    give_up_after=st.integers(SECOND, 7 * DAY),
    heartbeat_every=st.integers(SECOND, 7 * DAY),
)


def failing(*, failures: int = 3, since: Micros = NOW - HOUR, due: Micros = NOW) -> Health:
    return replace(
        HEALTHY, failures=failures, failing_since=since, next_attempt_at=due, last_failure_at=NOW - MINUTE
    )


def settled(
    health: Health,
    outcome: Outcome,
    *,
    started: Micros = NOW,
    now: Micros | None = None,
    jitter: float = 0.5,
    policy: Policy = POLICY,
) -> Verdict:
    now = started if now is None else now
    return delivery.settle(health, outcome, started=started, now=now, jitter=jitter, policy=policy)


def kept(verdict: Verdict) -> Health:
    assert isinstance(verdict, Keep)
    return verdict.health


def answer(status: int, body: bytes = b"", *, reason: str = "", **headers: str) -> Answer:
    return Answer(
        status, reason, tuple((name.replace("_", "-"), value) for name, value in headers.items()), body
    )


# -- what an answer means --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "taken", "taken_strictly"),
    [
        (200, True, True),
        (204, True, True),
        (201, True, False),
        (202, True, False),
        (299, True, False),
        (199, False, False),
        (300, False, False),
        (301, False, False),
        (400, False, False),
        (404, False, False),
        (500, False, False),
        (599, False, False),
    ],
)
def test_which_statuses_count_as_delivered(status: int, taken: bool, taken_strictly: bool) -> None:
    """Any 2xx, or under the strict setting only 200 and 204 (contract §12.14)."""
    for strict, expected in ((False, taken), (True, taken_strictly)):
        outcome = delivery.judge(answer(status), now=NOW, policy=Policy(strict_success=strict))
        assert isinstance(outcome, Delivered if expected else Refused)


def test_410_is_final_whatever_else_it_says() -> None:
    outcome = delivery.judge(
        answer(410, b"moved out", reason="Gone", retry_after="5"), now=NOW, policy=POLICY
    )
    assert outcome == Gone("410 Gone\n\nmoved out")


@pytest.mark.parametrize("trouble", list(Trouble))
def test_no_answer_is_a_refusal_in_our_own_words(trouble: Trouble) -> None:
    outcome = delivery.judge(NoAnswer(trouble, "connection refused"), now=NOW, policy=POLICY)
    assert outcome == Refused("connection refused")
    outcome = delivery.judge(NoAnswer(trouble, "no descriptor", ours=True), now=NOW, policy=POLICY)
    assert outcome == Hindered("no descriptor")


def test_a_refusal_carries_the_wait_it_asked_for() -> None:
    outcome = delivery.judge(answer(503, reason="Busy", retry_after="120"), now=NOW, policy=POLICY)
    assert outcome == Refused("503 Busy", 120 * SECOND)


# -- the content of a failure ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "content"),
    [
        (
            answer(500, b"Could not complete the request", reason="Server Error"),
            "500 Server Error\n\nCould not complete the request",
        ),
        (answer(502, reason="Bad Gateway"), "502 Bad Gateway"),
        (answer(502), "502"),
        (answer(502, b"x"), "502\n\nx"),
        (answer(500, b"a\x00b", reason="E"), "500 E\n\na\ufffdb"),
        (answer(500, b"\xff\xfe", reason="E"), "500 E\n\n\ufffd\ufffd"),
        (answer(500, "zażółć".encode(), reason="E"), "500 E\n\nzażółć"),
    ],
)
def test_failure_content_is_status_line_blank_line_body(reply: Answer, content: str) -> None:
    """Contract §12.18, and the recorded form of §6."""
    assert delivery.failure_content(reply) == content


@given(st.binary(max_size=3 * FAILURE_CONTENT_BYTES_MAX), st.text(max_size=20))
def test_failure_content_is_bounded_and_whole_characters(body: bytes, prefix: str) -> None:
    content = delivery.failure_content(answer(500, prefix.encode() + body, reason="Error"))
    assert len(content.encode()) <= FAILURE_CONTENT_BYTES_MAX
    assert "\x00" not in content


@pytest.mark.parametrize("char", ["a", "é", "€", "😀"])
@pytest.mark.parametrize("shift", range(4))
def test_the_cut_never_falls_inside_a_character(char: str, shift: int) -> None:
    """Whatever the width of the characters, what is left is a prefix and nothing more would have fitted."""
    text = "x" * shift + char * FAILURE_CONTENT_BYTES_MAX
    cut = delivery.cut_text(text, FAILURE_CONTENT_BYTES_MAX)
    assert text.startswith(cut)
    assert len(cut.encode()) <= FAILURE_CONTENT_BYTES_MAX < len(cut.encode()) + len(char.encode())


def test_a_text_within_its_bound_is_left_alone() -> None:
    assert delivery.cut_text("€" * 10, 30) == "€" * 10


# -- Retry-After -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        (None, 0),
        ("", 0),
        ("   ", 0),
        ("0", 0),
        ("120", 120 * SECOND),
        (" 120 ", 120 * SECOND),
        ("0000000000120", 120 * SECOND),
        ("-5", 0),
        ("1.5", 0),
        ("1e3", 0),
        ("soon", 0),
        ("²", 0),
        ("١٢٠", 0),
        ("Mon", 0),
        ("Mon, 01 Jan 2020 00:00:00 GMT", 0),
        ("Mon, 01 Jan 2020 99:00:00 GMT", 0),
        ("Mon, 01 Jan 2020 00:00:00 +9999", 0),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", 0),
        ("Mon, 01 Jan 2020 00:00:00 +999999999999999999999", 0),
        ("Mon, 01 Jan " + "9" * 5_000 + " 00:00:00 GMT", 0),
    ],
)
def test_retry_after_as_seconds_and_nonsense(value: str | None, wait: Micros) -> None:
    """Whatever a receiver writes there is a wait or nothing: it never raises."""
    assert delivery.retry_after(value, now=NOW) == wait


@pytest.mark.parametrize("digits", [9, 10, 100, 10_000])
def test_an_endless_retry_after_is_long_and_cheap(digits: int) -> None:
    assert delivery.retry_after("9" * digits, now=NOW) > 365 * DAY


@pytest.mark.parametrize("zone", [UTC, None])
def test_retry_after_as_a_date(zone: object) -> None:
    """RFC 9110 §5.6.7: a date without a zone is in UTC."""
    later = datetime.fromtimestamp(NOW // SECOND, UTC) + timedelta(minutes=7)
    text = format_datetime(later, usegmt=True)
    if zone is None:
        text = text.removesuffix(" GMT")
    assert delivery.retry_after(text, now=NOW) == 7 * MINUTE


@given(st.text(max_size=60) | st.from_regex(r"\A\w{3}, \d{1,12} \w{3} \d{1,22} \d+:\d+:\d+ [+-]?\w{1,24}\Z"))
def test_no_retry_after_raises_or_is_negative(value: str) -> None:
    assert delivery.retry_after(value, now=NOW) >= 0


# -- back-off and heartbeat ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retries", "seconds"),
    [(0, 10), (1, 20), (2, 40), (8, 2_560), (9, 3_600), (30, 3_600), (10_000, 3_600)],
)
def test_backoff_doubles_up_to_the_cap(retries: int, seconds: int) -> None:
    """The defaults of contract §12.16: about 10 s, doubling, capped at 1 h; jitter between half and all."""
    assert delivery.backoff(retries, 0, POLICY) == seconds * SECOND // 2
    assert seconds * SECOND * 0.999 < delivery.backoff(retries, 0.9999, POLICY) <= seconds * SECOND


@given(st.integers(0, 1_000_000), jitters, policies)
def test_backoff_keeps_its_bounds(retries: int, jitter: float, policy: Policy) -> None:
    wait = min(policy.retry_first << min(retries, 64), policy.retry_max)
    assert wait // 2 - 1 <= delivery.backoff(retries, jitter, policy) <= wait


@pytest.mark.parametrize("jitter", [-0.1, 1.0, 2.0])
def test_jitter_is_a_fraction(jitter: float) -> None:
    with pytest.raises(AssertionError):
        delivery.backoff(0, jitter, POLICY)


@given(jitters, policies)
def test_heartbeats_spread_over_the_last_tenth(jitter: float, policy: Policy) -> None:
    ahead = delivery.next_heartbeat(NOW, jitter=jitter, policy=policy) - NOW
    assert policy.heartbeat_every * 0.9 - 1 <= ahead <= policy.heartbeat_every


def test_heartbeats_of_many_come_together() -> None:
    """A thousand moments at most for all, evenly used: a turn for each webhook would keep an idle service busy."""
    moments = Counter(
        delivery.next_heartbeat(NOW + number, jitter=number / 100_000, policy=POLICY)
        for number in range(100_000)
    )
    assert 990 <= len(moments) <= 1_001
    assert max(moments.values()) <= 101


# -- what becomes of the webhook -------------------------------------------------------------------


@pytest.mark.parametrize("before", [HEALTHY, failing(), failing(since=NOW - 3 * DAY)])
def test_a_success_ends_the_run(before: Health) -> None:
    """Even one that came when the webhook would have been deleted; the last failure is still told."""
    after = kept(settled(before, Delivered(), now=NOW + SECOND))
    assert after == Health(
        last_success_at=NOW + SECOND,
        last_failure_at=before.last_failure_at,
        last_failure_content=before.last_failure_content,
        heartbeat_at=before.heartbeat_at,
    )


def test_a_heartbeat_that_came_moves_on() -> None:
    """One that has not come is left where it is: its index would else be written with every delivery."""
    due = replace(HEALTHY, heartbeat_at=NOW)
    after = kept(settled(due, Delivered(), now=NOW + SECOND))
    assert after.heartbeat_at == delivery.next_heartbeat(NOW + SECOND, jitter=0.5, policy=POLICY)


@pytest.mark.parametrize(
    ("served", "quiet"),
    [
        (None, True),
        (NOW, False),
        (NOW - POLICY.heartbeat_every * 9 // 10 + 1, False),
        (NOW - POLICY.heartbeat_every * 9 // 10, True),
        (NOW + SECOND, True),  # a clock that was set back
    ],
)
def test_a_heartbeat_is_only_for_the_quiet(served: int | None, quiet: bool) -> None:
    health = replace(HEALTHY, last_success_at=served, heartbeat_at=NOW)
    later = delivery.not_yet_quiet(health, now=NOW, jitter=0.5, policy=POLICY)
    if quiet or served is None:
        assert later is None
    else:
        assert later == replace(
            health, heartbeat_at=delivery.next_heartbeat(served, jitter=0.5, policy=POLICY)
        )


def test_the_first_failure_begins_a_run() -> None:
    after = kept(settled(HEALTHY, REFUSED, now=NOW + SECOND, jitter=0))
    assert after == replace(
        HEALTHY,
        last_failure_at=NOW + SECOND,
        last_failure_content=REFUSED.content,
        failing_since=NOW + SECOND,
        failures=1,
        next_attempt_at=NOW + SECOND + 5 * SECOND,
    )


def test_a_further_failure_continues_the_run() -> None:
    before = failing(failures=3, since=NOW - HOUR)
    after = kept(settled(before, Refused("still down"), jitter=0))
    assert after.failing_since == NOW - HOUR
    assert after.failures == 4
    assert after.last_failure_content == "still down"
    assert after.next_attempt_at == NOW + 40 * SECOND
    assert after.last_success_at == HEALTHY.last_success_at


@pytest.mark.parametrize(
    ("asked", "wait"), [(0, 5 * SECOND), (SECOND, 5 * SECOND), (MINUTE, MINUTE), (HOUR, HOUR), (DAY, HOUR)]
)
def test_retry_after_lengthens_the_wait_up_to_the_cap(asked: Micros, wait: Micros) -> None:
    after = kept(settled(HEALTHY, Refused("", asked), jitter=0))
    assert after.next_attempt_at == NOW + wait


@pytest.mark.parametrize("health", [HEALTHY, failing()])
def test_410_ends_at_once(health: Health) -> None:
    verdict = settled(health, Gone("410 Gone"))
    assert isinstance(verdict, End)
    assert verdict.reason is EndReason.GONE
    assert verdict.health.last_failure_content == "410 Gone"
    assert verdict.health.last_failure_at == NOW
    assert verdict.health.failing_since == (health.failing_since or NOW)
    assert verdict.health.next_attempt_at is None


@pytest.mark.parametrize("left", [1, SECOND, HOUR - 1])
def test_the_last_retry_is_at_the_moment_of_deletion(left: Micros) -> None:
    """However long the back-off is by then, and whatever wait was asked for."""
    since = NOW - DAY + left
    after = kept(settled(failing(failures=40, since=since), Refused("", 10 * DAY), jitter=0.999))
    assert after.next_attempt_at == since + DAY == delivery.deletion_at(after, POLICY)


@pytest.mark.parametrize(
    ("before", "late", "took", "ended"),
    [
        # the attempt that was due at the deletion, in time or long after: the full span had passed
        (0, 0, 0, True),
        (0, 0, 10 * SECOND, True),
        (0, MINUTE, 0, True),
        (0, 30 * DAY, 10 * SECOND, True),
        # one before it: ends nothing, unless it fails when the span is over
        (SECOND, 0, SECOND - 1, False),
        (SECOND, 0, SECOND, True),
        (MINUTE, MINUTE, 0, True),
        # held back by us: the deletion moves by as much
        (MINUTE, MINUTE + 1, 0, False),
        (HOUR, HOUR, 10 * SECOND, False),
        (HOUR, 30 * DAY, 10 * SECOND, False),
    ],
)
def test_only_a_failed_attempt_at_the_deletion_expires(
    *, before: Micros, late: Micros, took: Micros, ended: bool
) -> None:
    """An attempt held back for longer than ordinary queueing moves the deletion instead of bringing it."""
    since = NOW - DAY
    health = failing(failures=30, since=since, due=NOW - before)
    started = NOW - before + late
    verdict = settled(health, REFUSED, started=started, now=started + took)
    if ended:
        assert isinstance(verdict, End)
        assert verdict.reason is EndReason.EXPIRED
        assert verdict.health.next_attempt_at is None
    else:
        assert kept(verdict).failing_since == since + (late if late > MINUTE else 0)


def test_an_outage_of_ours_does_not_count() -> None:
    """Down for two days in the middle of a run: what was left of the 24 h is still left."""
    health = failing(since=NOW - 23 * HOUR, due=NOW)
    after = kept(settled(health, REFUSED, started=NOW + 2 * DAY))
    assert delivery.deletion_at(after, POLICY) == NOW + 2 * DAY + HOUR


def test_what_hinders_us_begins_a_run_that_has_no_length() -> None:
    after = kept(settled(HEALTHY, HINDERED, now=NOW + SECOND, jitter=0))
    assert after == replace(
        HEALTHY,
        last_failure_at=NOW + SECOND,
        last_failure_content=HINDERED.content,
        failing_since=NOW + SECOND,
        failures=1,
        next_attempt_at=NOW + 6 * SECOND,
    )


def test_time_in_which_we_were_hindered_does_not_count() -> None:
    """The target failed for 20 hours, then we could not try for three days: it has its four hours still."""
    health = replace(failing(since=NOW - 20 * HOUR, due=NOW + HOUR), last_failure_at=NOW)
    for hours in range(1, 72):
        health = kept(settled(health, HINDERED, started=NOW + hours * HOUR))
        assert delivery.deletion_at(health, POLICY) == NOW + (hours + 4) * HOUR
        assert health.last_failure_content == HINDERED.content


@pytest.mark.parametrize("left", [0, 1, SECOND, HOUR - 1])
def test_who_was_hindered_at_the_last_attempt_has_another(left: Micros) -> None:
    """And not at once, or it would be tried without end."""
    health = replace(failing(failures=40, since=NOW - DAY + left, due=NOW), last_failure_at=NOW - 1)
    after = kept(settled(health, HINDERED, jitter=0))
    assert after.next_attempt_at == NOW + HOUR // 2
    deletion = delivery.deletion_at(after, POLICY)
    assert deletion == max(after.next_attempt_at, NOW + left + 1)
    then = settled(after, REFUSED, started=after.next_attempt_at)
    assert isinstance(then, End) == (after.next_attempt_at == deletion)


def test_a_clock_set_back_does_not_leave_the_run_in_the_future() -> None:
    health = failing(since=NOW - HOUR, due=NOW)
    after = kept(settled(health, REFUSED, started=NOW - 10 * DAY))
    assert after.failing_since == NOW - 10 * DAY
    assert after.next_attempt_at is not None
    assert after.next_attempt_at <= NOW - 10 * DAY + POLICY.retry_max


def test_a_run_without_a_due_time_is_not_late() -> None:
    health = replace(failing(), next_attempt_at=None)
    assert kept(settled(health, REFUSED)).failing_since == health.failing_since


def test_short_lives_tolerate_less_lateness() -> None:
    """A sandbox's webhook that lives 24 s may be 1.2 s late, not a minute."""
    policy = Policy(give_up_after=24 * SECOND, retry_first=SECOND, retry_max=SECOND)
    health = failing(since=NOW - 24 * SECOND, due=NOW - SECOND)
    assert isinstance(settled(health, REFUSED, started=NOW, policy=policy), End)
    assert isinstance(settled(health, REFUSED, started=NOW + SECOND, policy=policy), Keep)


@given(
    failures=st.integers(1, 100),
    ago=st.integers(0, 10 * DAY),
    due=st.integers(0, 20 * DAY),
    took=st.integers(0, MINUTE),
    asked=st.integers(0, 100 * DAY),
    jitter=jitters,
    policy=policies,
)
def test_a_failed_attempt_keeps_the_promises(
    *, failures: int, ago: Micros, due: Micros, took: Micros, asked: Micros, jitter: float, policy: Policy
) -> None:
    """Expiry only at or after the deletion time; else a retry ahead, never past the cap nor the deletion."""
    before = failing(failures=failures, since=NOW - ago, due=NOW - ago + due)
    now = NOW + took
    verdict = settled(before, Refused("no", asked), started=NOW, now=now, jitter=jitter, policy=policy)
    after = verdict.health
    assert after.failures == failures + 1
    assert after.last_failure_at == now
    deletion = delivery.deletion_at(after, policy)
    assert deletion is not None
    assert after.failing_since is not None
    assert after.failing_since <= now
    if isinstance(verdict, End):
        assert verdict.reason is EndReason.EXPIRED
        assert now >= deletion
        assert after.next_attempt_at is None
    else:
        assert after.next_attempt_at is not None
        assert now <= after.next_attempt_at <= min(deletion, now + policy.retry_max)


@given(
    failures=st.integers(0, 100),
    ago=st.integers(0, 10 * DAY),
    failed=st.integers(-DAY, 10 * DAY),
    took=st.integers(0, MINUTE),
    jitter=jitters,
    policy=policies,
)
def test_a_hindered_attempt_ends_nothing(
    *, failures: int, ago: Micros, failed: Micros, took: Micros, jitter: float, policy: Policy
) -> None:
    """Whatever the clocks said before, there is another attempt, ahead and no later than the deletion."""
    before = HEALTHY
    if failures:
        before = replace(failing(failures=failures, since=NOW - ago), last_failure_at=NOW - ago + failed)
    now = NOW + took
    after = kept(settled(before, HINDERED, started=NOW, now=now, jitter=jitter, policy=policy))
    deletion = delivery.deletion_at(after, policy)
    assert deletion is not None
    assert after.failing_since is not None
    assert after.failing_since <= now
    assert after.next_attempt_at is not None
    assert now + min(policy.retry_first, policy.retry_max, policy.give_up_after) // 2 <= after.next_attempt_at
    assert after.next_attempt_at <= min(deletion, now + policy.retry_max)


@given(policy=policies, jitter=jitters, outages=st.lists(st.integers(0, 3 * DAY), max_size=4))
def test_a_dead_target_is_tried_at_its_deletion_and_not_before_its_time(
    policy: Policy, jitter: float, outages: list[Micros]
) -> None:
    """A whole life: it ends, by an attempt, after at least the span it was promised of our being there."""
    health, now, away = HEALTHY, NOW, 0
    tolerated = min(MINUTE, policy.give_up_after // 20)
    for turn in range(100_000):
        verdict = settled(health, REFUSED, started=now, jitter=jitter, policy=policy)
        if isinstance(verdict, End):
            break
        health = verdict.health
        assert health.next_attempt_at is not None
        late = outages[turn] if turn < len(outages) else 0
        away += late if late > tolerated else 0
        now = max(health.next_attempt_at + late, now + 1)
        if turn > 2_000:
            return  # a back-off of microseconds over days: the bound was never in question
    assert now - NOW - away >= policy.give_up_after


# -- what people are told --------------------------------------------------------------------------


@pytest.mark.parametrize(("failures", "retries"), [(0, 0), (1, 0), (2, 1), (10, 9)])
def test_the_first_failure_is_not_a_retry(failures: int, retries: int) -> None:
    """Contract §12.17."""
    assert delivery.retry_count(replace(HEALTHY, failures=failures)) == retries


def test_a_healthy_webhook_has_no_deletion_ahead() -> None:
    assert delivery.deletion_at(HEALTHY, POLICY) is None
    assert delivery.deletion_at(failing(since=NOW), POLICY) == NOW + DAY


# -- the cut of a batch ----------------------------------------------------------------------------


def event(position: int, size: int = 10) -> Event:
    return Event(position, b"x" * size)


def cut_both(page: tuple[Event, ...], accepted: list[bool], **more: Any) -> Batch:
    """Cut a page; filters that take everything come to the same as none."""
    batch = delivery.cut(page, accepted, **more)
    if all(accepted):
        assert delivery.cut(page, None, **more) == batch
    return batch


def cut(
    positions: list[int],
    accepted: str,
    *,
    cursor: int = 0,
    batch_end: int | None = None,
    batch_max: int = 3,
    last: int | None = None,
) -> tuple[list[int], int]:
    """Cut a page of small events; `accepted` has a + for each that the filters take."""
    batch = cut_both(
        tuple(event(position) for position in positions),
        [mark == "+" for mark in accepted],
        cursor=cursor,
        batch_end=batch_end,
        batch_max=batch_max,
        last=last,
    )
    return [taken.position for taken in batch.events], batch.end


@pytest.mark.parametrize(
    ("positions", "accepted", "batch_end", "last", "taken", "end"),
    [
        # nothing there, nothing known behind
        ([], "", None, None, [], 5),
        # nothing there, and nothing left: the cursor is done
        ([], "", None, 9, [], 9),
        ([6, 7, 8], "+++", None, None, [6, 7, 8], 8),
        ([6, 7, 8], "+++", None, 8, [6, 7, 8], 8),
        # what is refused behind the last taken is passed over
        ([6, 7, 8], "+--", None, None, [6], 8),
        ([6, 7, 8], "---", None, None, [], 8),
        # the whole page was looked at, and `last` says that nothing else is there
        ([6, 7, 8], "+--", None, 20, [6], 20),
        # full: ends at the last taken and what was refused right behind it
        ([6, 7, 8, 9], "++++", None, None, [6, 7, 8], 8),
        ([6, 7, 8, 9, 10, 11], "+++--+", None, None, [6, 7, 8], 10),
        ([6, 7, 8, 9], "+++-", None, None, [6, 7, 8], 9),
        # full, so `last` does not hold
        ([6, 7, 8, 9], "++++", None, 9, [6, 7, 8], 8),
        # a batch that failed ends where it ended
        ([6, 7, 8], "+++", 7, None, [6, 7], 7),
        ([6, 7, 8], "+-+", 7, None, [6], 7),
        ([6, 7, 8], "+++", 7, 7, [6, 7], 7),
        ([6, 7], "++", 7, 7, [6, 7], 7),
        # its last rows are gone meanwhile
        ([6], "+", 7, 7, [6], 7),
        # gaps of other webhooks' events are nothing
        ([6, 600, 601], "+++", None, None, [6, 600, 601], 601),
    ],
)
def test_what_one_delivery_carries(
    *,
    positions: list[int],
    accepted: str,
    batch_end: int | None,
    last: int | None,
    taken: list[int],
    end: int,
) -> None:
    assert cut(positions, accepted, cursor=5, batch_end=batch_end, last=last) == (taken, end)


def test_a_hundred_events_at_most() -> None:
    page = tuple(event(position) for position in range(1, 151))
    batch = cut_both(page, [True] * 150, cursor=0, batch_end=None, batch_max=POLICY.batch_max)
    assert len(batch.events) == batch.end == 100


def test_the_body_is_a_mebibyte_at_most() -> None:
    """The whole body, envelope and commas included: a receiver that takes 1 MiB takes it."""
    size = 8_191
    page = tuple(event(position, size) for position in range(1, 200))
    batch = cut_both(page, [True] * len(page), cursor=0, batch_end=None, batch_max=1_000)
    body = envelope([taken.wire for taken in batch.events])
    assert len(body) <= BATCH_BYTES_MAX < len(body) + size + 1
    assert batch.end == len(batch.events)


@pytest.mark.parametrize("behind", [0, 1, 2])
def test_one_oversized_event_goes_alone(behind: int) -> None:
    """Else its webhook would stand still."""
    page = (event(1, BATCH_BYTES_MAX + 1), *(event(2 + index) for index in range(behind)))
    batch = cut_both(page, [True] * len(page), cursor=0, batch_end=None, batch_max=100)
    assert batch == Batch((page[0],), 1)


def test_an_oversized_event_waits_for_the_next_delivery() -> None:
    page = (event(1), event(2, BATCH_BYTES_MAX + 1))
    batch = cut_both(page, [True, True], cursor=0, batch_end=None, batch_max=100)
    assert batch == Batch((page[0],), 1)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 60), st.booleans(), st.integers(1, 5)), max_size=40),
    batch_max=st.integers(1, 10),
    bytes_max=st.integers(20, 200),
    complete=st.booleans(),
)
def test_batch_after_batch_delivers_each_accepted_event_once_in_order(
    *, sizes: list[tuple[int, bool, int]], batch_max: int, bytes_max: int, complete: bool
) -> None:
    """Any page, cut to the end: nothing skipped, nothing twice; and a failed batch is cut the same again."""
    page, accepted, position = [], [], 0
    for size, wanted, gap in sizes:
        position += gap
        page.append(event(position, size))
        accepted.append(wanted)
    cursor, got = 0, list[int]()
    while rest := [
        (each, wanted) for each, wanted in zip(page, accepted, strict=True) if each.position > cursor
    ]:
        events = tuple(each for each, _ in rest)
        wants = [wanted for _, wanted in rest]
        last = position if complete else None

        def again(
            batch_end: int | None,
            cursor: int = cursor,
            events: tuple[Event, ...] = events,
            wants: list[bool] = wants,
            last: int | None = last,
        ) -> Batch:
            return cut_both(
                events,
                wants,
                cursor=cursor,
                batch_end=batch_end,
                batch_max=batch_max,
                last=batch_end or last,
                bytes_max=bytes_max,
            )

        batch = again(None)
        assert again(batch.end) == batch
        assert batch.end > cursor
        assert len(batch.events) <= batch_max
        if len(batch.events) > 1:
            assert len(envelope([taken.wire for taken in batch.events])) <= bytes_max
        got += [taken.position for taken in batch.events]
        cursor = batch.end
    assert got == [each.position for each, wanted in zip(page, accepted, strict=True) if wanted]
    assert cursor == position
