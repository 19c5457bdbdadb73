"""Rounds of falls: starting services, killing them, and looking at what became of every event.

The dice are seeded, so a seed repeats the plan: which kinds of falls, when, of which process, under which receivers.
How the processes are interleaved below that is the machine's.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from tests.kill import disk, processes
from tests.kill.load import Hook, Load, Publisher
from tests.kill.mutants import ROOT
from tests.kill.reconcile import Fall, Findings, Round, reconcile
from tests.serving import TIDINGS, WORKSPACE, Service, wait_until

Progress = Callable[[int], None]

ROUND_KILLS: Final = 10
PROJECTS: Final = ("project-1", "project-2", "project-3")
TASKS: Final = tuple((f"task-{project}", project) for project in PROJECTS)
HOOKS_PER_PROJECT: Final = 4
PUBLISHERS: Final = 4
# How long a service is left alone before its next fall, at most, seconds.
SERVING_SECONDS: Final = 0.8
# How long a drain may go on before it is cut short, at most, seconds.
DRAINING_SECONDS: Final = 0.3
# Where a migration is killed: so long after its file appeared, at most, seconds.
MIGRATING_SECONDS: Final = 0.02
# A start is killed within this multiple of the last one's time.
START_SPREAD: Final = 1.2
# At the end of a round everything must have arrived once nothing new has come for so long, seconds.
SILENCE_SECONDS: Final = 10.0
# The longest that the last calls of publishers may take, seconds.
FINISH_SECONDS: Final = 90.0

SETTINGS: Final = {
    "TIDINGS_RETRY_FIRST": "50ms",
    "TIDINGS_RETRY_MAX": "300ms",
    "PYTHONPATH": str(ROOT),
}

# What the log says once all of a service answers.
SERVING: Final = '"serving"'


class Where(StrEnum):
    """What a process was at when it fell."""

    MIGRATION = "migration"
    START = "start-up"
    LOAD = "load"
    WORKER = "load, a worker alone"
    PARENT = "load, the first alone"
    DRAIN = "drain"
    PAUSE = "paused past its lease"


class Shape(NamedTuple):
    """How many services a round has on its database, and their flags."""

    services: int
    arguments: tuple[str, ...] = ()


SHAPES: Final = (Shape(1), Shape(2), Shape(1, ("--workers", "2")))


@dataclass
class Result:
    """What a campaign came to."""

    seed: int
    findings: list[Findings] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def kills(self) -> int:
        return sum(len(found.repeats) for found in self.findings)

    @property
    def violations(self) -> list[str]:
        return [text for found in self.findings for text in found.violations]


def run(
    *, kills: int, seed: int, command: Sequence[str] = (TIDINGS,), progress: Progress = lambda done: None
) -> Result:
    """Play rounds until so many processes were killed. The rounds' folders are kept where something was wrong."""
    dice = random.Random(seed)
    result = Result(seed)
    began = time.monotonic()
    number = 0
    while result.kills < kills:
        folder = Path(tempfile.mkdtemp(prefix=f"tidings-kill-{seed}-{number}-"))
        with Play(folder, shape=SHAPES[number % len(SHAPES)], dice=dice, command=command) as play:
            found = play.run(
                min(ROUND_KILLS, kills - result.kills),
                progress=lambda done, before=result.kills: progress(before + done),  # type: ignore[misc]
            )
        result.findings.append(found)
        if found.violations:
            found.wrong.append(f"the files of this round are in {folder}")
        else:
            shutil.rmtree(folder)
        number += 1
    result.seconds = time.monotonic() - began
    return result


class Play:
    """One round: a fresh database, the services of a shape on it, and the load."""

    def __init__(
        self, folder: Path, *, shape: Shape, dice: random.Random, command: Sequence[str] = (TIDINGS,)
    ) -> None:
        self._folder = folder
        self._dice = dice
        self._command = command
        self._shape = shape
        self._hooks = [
            Hook(f"/{project}/{number}", project)
            for project in PROJECTS
            for number in range(HOOKS_PER_PROJECT)
        ]
        self._load = Load(self._hooks, seed=dice.getrandbits(32))
        self._falls: list[Fall] = []
        # The leases that falls left, each by its hook and fence.
        self._left: set[tuple[str, int]] = set()
        self._tries = 0
        self._start_seconds = 0.3
        self._make_services()

    def __enter__(self) -> Play:
        self._load.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for service in self.services:
            self._end(service)
        self._load.__exit__(*error)

    def run(self, kills: int, *, progress: Progress = lambda done: None) -> Findings:
        """Let processes fall, then let everything arrive, and say what came of it."""
        self._fall_in_migration(1 if kills > 1 else 0)
        self._start_all()
        self._begin()
        while len(self._falls) < kills:
            progress(len(self._falls))
            self._change_manners()
            time.sleep(self._dice.uniform(0.05, SERVING_SECONDS))
            self._fall(upto=kills)
            self._start_all()
        self._finish()
        it = self._round()
        (self._folder / "round.json").write_text(json.dumps(asdict(it), indent=1))
        return reconcile(it)

    # -- processes ---------------------------------------------------------------------------------

    def _make_services(self) -> None:
        self.database = self._folder / f"tidings-{self._tries}.db"
        self.services = [
            Service(
                self._folder,
                environment=SETTINGS,
                database=f"sqlite:///{self.database}",
                command=self._command,
                arguments=self._shape.arguments,
            )
            for _ in range(self._shape.services)
        ]

    def _start_all(self) -> None:
        """Start whoever does not run, and wait until all are ready."""
        for service in self.services:
            if not service.alive:
                began, said = time.monotonic(), service.log().count(SERVING)
                service.start()
                # One worker may be ready before the others: if one of those is killed, it is the start that fails.
                wait_until(lambda: service.log().count(SERVING) > said, timeout=30)  # noqa: B023
                self._start_seconds = time.monotonic() - began

    def _alive(self) -> list[Service]:
        return [service for service in self.services if service.alive]

    def _others(self, *victims: int) -> list[int]:
        """Every process of ours that is not a victim."""
        everybody = [pid for service in self._alive() for pid in processes.family(service.pid)]
        return [pid for pid in everybody if pid not in victims]

    def _end(self, victim: Service) -> None:
        """SIGKILL a service with its workers, as a machine that crashes does."""
        if victim.alive:
            with processes.stopped([victim.pid]):  # or it would start another worker
                workers = processes.family(victim.pid)[1:]
                victim.kill()
                processes.kill(workers)
        elif victim.started:
            # It was about to end, and could not be stopped any more: then it must have ended well.
            victim.stop()

    # -- falls -------------------------------------------------------------------------------------

    def _fall(self, *, upto: int) -> None:
        """Let one process, or all of them at once, fall; perhaps again while it starts."""
        victims = self.services if self._dice.random() < 0.3 else [self._dice.choice(self.services)]
        chance = self._dice.random()
        if self._shape.arguments and chance < 0.6:
            self._fall_apart(victims[0], worker=chance < 0.4)
        elif self._dice.random() < 0.3:
            self._fall_in_drain(victims[0])
        else:
            for victim in victims[: upto - len(self._falls)]:
                self._kill(victim, Where.LOAD)
        if not victims[0].alive and len(self._falls) < upto and self._dice.random() < 0.6:
            self._fall_in_start(victims[0])

    def _kill(self, victim: Service, where: Where) -> None:
        """SIGKILL, and look at what it left while everybody else stands still."""
        others = self._others(*processes.family(victim.pid))
        with processes.stopped(others):
            self._end(victim)
            self._note(where, alive=bool(others))

    def _fall_apart(self, victim: Service, *, worker: bool) -> None:
        """Kill one worker of a service, or the first process alone, whose workers then have to end by themselves."""
        first, *workers = processes.family(victim.pid)
        if not workers:
            return  # its last one died a moment ago
        if worker:
            chosen = self._dice.choice(workers)
            with processes.stopped(self._others(chosen)):
                processes.kill([chosen])
                # The first process has no database open; its other worker has.
                self._note(Where.WORKER, alive=len(workers) > 1)
            return
        with processes.stopped(self._others(first)):
            victim.kill()
            self._note(Where.PARENT, alive=True)
        processes.wait_for_the_end(workers)

    def _note(self, where: Where, *, alive: bool) -> None:
        """Look at what the dead left leased. A lease that lay there before belongs to an earlier fall."""
        dead = disk.dead_holders(self.database)
        left = [lease for lease in disk.leases(self.database, alive=alive) if lease.holder in dead]
        cursors = {lease.hook: lease.cursor for lease in left if (lease.hook, lease.fence) not in self._left}
        self._left.update((lease.hook, lease.fence) for lease in left)
        self._falls.append(Fall(where, self._load.tick(), cursors))

    def _fall_in_drain(self, victim: Service) -> None:
        """SIGTERM, and SIGKILL soon after. If it was quicker, it must have ended well, and this was no fall."""
        os.kill(victim.pid, signal.SIGTERM)
        time.sleep(self._dice.uniform(0, DRAINING_SECONDS))
        with processes.stopped([victim.pid]):
            in_time = victim.alive
            if in_time:
                self._kill(victim, Where.DRAIN)
        if not in_time:
            victim.stop()

    def _fall_in_start(self, victim: Service) -> None:
        victim.start(ready=False)
        said = victim.log().count(SERVING)
        time.sleep(self._dice.uniform(0, START_SPREAD * self._start_seconds))
        assert victim.alive, f"it ended by itself:\n{victim.log()[-2_000:]}"
        self._kill(victim, Where.LOAD if victim.log().count(SERVING) > said else Where.START)

    def _fall_in_migration(self, wanted: int) -> None:
        """Kill a process while it makes a fresh database; a moment too late, and it is another fresh one's turn."""
        while wanted:
            self._tries += 1
            self._make_services()
            for service in self.services:
                service.start(ready=False)
            victim = self._dice.choice(self.services)
            _wait_for_file(self.database, victim)
            time.sleep(self._dice.uniform(0, MIGRATING_SECONDS))
            with processes.stopped(self._others(victim.pid)):
                self._end(victim)
                migrated = bool(disk.schema_version(self.database))
            if not migrated:
                self._falls.append(Fall(Where.MIGRATION, self._load.tick(), {}))
                wanted -= 1
            else:
                for service in self._alive():
                    self._end(service)
        for service in self._alive():
            service.wait_ready()

    # -- the load ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        service = self.services[0]
        service.put_resource(WORKSPACE, "workspace")
        for task, project in TASKS:
            service.put_resource(project, "project", parents=[WORKSPACE])
            service.put_resource(task, "task", parents=[project])
        for hook in self._hooks:
            service.create_webhook(hook.project, self._load.url(hook))

        def urls() -> Sequence[str]:
            return [service.base_url for service in self.services if service.alive] or [service.base_url]

        self._load.publish(
            [Publisher(f"p{number}", TASKS, urls, self._dice.getrandbits(32)) for number in range(PUBLISHERS)]
        )

    def _change_manners(self) -> None:
        """Every receiver is prompt, slow, failing at times, or down, until the next fall."""
        for hook in self._hooks:
            hook.down = self._dice.random() < 0.1
            hook.failing = self._dice.choice((0.0, 0.0, 0.2))
            hook.seconds = self._dice.choice((0.0, 0.0, 0.02, 0.2))

    def _finish(self) -> None:
        """Let everything arrive, then stop the services as an operator does."""
        for hook in self._hooks:
            hook.down, hook.failing, hook.seconds = False, 0.0, 0.0
        self._load.finish_publishing(seconds=FINISH_SECONDS)
        expected = disk.log_length(self.database) * HOOKS_PER_PROJECT
        wait_for_arrivals(self._load, expected)
        for service in self.services:
            service.stop()

    def _round(self) -> Round:
        receivers = self._load.receivers
        project_of = dict(TASKS)
        found = Round(
            hooks={hook.path: hook.project for hook in self._hooks},
            log=[(position, project_of[task], name) for position, task, name in disk.log(self.database)],
            calls=self._load.calls,
            arrivals=receivers.arrivals,
            falls=self._falls,
            overlaps=receivers.overlaps,
        )
        assert not receivers.errors, receivers.errors[0]
        return found


def wait_for_arrivals(load: Load, expected: int) -> None:
    """Until so many events were taken, each counted once for each hook; or until nothing new comes any more."""
    known = 0
    changed = time.monotonic()
    while known < expected and time.monotonic() - changed < SILENCE_SECONDS:
        time.sleep(0.1)
        arrivals = list(load.receivers.arrivals)
        taken = len({(each.hook, name) for each in arrivals if each.taken for name in each.names})
        if taken != known:
            known, changed = taken, time.monotonic()


def _wait_for_file(path: Path, service: Service) -> None:
    wait_until(lambda: path.exists() or not service.alive, timeout=30, message=f"{path} never appeared")
