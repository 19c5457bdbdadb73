"""What killed processes cost: a few of the kills that `make kill` makes by the hundred."""

import random

from tests.kill import campaign

from bench.results import Goal, Row
from bench.scenarios.context import Bench


def kills(bench: Bench) -> list[Row]:
    """Services under load are killed at random moments; every acknowledged event is looked for at its receivers."""
    result = campaign.run(kills=bench.sizes.kills, seed=random.randrange(1_000_000))
    falls = [fall for found in result.findings for fall in found.repeats]
    in_flight = sum(fall.in_flight for fall in falls)
    where = f"{result.kills} SIGKILLs under load (seed {result.seed})"
    return [
        Row(
            name="lost",
            what=f"events lost over {where}",
            unit="events",
            figures=[float(sum(len(found.lost) for found in result.findings))],
            goal=Goal(at_least=0, aim=0, of="figure", below=True),
            note="`make kill` kills 200 and more, and says where they fell.",
        ),
        Row(
            name="repeated",
            what=f"batches delivered twice over {where}",
            unit="batches",
            figures=[float(sum(fall.repeated for fall in falls))],
            yardstick="batches in flight when they fell",
            against=[float(in_flight)] if in_flight else [],
            goal=Goal(at_least=1, aim=1, below=True) if in_flight else None,
        ),
    ]
