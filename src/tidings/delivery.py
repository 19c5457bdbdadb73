"""The delivery policy: what an answer means, what becomes of the webhook, when it is due again.

Nothing here waits, reads a clock or throws dice. The engine asks, the policy answers:

    Reply ──judge──▶ Outcome ──settle──▶ Verdict (Keep | End)

A webhook is healthy (`failures == 0`), failing (an unbroken run since `failing_since`) or ended. While it fails,
`next_attempt_at` says when it is tried again: never later than the moment of its deletion, so that one attempt is
always made then, and only that attempt can end it. Time in which nobody was trying (our own outage, a clock that
jumped) does not count towards the deletion: `settle` moves the start of the run forward by as much as the attempt
was begun late. Nor does time in which we tried and could not (no descriptor left, a dead egress proxy): after such an
attempt the run is as long as it was before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import assert_never

from msgspec.structs import replace

from tidings.limits import (
    BATCH_BYTES_MAX,
    FAILURE_CONTENT_BYTES_MAX,
    MICROSECONDS_PER_SECOND,
)
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
    Position,
    Refused,
    Reply,
    Verdict,
)

# An attempt begun later than this was kept back by us (outage, clock jump), not by ordinary queueing. For short
# lives in sandboxes and tests: this fraction of the life.
LATENESS_TOLERATED: Micros = 60 * MICROSECONDS_PER_SECOND
_LATENESS_FRACTION = 20

# Moments in a heartbeat's interval at which heartbeats may be due.
HEARTBEAT_MOMENTS = 10_000

# Doubling further passes any sane cap; this bounds the shift.
_DOUBLINGS_MAX = 64
# Digits of a Retry-After in seconds that can still matter: 10**9 s is past every cap.
_RETRY_AFTER_DIGITS_MAX = 9
# What the body of a delivery holds around its events: `{"events":[` and `]}`.
_ENVELOPE_BYTES = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The durations (microseconds) and bounds of delivering; the sandbox's speed divides the first four."""

    retry_first: Micros = 10 * MICROSECONDS_PER_SECOND
    retry_max: Micros = 3_600 * MICROSECONDS_PER_SECOND
    give_up_after: Micros = 24 * 3_600 * MICROSECONDS_PER_SECOND
    heartbeat_every: Micros = 8 * 3_600 * MICROSECONDS_PER_SECOND
    delivery_timeout: Micros = 10 * MICROSECONDS_PER_SECOND
    batch_max: int = 100
    strict_success: bool = False


# -- what an answer means --------------------------------------------------------------------------


def judge(reply: Reply, *, now: Micros, policy: Policy) -> Outcome:
    """Say what a reply to a delivery amounts to (contract §12.14, .15, .18)."""
    match reply:
        case Answer(status=status):
            if _succeeded(status, strict=policy.strict_success):
                return Delivered()
            content = failure_content(reply)
            if status == 410:
                return Gone(content)
            return Refused(content, retry_after(reply.header("retry-after"), now=now))
        case NoAnswer(text=text, ours=ours):
            return Hindered(text) if ours else Refused(text)
        case _:
            assert_never(reply)


def _succeeded(status: int, *, strict: bool) -> bool:
    return status in (200, 204) if strict else 200 <= status < 300


def failure_content(answer: Answer) -> str:
    """Render `<code> <reason>`, a blank line, the body; cut at 4 KiB (contract §12.18)."""
    head = f"{answer.status} {answer.reason}".rstrip()
    body = readable(answer.body)
    content = f"{head}\n\n{body}" if body else head
    return cut_text(content, FAILURE_CONTENT_BYTES_MAX)


def readable(body: bytes) -> str:
    """A receiver's bytes as text that any store takes: no NUL, and whatever is not UTF-8 replaced."""
    return body.decode("utf-8", "replace").replace("\x00", "\ufffd") if body else ""


def cut_text(text: str, bytes_max: int) -> str:
    """Cut a text to so many bytes of UTF-8, never inside a character."""
    raw = text.encode()
    return text if len(raw) <= bytes_max else raw[:bytes_max].decode("utf-8", "ignore")


def retry_after(value: str | None, *, now: Micros) -> Micros:
    """Read `Retry-After`, seconds or an HTTP date (RFC 9110 §10.2.3), as a wait; 0 for none or nonsense."""
    if value is None:
        return 0
    value = value.strip()
    if value.isascii() and value.isdigit():
        return int(value.lstrip("0")[:_RETRY_AFTER_DIGITS_MAX] or "0") * MICROSECONDS_PER_SECOND
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    since_epoch = date - datetime(1970, 1, 1, tzinfo=UTC)
    return max(0, int(since_epoch.total_seconds()) * MICROSECONDS_PER_SECOND - now)


# -- what becomes of the webhook -------------------------------------------------------------------


def settle(
    health: Health, outcome: Outcome, *, started: Micros, now: Micros, jitter: float, policy: Policy
) -> Verdict:
    """Say what becomes of a webhook after one attempt.

    `started` is when the attempt began; `now` is that plus the time it took (measured, so that a clock turned in
    between does no harm); `jitter` is in [0, 1).
    """
    match outcome:
        case Delivered():
            return Keep(
                replace(
                    health,
                    last_success_at=now,
                    failing_since=None,
                    failures=0,
                    next_attempt_at=None,
                    heartbeat_at=_moved_heartbeat(health, now, jitter=jitter, policy=policy),
                )
            )
        case Gone(content):
            return End(_failed(health, content, since=health.failing_since or now, now=now), EndReason.GONE)
        case Refused(content, asked):
            since = _run_start(health, started=started, now=now, policy=policy)
            ends_at = since + policy.give_up_after
            failed = _failed(health, content, since=since, now=now)
            if now >= ends_at:
                return End(failed, EndReason.EXPIRED)
            wait = max(backoff(health.failures, jitter, policy), min(asked, policy.retry_max))
            return Keep(replace(failed, next_attempt_at=min(now + wait, ends_at)))
        case Hindered(content):
            wait = min(backoff(health.failures, jitter, policy), policy.give_up_after)
            # The next attempt, which may be the last, comes no later than the deletion.
            run = min(_run_length(health), policy.give_up_after - wait)
            return Keep(
                replace(_failed(health, content, since=now - run, now=now), next_attempt_at=now + wait)
            )
        case _:
            assert_never(outcome)


def _failed(health: Health, content: str, *, since: Micros, now: Micros) -> Health:
    return replace(
        health,
        last_failure_at=now,
        last_failure_content=content,
        failing_since=since,
        failures=health.failures + 1,
        next_attempt_at=None,
    )


def _run_start(health: Health, *, started: Micros, now: Micros, policy: Policy) -> Micros:
    """When the unbroken run of failures began, not counting time in which nobody was trying."""
    if health.failing_since is None:
        return now
    due = started if health.next_attempt_at is None else health.next_attempt_at
    late = started - due
    if late > min(LATENESS_TOLERATED, policy.give_up_after // _LATENESS_FRACTION):
        return health.failing_since + late
    # A clock that was set back must not leave the run's start in the future.
    return min(health.failing_since, now)


def _run_length(health: Health) -> Micros:
    """How long the run of failures was at its last attempt."""
    if health.failing_since is None or health.last_failure_at is None:
        return 0
    return max(0, health.last_failure_at - health.failing_since)


def backoff(retries: int, jitter: float, policy: Policy) -> Micros:
    """Double the first wait up to the cap, then take between half and all of it (contract §12.16).

    Never more than the cap: a receiver that was away for an hour must hear from us within about an hour of its
    return, so the cap is a promise and jitter may not exceed it.
    """
    assert 0 <= jitter < 1, "jitter is a fraction"
    wait = min(policy.retry_first << min(retries, _DOUBLINGS_MAX), policy.retry_max)
    return int(wait * (0.5 + jitter / 2))


def next_heartbeat(now: Micros, *, jitter: float, policy: Policy) -> Micros:
    """When a quiet webhook is told that we live: 0.9 to 1.0 of the interval on, so that they spread.

    Times are multiples of a ten-thousandth of the interval (of 8 h: 2.9 s), so that those of very many webhooks come
    together: a turn for each alone would keep an idle service busy.
    """
    interval = policy.heartbeat_every
    # Rounded up, so that it is never sooner than 0.9; the last tenth has as many moments as jitter can choose from.
    moment = -(-now * HEARTBEAT_MOMENTS // interval)
    moment += HEARTBEAT_MOMENTS * 9 // 10 + int(jitter * (HEARTBEAT_MOMENTS // 10))
    return moment * interval // HEARTBEAT_MOMENTS


def _moved_heartbeat(health: Health, now: Micros, *, jitter: float, policy: Policy) -> Micros:
    """Leave a heartbeat's time alone until it comes, then see whether the webhook was quiet (`not_yet_quiet`).

    Moving it with each delivery would make the one index that orders all quiet webhooks the busiest of all. A time
    further ahead than the interval was set by a clock that since went back.
    """
    if now < health.heartbeat_at <= now + policy.heartbeat_every:
        return health.heartbeat_at
    return next_heartbeat(now, jitter=jitter, policy=policy)


def not_yet_quiet(health: Health, *, now: Micros, jitter: float, policy: Policy) -> Health | None:
    """Where a heartbeat is due on a webhook that was served since: its health with the time it is due then."""
    served = health.last_success_at
    if served is None or not 0 <= now - served < policy.heartbeat_every * 9 // 10:
        return None
    return replace(health, heartbeat_at=next_heartbeat(served, jitter=jitter, policy=policy))


def deletion_at(health: Health, policy: Policy) -> Micros | None:
    """When a failing webhook will be deleted if nothing succeeds before; None while it is healthy."""
    return None if health.failing_since is None else health.failing_since + policy.give_up_after


def retry_count(health: Health) -> int:
    """Failed retries since the last success: the first failure is not a retry (contract §12.17)."""
    return max(0, health.failures - 1)


# -- the cut of a batch ----------------------------------------------------------------------------


def cut(
    page: tuple[Event, ...],
    accepted: Sequence[bool] | None,
    *,
    cursor: Position,
    batch_end: Position | None,
    batch_max: int,
    last: Position | None = None,
    bytes_max: int = BATCH_BYTES_MAX,
) -> Batch:
    """Take from a page what one delivery carries: in log order, at most so many events and bytes.

    `accepted` says of each event whether the filters let it through; None: there are none, and all are let through.

    The batch ends at the last event looked at, so refused events behind the last delivered one are passed over for
    good; where the whole page was looked at and `last` says that nothing is left behind it, the batch ends there. A
    batch that failed before ends where it ended then. At least one accepted event is taken, whatever its
    size, else a webhook could stand still.
    """
    if accepted is None:
        first = page[:batch_max]
        beyond = batch_end is not None and bool(first) and first[-1].position > batch_end
        if not beyond and _bytes_of(first) <= bytes_max:
            end = first[-1].position if first else cursor
            return Batch(first, max(end, last or end) if len(first) == len(page) else end)
        accepted = [True] * len(page)
    taken: list[Event] = []
    size = _ENVELOPE_BYTES
    end = cursor
    for event, wanted in zip(page, accepted, strict=True):
        if batch_end is not None and event.position > batch_end:
            break
        if wanted:
            if len(taken) == batch_max or (taken and size + len(event.wire) > bytes_max):
                break
            taken.append(event)
            size += len(event.wire) + 1
        end = event.position
    else:
        if last is not None:
            end = max(end, last)
    return Batch(tuple(taken), end)


def _bytes_of(events: Sequence[Event]) -> int:
    """The length of the body that carries these events, or one more."""
    return _ENVELOPE_BYTES + sum([len(event.wire) for event in events]) + len(events)
