"""One attempt, as a value going through named steps: cut → sign → (post) → settle. Nothing here waits or writes.

    Claim ──prepare──▶ Sending | Record        Sending, Reply ──conclude──▶ Record

Between the two the dispatcher posts. There is no task per delivery: what has to be known when the reply comes is in
`Sending`, and making a task for it would cost as much as signing the delivery.
"""

import hashlib
import logging
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from tidings import delivery as policies
from tidings import signing
from tidings.delivery import Policy
from tidings.limits import (
    ATTEMPT_EXCERPT_BYTES_MAX,
    BATCHES_PER_LEASE_MAX,
    GOING_ON_MAX,
    LEASE_SLACK,
    MICROSECONDS_PER_SECOND,
)
from tidings.matching import accepted
from tidings.model import (
    Answer,
    Attempt,
    Batch,
    Claim,
    Delivered,
    Delivery,
    Gone,
    Health,
    Keep,
    Micros,
    NoAnswer,
    Outcome,
    Position,
    Record,
    Refused,
    Reply,
    SealedSecret,
    Send,
    Trouble,
)
from tidings.sealing import UnsealError
from tidings.wire.events import envelope

_RESULTS: Final = {Delivered: "delivered", Refused: "refused", Gone: "gone"}

_position = attrgetter("position")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Clocks:
    """The time of day, a clock that only goes forward, and the dice; the first two in microseconds."""

    now: Callable[[], Micros]
    elapsed: Callable[[], Micros]
    jitter: Callable[[], float]


Unseal = Callable[[SealedSecret, str], str]
"""Opens a sealed secret of a webhook (its gid); may raise `UnsealError`."""


@dataclass(frozen=True, slots=True)
class Means:
    """What an attempt is made with."""

    send: Send
    policy: Policy
    clocks: Clocks
    unseal: Unseal


class Carried(Struct, frozen=True):
    """What has to be known of a batch once it is sent: how many events it has, and where it ends."""

    events: int
    end: Position


class Sending(Struct, frozen=True):
    """What the reply to a delivery will be settled with.

    There are hundreds, each for as long as a target takes to answer: they hold neither the delivery nor its events, and
    of the page no more than what may follow under the same lease.
    """

    claim: Claim
    batch: Carried
    name: str
    started: Micros
    # By the clock that only goes forward.
    began: Micros


def prepare(claim: Claim, means: Means, *, withdrawn: bool) -> tuple[Sending, Delivery] | Record:
    """Take a claim up to the moment of sending; gives what is to be sent, or recorded because nothing is.

    `withdrawn` says that the webhook ended while it was being claimed: then nothing is sent.
    """
    batch = _cut(claim, means.policy)
    started = means.clocks.now()
    if not batch.events:
        silent = _still_silent(claim, means, started)
        if silent is not None:
            return _unsent(claim, silent, cursor=batch.end, now=started)
    # The lease must cover the whole delivery, or another process might begin one beside it.
    if withdrawn or started + means.policy.delivery_timeout > claim.lease.until:
        return _unsent(claim, claim.health, cursor=claim.cursor, now=started)
    name = delivery_id(claim, batch)
    carried = Carried(len(batch.events), batch.end)
    body = envelope([event.wire for event in batch.events])
    try:
        secrets = _secrets(claim, means, started)
    except UnsealError as error:
        logger.error("%s", error)
        reply = NoAnswer(Trouble.SEALED, str(error), ours=True)
        return _settle(claim, carried, reply, means, name=name, started=started, took=0)
    headers = signing.delivery_headers(
        secrets,
        body,
        webhook=claim.gid,
        delivery=name,
        timestamp_seconds=started // MICROSECONDS_PER_SECOND,
    )
    delivery = Delivery(claim.target, headers, body, means.policy.delivery_timeout)
    left = _less(claim, batch, body)
    return Sending(left, carried, name, started, means.clocks.elapsed()), delivery


def conclude(sent: Sending, reply: Reply, means: Means) -> Record:
    """Say what is to be recorded of a delivery that got this reply."""
    took = max(0, means.clocks.elapsed() - sent.began)
    return _settle(sent.claim, sent.batch, reply, means, name=sent.name, started=sent.started, took=took)


def go_on(sent: Sending, record: Record) -> Claim:
    """What is to be done next under a lease that was kept."""
    return replace(
        sent.claim,
        cursor=record.cursor,
        batch_end=None,
        health=record.verdict.health,
        delivered=sent.claim.delivered + 1,
    )


def _less(claim: Claim, batch: Batch, body: bytes) -> Claim:
    """A claim less the batch that was cut from its page, and less the rest if that will not follow under its lease."""
    may_go_on = claim.proven and claim.delivered + 1 < BATCHES_PER_LEASE_MAX
    left = claim.page[bisect_right(claim.page, batch.end, key=_position) :] if may_go_on else ()
    if left:
        return replace(claim, page=left)
    return replace(claim, page=(), filters=(), bytes_held=len(body))


def _may_go_on(claim: Claim, now: Micros, policy: Policy) -> bool:
    """Whether what is left of the page may be sent under the same lease, once the batch before it was delivered."""
    return (
        bool(claim.page) and now + policy.delivery_timeout <= claim.lease.until - LEASE_SLACK + GOING_ON_MAX
    )


def _cut(claim: Claim, policy: Policy) -> Batch:
    return policies.cut(
        claim.page,
        accepted(claim.filters, claim.page) if claim.filters else None,
        cursor=claim.cursor,
        batch_end=claim.batch_end,
        batch_max=policy.batch_max,
        last=None if claim.more else claim.batch_end or claim.head,
    )


def _still_silent(claim: Claim, means: Means, now: Micros) -> Health | None:
    """The health of a webhook that wants nothing of its page, if no sign of life is due either; None if one is.

    Refused events may come without end, so neither a heartbeat nor a retry waits for the last of them.
    """
    if claim.health.failures:
        return None
    if claim.health.heartbeat_at > now:
        return claim.health
    return policies.not_yet_quiet(claim.health, now=now, jitter=means.clocks.jitter(), policy=means.policy)


def _unsent(claim: Claim, health: Health, *, cursor: Position, now: Micros) -> Record:
    """Nothing is to be sent, or it must not be sent now: neither a success nor a failure."""
    return Record(
        lease=claim.lease,
        verdict=Keep(health),
        cursor=cursor,
        batch_end=claim.batch_end if cursor < (claim.batch_end or 0) else None,
        epoch=claim.epoch,
        attempt=None,
        settled_at=now,
        steady=health is claim.health and not health.failures and claim.batch_end is None,
    )


def _secrets(claim: Claim, means: Means, now: Micros) -> list[str]:
    return [
        means.unseal(secret, claim.gid)
        for secret in claim.secrets
        if secret.valid_until is None or secret.valid_until > now
    ]


def _settle(
    claim: Claim, batch: Carried, reply: Reply, means: Means, *, name: str, started: Micros, took: Micros
) -> Record:
    """Decide what the reply means. Pure, but for one throw of the dice."""
    now = started + took
    outcome = policies.judge(reply, now=now, policy=means.policy)
    verdict = policies.settle(
        claim.health,
        outcome,
        started=started,
        now=now,
        jitter=means.clocks.jitter(),
        policy=means.policy,
    )
    delivered = isinstance(outcome, Delivered)
    before, after = claim.health, verdict.health
    steady = (
        delivered
        and not before.failures
        and claim.batch_end is None
        and after.heartbeat_at == before.heartbeat_at
    )
    return Record(
        lease=claim.lease,
        verdict=verdict,
        cursor=batch.end if delivered or not batch.events else claim.cursor,
        batch_end=batch.end if batch.events and not delivered else None,
        epoch=claim.epoch,
        attempt=_logged(batch, reply, outcome, name=name, started=started, took=took),
        settled_at=now,
        steady=steady,
        onward=steady and _may_go_on(claim, now, means.policy),
    )


def delivery_id(claim: Claim, batch: Batch) -> str:
    """Name a delivery by what it carries, so that the same batch has the same id however often it is sent.

    Even after a process was killed before it could record, the batch has the same id when it is sent again, unless
    events that came since have made it longer; events that the filters refuse do not. A heartbeat carries nothing and
    is named by its claim.
    """
    what = f"{claim.cursor}-{batch.events[-1].position}" if batch.events else f"heartbeat-{claim.lease.fence}"
    return hashlib.sha256(f"{claim.gid}/{claim.epoch}/{what}".encode()).hexdigest()[:32]


def _logged(
    batch: Carried, reply: Reply, outcome: Outcome, *, name: str, started: Micros, took: Micros
) -> Attempt:
    status: int | None
    match reply:
        case Answer(status=status, body=body):
            excerpt = policies.readable(body)
            result = _RESULTS[type(outcome)]
        case NoAnswer(trouble=trouble, text=excerpt):
            status, result = None, trouble.value
    return Attempt(
        delivery=name,
        started_at=started,
        duration=took,
        events=batch.events,
        heartbeat=not batch.events,
        status=status,
        result=result,
        excerpt=policies.cut_text(excerpt, ATTEMPT_EXCERPT_BYTES_MAX) if excerpt else "",
    )
