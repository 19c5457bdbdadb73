"""What scenarios are given: where to work, how large to be, what was measured before them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.results import Row


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large the scenarios are. Tests make them tiny."""

    runs: int = 3
    # How long a rate is measured, and its yardstick; seconds.
    seconds: float = 4.0
    yardstick_seconds: float = 2.0
    webhooks: int = 1_000
    backlog: int = 200_000
    latency_rate: int = 1_000
    latency_rates: tuple[int, ...] = (100, 1_000, 2_000, 5_000)
    latency_seconds: float = 5.0
    many: int = 1_000_000
    idle_seconds: float = 10.0
    fan_out: int = 10_000
    dead: int = 10_000
    dead_seconds: float = 60.0
    publish_sizes: tuple[int, ...] = (1, 10, 100, 1_000)
    hostile_webhooks: int = 500
    hostile_seconds: float = 3.0
    personalities: tuple[str, ...] = (
        *("never accepts", "accepts and never answers", "never reads", "one byte at a time"),
        *("endless headers", "10 000 header lines", "endless 1xx", "endless body", "gzip bomb"),
        *("half-closes", "resets", "answers before reading", "closes after every response"),
        *("pipelined garbage", "invalid status line", "too great a length", "two lengths that differ"),
        *("a TLS handshake that stalls", "an expired certificate", "a certificate for another name"),
    )
    kills: int = 40


TINY = Sizes(
    runs=1,
    seconds=0.2,
    yardstick_seconds=0.2,
    webhooks=20,
    backlog=2_000,
    latency_rates=(100,),
    latency_seconds=0.2,
    many=2_000,
    idle_seconds=0.2,
    fan_out=100,
    dead=200,
    dead_seconds=3.0,
    publish_sizes=(1, 10),
    hostile_webhooks=20,
    hostile_seconds=0.3,
    personalities=("endless body",),
    kills=2,
)


@dataclass(frozen=True)
class Bench:
    """A run under way."""

    sizes: Sizes = field(default_factory=Sizes)
    rows: list[Row] = field(default_factory=list)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder that is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="tidings-bench-", ignore_cleanup_errors=True) as name:
            yield Path(name)

    def row(self, name: str) -> Row | None:
        """What was measured before under this name."""
        return next((row for row in self.rows if row.name == name), None)
