"""The deliveries in flight, and how much room is left: in total, per origin, for which webhooks, and in bytes."""

from dataclasses import dataclass, field
from typing import Final

from tidings.limits import BATCH_BYTES_MAX, EVENT_BYTES_MAX, HELD_BYTES_MAX
from tidings.model import Claim, Lease

# Failing webhooks, and each origin, get at most this fraction of the slots; failing ones, of the bytes held, too.
SHARE: Final = 4
# Those that are not proven get half at most, and ever less, down to that fraction too, the more of their first
# deliveries fail: thousands of targets that have died since they were last heard of cannot take the rest, while each
# has yet to fail for the first time.
UNPROVEN_SHARE: Final = 2
# Webhooks with events go before others, and under load would take every slot. So for so many that were served one that
# fails goes first, and one whose heartbeat is due, as long as no more than this fraction of the slots is held by those
# that fail, or by heartbeats: a retry or a heartbeat that its target never answers holds a slot for a whole timeout.
FIRST_SHARE: Final = 16
# Of so many outcomes, or about, the last ones decide how many fail.
OUTCOMES_REMEMBERED: Final = 64


@dataclass(slots=True)
class Slots:
    """What is in flight. A slot is taken when its claim is made, and free again when its record is written.

    Kept by lease, not by webhook: a claim may come before the word that the record of the lease before it is written,
    where both were of one commit.
    """

    total: int
    claims: dict[Lease, Claim] = field(default_factory=dict)
    # How many each origin has in flight; only those that have any.
    origins: dict[int, int] = field(default_factory=dict)
    failing: int = 0
    quiet: int = 0
    unproven: int = 0
    # How many others were served since a failing one was, and since a heartbeat was sent.
    since_failing: int = 0
    since_quiet: int = 0
    # Bytes that are held beyond one event of the largest size for each: for failing webhooks, and for the others.
    failing_bytes_held: int = 0
    bytes_held: int = 0
    # Which part of the last deliveries to webhooks that were neither proven nor failing went well.
    going_well: float = 1.0

    @property
    def free(self) -> int:
        return self.total - len(self.claims)

    @property
    def failing_free(self) -> int:
        """A retry carries what failed, whatever its size: there is to be room for the largest batch."""
        batches = (HELD_BYTES_MAX // SHARE - self.failing_bytes_held) // BATCH_BYTES_MAX
        return min(max(1, self.total // SHARE) - self.failing, batches)

    @property
    def room(self) -> int:
        """Bytes that pages of webhooks that are not failing may hold."""
        return HELD_BYTES_MAX - HELD_BYTES_MAX // SHARE - self.bytes_held

    @property
    def failing_first(self) -> int:
        return self._first(self.failing, self.since_failing)

    @property
    def quiet_first(self) -> int:
        return self._first(self.quiet, self.since_quiet)

    def _first(self, in_flight: int, since: int) -> int:
        return max(0, min(since // FIRST_SHARE, max(1, self.total // FIRST_SHARE) - in_flight))

    @property
    def unproven_free(self) -> int:
        least, most = max(1, self.total // SHARE), self.total - self.total // UNPROVEN_SHARE
        return least + int((most - least) * self.going_well) - self.unproven

    @property
    def per_origin(self) -> int:
        return max(1, self.total // SHARE)

    @property
    def held(self) -> tuple[int, ...]:
        """The webhooks in flight."""
        return tuple({each.webhook: None for each in self.claims})

    def take(self, claim: Claim) -> None:
        self.claims[claim.lease] = claim
        self.origins[claim.origin] = self.origins.get(claim.origin, 0) + 1
        failing, quiet = _kind(claim)
        self.failing += failing
        self.quiet += quiet
        self.unproven += not claim.proven
        self.since_failing = 0 if failing else self.since_failing + 1
        self.since_quiet = 0 if quiet else self.since_quiet + 1
        self._hold(claim, _beyond(claim))

    def replace(self, claim: Claim) -> None:
        """Hold no more for a claim than what is left of it: its batch was cut, or the next follows under its lease."""
        self._hold(claim, _beyond(claim) - _beyond(self.claims[claim.lease]))
        self.claims[claim.lease] = claim

    def learn(self, lease: Lease, *, delivered: bool) -> None:
        """Take note of what a delivery came to."""
        claim = self.claims[lease]
        if not claim.proven and not claim.health.failures:
            self.going_well += (delivered - self.going_well) / OUTCOMES_REMEMBERED

    def release(self, lease: Lease) -> None:
        claim = self.claims.pop(lease)
        self._hold(claim, -_beyond(claim))
        failing, quiet = _kind(claim)
        self.failing -= failing
        self.quiet -= quiet
        self.unproven -= not claim.proven
        left = self.origins[claim.origin] - 1
        if left:
            self.origins[claim.origin] = left
        else:
            del self.origins[claim.origin]

    def _hold(self, claim: Claim, more: int) -> None:
        if claim.health.failures:
            self.failing_bytes_held += more
        else:
            self.bytes_held += more


def _beyond(claim: Claim) -> int:
    return max(0, claim.bytes_held - EVENT_BYTES_MAX)


def _kind(claim: Claim) -> tuple[bool, bool]:
    """Whether a claim is for a failing webhook, and whether for one that has no events; never both."""
    failing = claim.health.failures > 0
    return failing, not failing and claim.head <= claim.cursor
