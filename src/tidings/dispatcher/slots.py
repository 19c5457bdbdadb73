"""The deliveries in flight, and how much room is left: in total, per origin, and for failing webhooks."""

from dataclasses import dataclass, field
from typing import Final

from tidings.model import Claim, Lease

# Failing webhooks, and each origin, get at most this fraction of the slots.
SHARE: Final = 4
# And this fraction is kept for proven ones: thousands of targets that have died since they were last heard of cannot
# take it, while each has yet to fail for the first time.
PROVEN_SHARE: Final = 2


@dataclass(slots=True)
class Slots:
    """What is in flight. A slot is taken when its claim is made, and free again when its record is durable.

    Kept by lease, not by webhook: a claim may come before the word that the record of the lease before it is durable,
    where both were of one commit.
    """

    total: int
    claims: dict[Lease, Claim] = field(default_factory=dict)
    # How many each origin has in flight; only those that have any.
    origins: dict[int, int] = field(default_factory=dict)
    failing: int = 0
    unproven: int = 0

    @property
    def free(self) -> int:
        return self.total - len(self.claims)

    @property
    def failing_free(self) -> int:
        return max(1, self.total // SHARE) - self.failing

    @property
    def unproven_free(self) -> int:
        return self.total - self.total // PROVEN_SHARE - self.unproven

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
        self.failing += bool(claim.health.failures)
        self.unproven += not claim.proven

    def go_on(self, claim: Claim) -> None:
        """The next batch takes the place of the one before it, under the same lease."""
        self.claims[claim.lease] = claim

    def release(self, lease: Lease) -> None:
        claim = self.claims.pop(lease)
        self.failing -= bool(claim.health.failures)
        self.unproven -= not claim.proven
        left = self.origins[claim.origin] - 1
        if left:
            self.origins[claim.origin] = left
        else:
            del self.origins[claim.origin]
