"""How many events a second the API takes: published by several callers, on disk before each is answered."""

import json

from bench import poster
from bench.filling import project
from bench.results import Row
from bench.running import changed, prepare, running
from bench.scenarios.context import Bench

# Callers at once, by the events in a call: as many as keep the service busy.
CALLERS = 64
CALLERS_OF_LARGE = 8
LARGE = 1_000


def publishing(bench: Bench) -> list[Row]:
    """For each size of call: events a second. The API alone; nothing is delivered meanwhile."""
    return [_publishing(bench, size) for size in bench.sizes.publish_sizes]


def _publishing(bench: Bench, size: int) -> Row:
    callers = CALLERS_OF_LARGE if size >= LARGE else CALLERS
    with bench.folder() as folder:
        prepare(folder, webhooks=1, origins=["http://127.0.0.1:9"])
        with running(folder, "--no-dispatch") as made:
            request = poster.Request(
                url=f"{made.service.base_url}/events",
                body=json.dumps({"data": [changed(project(0)) for _ in range(size)]}),
                headers={
                    "Authorization": f"Bearer {made.service.token}",
                    "Content-Type": "application/json",
                },
            )
            rates = [
                poster.posts_per_second(folder, request, seconds=bench.sizes.seconds, connections=callers)
                for _ in range(bench.sizes.runs)
            ]
    calls = f"{size:,} event{'s' if size > 1 else ''} a call, {callers} callers ({poster.TOOL})"
    return Row(
        name=f"publish_{size}",
        what=f"events taken by the API, {calls}",
        unit="events/s",
        figures=[size * rate for rate in rates],
    )
