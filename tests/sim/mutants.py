"""Small wrong versions of the engine, each of which the simulation must catch: what shows that the proof can fail.

    python -m tests.sim.mutants               all of them, and the table of seeds needed
    python -m tests.sim.mutants --only fence  those whose names hold this

A mutant is an exact replacement of text in one module. It is made where that module is imported, in a process of its
own, so nothing on disk changes; and it fails loudly when the text is no longer there.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final

# Nothing of the service may be imported here: workers replace its text first.

SOURCE: Final = Path(__file__).parents[2] / "src"
# Seeds within which a mutant must be caught.
SEEDS_MAX: Final = 2_000


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is wrong, in a few words; the module; the text that stands there, and what stands there instead."""

    name: str
    module: str
    old: str
    new: str

    @property
    def path(self) -> Path:
        path = SOURCE.joinpath(*self.module.split("."))
        return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")

    def apply(self, source: str) -> str:
        count = source.count(self.old)
        if count != 1:
            raise LookupError(f"{self.name}: the text to replace stands {count} times in {self.path}")
        return source.replace(self.old, self.new)


DISPATCHER: Final = "tidings.dispatcher"
ATTEMPT: Final = "tidings.dispatcher.attempt"
SLOTS: Final = "tidings.dispatcher.slots"
RECORDER: Final = "tidings.dispatcher.recorder"
DELIVERY: Final = "tidings.delivery"
STORE: Final = "tidings.store.sqlite"
CLAIMING: Final = "tidings.store.sqlite.claiming"
READING: Final = "tidings.store.sqlite.reading"
RECORDING: Final = "tidings.store.sqlite.recording"
LOG: Final = "tidings.store.sqlite.log"
MARKING: Final = "tidings.store.sqlite.marking"
TRIMMING: Final = "tidings.store.sqlite.trimming"
UPKEEP: Final = "tidings.upkeep"
ESTABLISHING: Final = "tidings.store.sqlite.establishing"
ACCESS: Final = "tidings.store.sqlite.access"
HOLDERS: Final = "tidings.store.sqlite.holders"
PLACES: Final = "tidings.store.sqlite.places"
WRITER: Final = "tidings.store.sqlite.writer"
WEBHOOKS: Final = "tidings.service.webhooks"
HIERARCHY: Final = "tidings.hierarchy"
MATCHING: Final = "tidings.matching"

MUTANTS: Final = (
    # -- cursor, head, marker ----------------------------------------------------------------------
    Mutant(
        "the cursor is moved before the post",
        CLAIMING,
        "SET fence = fence + 1, holder",
        "SET cursor = head, fence = fence + 1, holder",
    ),
    Mutant(
        "a failed delivery moves the cursor",
        ATTEMPT,
        "cursor=batch.end if delivered or not batch.events else claim.cursor",
        "cursor=batch.end",
    ),
    Mutant(
        "a delivery moves the cursor to the head",
        ATTEMPT,
        "cursor=batch.end if delivered or not batch.events else claim.cursor",
        "cursor=claim.head if delivered or not batch.events else claim.cursor",
    ),
    Mutant(
        "a record writes the head",
        RECORDING,
        '"cursor = max(cursors.cursor, r.cursor), last_success_at',
        '"cursor = max(cursors.cursor, r.cursor), head = max(cursors.cursor, r.cursor), last_success_at',
    ),
    Mutant(
        "a publish writes the cursors",
        LOG,
        "        connection.execute(_SCOPES, (end,))",
        "        connection.execute(_SCOPES, (end,))\n"
        '        connection.execute("UPDATE cursors SET cursor = max(cursor, ?) WHERE head <= cursor", (end + 1,))',
    ),
    Mutant(
        "the marker passes over events",
        MARKING,
        'connection.execute(MARK, {"after": after, "upto": upto})',
        'connection.execute(MARK, {"after": after, "upto": max(after + 1, int(upto) - 1)})',
    ),
    Mutant(
        "the marker passes over events of few scopes",
        MARKING,
        '"after": after, "upto": upto, "scopes": scopes}',
        '"after": after, "upto": max(after + 1, upto - 1), "scopes": scopes}',
    ),
    Mutant(
        "the marker's position is kept outside its transaction",
        MARKING,
        "    if end is None or end <= after:\n        return False\n",
        '    after = max(after, getattr(connection, "ahead", 0))\n'
        "    connection.ahead = max(after, end or 0)\n"
        "    if end is None or end <= after:\n        return False\n",
    ),
    Mutant(
        "a webhook begins before the end of the log",
        ESTABLISHING,
        "    end = end_of_log(connection)",
        "    end = max(0, end_of_log(connection) - 1)",
    ),
    # -- leases and fences -------------------------------------------------------------------------
    Mutant(
        "records count whatever their fence",
        RECORDING,
        '"cursors.webhook = r.webhook AND cursors.fence = r.fence"',
        '"cursors.webhook = r.webhook"',
    ),
    Mutant(
        "the fence does not move",
        CLAIMING,
        "SET fence = fence + 1, holder",
        "SET fence = fence, holder",
    ),
    Mutant(
        "leases are not looked at",
        CLAIMING,
        'IDLE: Final = "lease_until IS NULL AND stopped IS NULL AND ended_at IS NULL"',
        'IDLE: Final = "stopped IS NULL AND ended_at IS NULL"',
    ),
    Mutant(
        "a lease runs out early",
        CLAIMING,
        "(lease_until <= :now OR",
        "(lease_until <= :now + :lease / 2 OR",
    ),
    Mutant(
        "a turned clock frees leases that are held",
        SLOTS,
        "return tuple({each.webhook: None for each in self.claims})",
        "return ()",
    ),
    Mutant(
        "leases are judged by the time of the request",
        DISPATCHER,
        "self._store.claim(self._request(), clock=self._clocks.now)",
        "self._store.claim(self._request())",
    ),
    Mutant(
        "what was leased is read whatever its fence has become",
        READING,
        "JOIN cursors c ON c.webhook = ours.value ->> 0 AND c.fence = ours.value ->> 1 JOIN",
        "JOIN cursors c ON c.webhook = ours.value ->> 0 JOIN",
    ),
    Mutant(
        "a lease is given back though it was read",
        STORE,
        "            raise\n        return claimed\n",
        "            raise\n"
        "        self._unread += [(webhook, fence) for webhook, (fence, _) in leased.webhooks.items()]\n"
        "        return claimed\n",
    ),
    Mutant(
        "a delivery starts however little of its lease is left",
        ATTEMPT,
        "if withdrawn or started + means.policy.delivery_timeout > claim.lease.until:",
        "if withdrawn:",
    ),
    Mutant(
        "the leases of live processes are given back",
        HOLDERS,
        "            if lock is not None:\n                connection.execute(_FREE",
        "            if lock is None:\n                connection.execute(_FREE, (holder,))\n"
        "            if lock is not None:\n                connection.execute(_FREE",
    ),
    Mutant(
        "the next batch is sent before the last is recorded",
        DISPATCHER,
        "        if record.onward and sent is not None:\n",
        "        if record.onward and sent is not None:\n"
        "            self._begin(go_on(sent, record), self._to_record)\n",
    ),
    Mutant(
        "a lease is kept whatever has changed",
        RECORDING,
        '"cursors.epoch = r.epoch AND cursors.stopped IS NULL AND cursors.ended_at IS NULL"',
        '"cursors.webhook = r.webhook"',
    ),
    # -- filters and batches -----------------------------------------------------------------------
    Mutant(
        "filters are applied after the cut",
        ATTEMPT,
        "accepted(claim.filters, claim.page) if claim.filters",
        "[True for event in claim.page] if claim.filters",
    ),
    Mutant(
        "the end of a failed batch is forgotten",
        ATTEMPT,
        "batch_end=batch.end if batch.events and not delivered else None",
        "batch_end=None",
    ),
    Mutant(
        "new filters leave the failed batch as it was",
        ESTABLISHING,
        "SET epoch = epoch + 1, batch_end = NULL",
        "SET epoch = epoch",
    ),
    Mutant(
        "a retry goes under another id",
        ATTEMPT,
        'what = f"{claim.cursor}-{batch.events[-1].position}" if batch.events',
        'what = f"{claim.cursor}-{claim.lease.fence}" if batch.events',
    ),
    Mutant(
        "an id does not say where a batch ends",
        ATTEMPT,
        'what = f"{claim.cursor}-{batch.events[-1].position}" if batch.events',
        'what = f"{claim.cursor}" if batch.events',
    ),
    Mutant(
        "an id changes with events that are refused",
        ATTEMPT,
        'what = f"{claim.cursor}-{batch.events[-1].position}" if batch.events',
        'what = f"{claim.cursor}-{batch.end}" if batch.events',
    ),
    Mutant(
        "a batch ends past an event that did not fit",
        DELIVERY,
        "        end = event.position\n    else:",
        "        end = event.position\n    if last is None and page:\n        end = page[-1].position\n    else:",
    ),
    # -- ends --------------------------------------------------------------------------------------
    Mutant(
        "deleted webhooks are claimed",
        CLAIMING,
        'IDLE: Final = "lease_until IS NULL AND stopped IS NULL AND ended_at IS NULL"',
        'IDLE: Final = "lease_until IS NULL AND stopped IS NULL"',
    ),
    Mutant(
        "stopped webhooks are claimed",
        CLAIMING,
        'IDLE: Final = "lease_until IS NULL AND stopped IS NULL AND ended_at IS NULL"',
        'IDLE: Final = "lease_until IS NULL AND ended_at IS NULL"',
    ),
    Mutant(
        "access that comes back does not let webhooks go on",
        ACCESS,
        "OR (c.stopped = :reason AND {_COVERED})",
        "OR (c.stopped = :reason AND NOT {_COVERED})",
    ),
    Mutant(
        "expiry is counted from the last failure",
        DELIVERY,
        "    return min(health.failing_since, now)",
        "    return now",
    ),
    Mutant(
        "an outage counts towards expiry",
        DELIVERY,
        "        return health.failing_since + late",
        "        return health.failing_since",
    ),
    Mutant(
        "time in which we are hindered counts towards expiry",
        DELIVERY,
        "            return Hindered(text) if ours else Refused(text)",
        "            return Refused(text)",
    ),
    Mutant(
        "who was hindered is tried at once",
        DELIVERY,
        "since=now - run, now=now), next_attempt_at=now + wait",
        "since=now - run, now=now), next_attempt_at=now",
    ),
    Mutant(
        "a webhook expires at its first failure past an age",
        DELIVERY,
        "            ends_at = since + policy.give_up_after",
        "            ends_at = (health.last_success_at or since) + policy.give_up_after",
    ),
    Mutant(
        "a success does not end the run of failures",
        DELIVERY,
        "                    failing_since=None,\n                    failures=0,",
        "                    failures=0,",
    ),
    Mutant(
        "410 is a failure like others",
        DELIVERY,
        "            if status == 410:",
        "            if status == 411:",
    ),
    # -- waits -------------------------------------------------------------------------------------
    Mutant(
        "jitter goes above the cap",
        DELIVERY,
        "return int(wait * (0.5 + jitter / 2))",
        "return int(wait * (0.75 + jitter / 2))",
    ),
    Mutant(
        "waits double without end",
        DELIVERY,
        "wait = min(policy.retry_first << min(retries, _DOUBLINGS_MAX), policy.retry_max)",
        "wait = policy.retry_first << min(retries, 20)",
    ),
    Mutant(
        "Retry-After goes beyond the cap",
        DELIVERY,
        "min(asked, policy.retry_max)",
        "asked",
    ),
    Mutant(
        "Retry-After is not heeded",
        DELIVERY,
        "max(backoff(health.failures, jitter, policy), min(asked, policy.retry_max))",
        "backoff(health.failures, jitter, policy)",
    ),
    Mutant(
        "turns that drop everything put the heartbeat off",
        ATTEMPT,
        "    if claim.health.heartbeat_at > now:\n        return claim.health",
        "    if claim.health.heartbeat_at > now:\n"
        "        return replace(claim.health, heartbeat_at=now + means.policy.heartbeat_every)",
    ),
    Mutant(
        "a heartbeat comes while a webhook is served",
        ATTEMPT,
        "return policies.not_yet_quiet(claim.health, now=now, jitter=means.clocks.jitter(), policy=means.policy)",
        "return None",
    ),
    # -- the log and its keeping -------------------------------------------------------------------
    Mutant(
        "the idempotency key outlives its transaction",
        LOG,
        "    if idempotency is None:\n        return None\n    row = connection",
        "    if idempotency is None:\n        return None\n"
        '    kept = _repeated.__dict__.setdefault("kept", {})\n'
        "    if (idempotency.key, idempotency.digest, now // 10**11) in kept:\n"
        "        return Published(*kept[idempotency.key, idempotency.digest, now // 10**11])\n"
        "    kept[idempotency.key, idempotency.digest, now // 10**11] = (1, end_of_log(connection) + 1)\n"
        "    row = connection",
    ),
    Mutant(
        "an idempotency key is not looked up",
        LOG,
        "        if repeated is not None:\n            return repeated",
        "        if repeated is not None and publication.resources:\n            return repeated",
    ),
    Mutant(
        "events that a webhook has yet to read are trimmed",
        TRIMMING,
        "    if held is None or held >= retained:",
        "    if True:",
    ),
    Mutant(
        "what the ceiling took is not noted",
        TRIMMING,
        "    if sweep.losing:",
        "    if False:",
    ),
    Mutant(
        "a turned clock makes everything old",
        UPKEEP,
        "            return min(read_at - self._noted_at, self._gap_max)",
        "            before, self.__dict__['told'] = self.__dict__.get('told', now), now\n"
        "            return max(read_at - self._noted_at, now - before)",
    ),
    Mutant(
        "an outage makes everything old",
        TRIMMING,
        "    if noted != since:\n        return noted\n    uptime = since + passed()",
        "    last = connection.execute('SELECT now FROM milestones ORDER BY uptime DESC').fetchone() or (now,)\n"
        "    uptime = noted + max(0, now - last[0])",
    ),
    Mutant(
        "each process makes everything older",
        TRIMMING,
        "    if noted != since:\n        return noted\n    uptime = since + passed()",
        "    uptime = noted + passed()",
    ),
    Mutant(
        "events rendered ahead count whatever has moved since",
        LOG,
        "        if self._ahead is not None and self._ahead[0] == self._places.version:",
        "        if self._ahead is not None:",
    ),
    Mutant(
        "scopes of a resource outlive its move",
        PLACES,
        "        self._closures.clear()\n        self._scopes.clear()\n\n    def reset",
        "\n    def reset",
    ),
    Mutant(
        "scopes leave out the event's parent",
        HIERARCHY,
        "        if parent is not None:\n            seen.update",
        "        if False:\n            seen.update",
    ),
    Mutant(
        "scopes stop at the first parent",
        HIERARCHY,
        "            level = tuple(up for parent in fresh for up in self._parents(parent))",
        "            level = tuple(up for parent in fresh[:1] for up in self._parents(parent))",
    ),
    # -- creating ----------------------------------------------------------------------------------
    Mutant(
        "duplicates are not refused",
        ESTABLISHING,
        "    if row is not None:\n        raise DuplicateWebhook(row[0])",
        "    if row is None:\n        return",
    ),
    Mutant(
        "equal creates do not queue",
        ESTABLISHING,
        "    if not taken:\n        return None\n",
        "",
    ),
    Mutant(
        "quotas are looked at before the handshake only",
        ESTABLISHING,
        "    _refuse_over_quota(connection, new.owner, scope, quotas)\n",
        "",
    ),
    # -- commits -----------------------------------------------------------------------------------
    Mutant(
        "a commit that failed is acknowledged",
        WRITER,
        "                if not isinstance(unit.error, TidingsError):\n                    unit.error = failure",
        "                if not isinstance(unit.error, TidingsError) and unit.result is None:\n"
        "                    unit.error = failure",
    ),
    Mutant(
        "publishes are flushed after they were told",
        WRITER,
        "PROMISED: Final = frozenset({Rank.RECORD, Rank.WRITE})",
        "PROMISED: Final = frozenset({Rank.RECORD})",
    ),
    Mutant(
        "failures and ends are flushed after they were told",
        STORE,
        "rank = Rank.STEADY if all(entry.steady for entry in records) else Rank.RECORD",
        "rank = Rank.STEADY",
    ),
    Mutant(
        "what went steadily is not flushed",
        WRITER,
        "        return Flush.AFTER if alone",
        "        return Flush.LATER if alone",
    ),
    Mutant(
        "a unit that fails is not undone",
        WRITER,
        '            self.connection.execute("ROLLBACK TO unit")\n            unit.error = error',
        "            unit.error = error",
    ),
    Mutant(
        "the first unit that fails is not undone",
        WRITER,
        '        self.connection.execute("ROLLBACK")\n        self.connection.execute("BEGIN IMMEDIATE")',
        "        pass",
    ),
    Mutant(
        "what comes late joins claims that are not flushed",
        WRITER,
        "                if flush is not Flush.LATER:\n                    late = sorted(more(flush is Flush.WITHIN)",
        "                if True:\n                    late = sorted(more(flush is not Flush.AFTER)",
    ),
    Mutant(
        "records that could not be written are dropped",
        RECORDER,
        "                await asyncio.sleep(STORE_PAUSE_SECONDS)",
        "                return frozenset()",
    ),
)


# -- making one ------------------------------------------------------------------------------------


class _Loader(importlib.machinery.SourceFileLoader):
    mutant: Mutant

    def get_code(self, fullname: str) -> CodeType:
        source = self.mutant.apply(Path(self.path).read_text("utf-8"))
        return compile(source, self.path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    """Has one module made from altered text."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        loader = _Loader(fullname, str(self._mutant.path))
        loader.mutant = self._mutant
        return importlib.util.spec_from_file_location(
            fullname,
            loader.path,
            loader=loader,
            submodule_search_locations=(
                [str(self._mutant.path.parent)] if self._mutant.path.name == "__init__.py" else None
            ),
        )


@dataclass(frozen=True, slots=True)
class Catch:
    """How many seeds it took, and which invariant was broken; None if the mutant survived."""

    name: str
    seeds: int
    invariant: str | None
    text: str = ""


def hunt(mutant: Mutant, seeds_max: int = SEEDS_MAX) -> Catch:
    """Run worlds of a mutant until one breaks an invariant. In a process that has imported nothing of the service."""
    assert mutant.module not in sys.modules, "the service is already here as it is"
    sys.meta_path.insert(0, Finder(mutant))
    from tests.sim.disk import clean_up
    from tests.sim.plan import make_plan
    from tests.sim.world import run_world

    assert mutant.module in sys.modules, "the simulation does not use the mutant"
    try:
        for seed in range(seeds_max):
            violation = run_world(make_plan(seed)).violation
            if violation is not None:
                return Catch(mutant.name, seed + 1, violation.invariant, violation.text)
        return Catch(mutant.name, seeds_max, None)
    finally:
        clean_up()


def hunt_all(
    mutants: Sequence[Mutant], *, seeds_max: int = SEEDS_MAX, jobs: int | None = None
) -> Iterator[Catch]:
    """Hunt each mutant in a process of its own, on all cores."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs or os.cpu_count() or 1, maxtasksperchild=1) as pool:
        yield from pool.imap(partial(hunt, seeds_max=seeds_max), mutants, chunksize=1)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.mutants", description="Wrong engines, hunted.")
    parser.add_argument("--only", default="", help="mutants whose names hold this")
    parser.add_argument(
        "--seeds", type=int, default=SEEDS_MAX, help=f"worlds for each, at most ({SEEDS_MAX})"
    )
    parser.add_argument("--jobs", type=int, help="worker processes (all cores)")
    chosen = parser.parse_args(arguments)
    mutants = [mutant for mutant in MUTANTS if chosen.only in mutant.name]
    began, survived = time.monotonic(), 0
    print("| mutation | seeds needed | invariant that broke |\n| --- | ---: | --- |")
    for catch in hunt_all(mutants, seeds_max=chosen.seeds, jobs=chosen.jobs):
        survived += catch.invariant is None
        print(f"| {catch.name} | {catch.seeds} | {catch.invariant or '**survived**'} |", flush=True)
        print(f"    {catch.text.strip().splitlines()[-1] if catch.text else ''}", file=sys.stderr, flush=True)
    print(f"\n{len(mutants)} mutants, {survived} survived, {time.monotonic() - began:.0f} s")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
