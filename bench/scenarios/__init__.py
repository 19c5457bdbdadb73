"""What is measured. Each scenario starts services of its own, and gives rows.

`SHORT` are those of `make bench`, in the order they run (`catch_up` looks at what `deliveries` came to); `LONG` are
those that `make bench-full` adds.
"""

from collections.abc import Callable
from typing import Final

from bench.results import Row
from bench.scenarios import api, crowds, dead, hostile, kills, rates, waits, wide
from bench.scenarios.context import Bench

Scenario = Callable[[Bench], list[Row]]

SHORT: Final[dict[str, Scenario]] = {
    "deliveries": rates.deliveries,
    "catch_up": rates.catch_up,
    "latency": waits.latency,
    "silent": rates.silent,
    "cold_start": waits.cold_start,
    "many": crowds.many,
}
LONG: Final[dict[str, Scenario]] = {
    "latencies": waits.latencies,
    "fan_out": wide.fan_out,
    "tls": wide.tls,
    "processes": wide.processes,
    "publishing": api.publishing,
    "dead_refused": dead.refused,
    "dead_silent": dead.unanswered,
    "retries": dead.retries,
    "backlog": dead.backlog,
    "neighbours": hostile.neighbours,
    "kills": kills.kills,
}
