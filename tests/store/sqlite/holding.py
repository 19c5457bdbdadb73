"""A process of its own that holds leases until it is killed: `python -m tests.store.sqlite.holding PATH NOW`."""

import asyncio
import sys
import time

from tidings.limits import HELD_BYTES_MAX
from tidings.model import ClaimRequest
from tidings.store.sqlite import open_store

LEASE = 3_600_000_000


async def hold(path: str, now: int) -> None:
    """Claim all there is, say how much, and wait for the end."""
    store = open_store(path, migrate=False, generation="g", key_id="k")
    holder = await store.take_holder(now=now)
    request = ClaimRequest(
        now=now,
        holder=holder,
        lease=LEASE,
        limit=100,
        unproven_limit=100,
        failing_limit=100,
        failing_first=0,
        quiet_first=0,
        proven_since=0,
        per_origin=100,
        in_flight={},
        batch_max=100,
        room=HELD_BYTES_MAX,
        wait_max=LEASE,
    )
    claimed = await store.claim(request)
    print(len(claimed.claims), flush=True)
    time.sleep(600)


if __name__ == "__main__":
    asyncio.run(hold(sys.argv[1], int(sys.argv[2])))
