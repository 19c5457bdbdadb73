"""One world: processes of the real service on a simulated machine, and everything that befalls them."""

from __future__ import annotations

import gc
import hashlib
import importlib
import logging
import random
import sys
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest.mock import patch

import msgspec

from tests.sim.disk import Disk, disk
from tests.sim.network import Network, Receiver
from tests.sim.observer import SEALER, Observer, Violation
from tests.sim.plan import OWNERS, WORKSPACE, Deed, Plan
from tests.sim.process import Process
from tests.sim.universe import SECOND, Spinning, Universe
from tidings.errors import NotFound, RequestError, StoreUnavailable
from tidings.limits import LEASE_SLACK
from tidings.model import Micros, Owner, Scope
from tidings.service.webhooks import ListQuery
from tidings.wire.bodies import Body
from tidings.wire.tokens import TokenRequest
from tidings.wire.webhooks import CreateRequest, parse_filters

# 2026-01-05 12:00 UTC; any instant will do.
EPOCH: Final[Micros] = 1_767_614_400 * SECOND
PUBLISHER: Final = "9"
# How many times as rarely as the dispatcher upkeep looks at the store.
LOOK_FACTOR: Final = 3
# How often a caller tries again when nobody answers.
CALLS_MAX: Final = 20


@dataclass(frozen=True)
class Result:
    """What a world came to."""

    plan: Plan
    violation: Violation | None
    seen: Counter[str]
    trace: list[tuple[Any, ...]]
    simulated: Micros

    @property
    def digest(self) -> str:
        """Names everything that happened, in order."""
        return hashlib.sha256(repr(self.trace).encode()).hexdigest()


class World:
    def __init__(self, plan: Plan, made: Disk) -> None:
        self.plan = plan
        self.dice = random.Random(f"world {plan.seed}")
        self.universe = Universe(self.dice)
        self.disk = made
        self.jumped: Micros = 0
        self.skew = max(map(abs, plan.skews)) * 2
        # Whether nothing but trouble can keep a delivery back: there are slots for all.
        self.prompt = plan.concurrency >= 64
        lease = plan.policy.delivery_timeout + LEASE_SLACK
        # How late things may be where nothing is wrong; and how long a misfortune is felt.
        self.slack = plan.poll + lease + 10 * SECOND
        self._aftermath = (2 + LOOK_FACTOR) * plan.poll + 2 * lease + 10 * SECOND
        self.calm_since: Micros = 0
        self.observer = Observer(self)
        receivers = [Receiver(name, moods) for name, moods in plan.receivers]
        self.network = Network(self.universe, receivers, day=lambda: EPOCH + self.universe.now)
        made.watch, made.left = self.observer.committed, self.observer.left_unflushed
        self.processes: list[Process | None] = [None] * plan.processes
        # Who wished to write last, as all of them know.
        self.wrote_last: Process | None = None
        self._gids = 10_000
        self._texts: dict[str, str] = {}
        self._grants: dict[str, str] = {}
        self._told: list[tuple[str, str, str]] = []
        self._healed = False
        self._ending = False
        # How long any process was there, until one was last; and since when one is now.
        self._uptime: Micros = 0
        self._up_since: Micros | None = None
        # Deeds that wait for a step of some webhook; and the one that a deed is about to concern.
        self.waiting: dict[str, list[Deed]] = {}
        self._concerned: tuple[Process | None, str | None] = (None, None)

    # -- what the machine gives --------------------------------------------------------------------

    def day(self) -> Micros:
        """The machine's time of day."""
        return EPOCH + self.universe.now + self.jumped

    def commit_takes(self) -> Micros:
        return self.dice.randrange(*self.plan.commits)

    def read_takes(self) -> Micros:
        return self.dice.randrange(50, 3_000)

    def new_gid(self) -> str:
        self._gids += 1
        return str(self._gids)

    def new_text(self) -> str:
        return f"tdg_{self.dice.getrandbits(128):032x}"

    def new_secret(self) -> str:
        return f"{self.dice.getrandbits(256):064x}"

    def uptime(self) -> Micros:
        """How long the service has been up: any process of it."""
        return self._uptime + (0 if self._up_since is None else self.universe.now - self._up_since)

    def troubled(self, span: Micros = 0) -> None:
        """Something is wrong from now on for so long, and is felt for a while after."""
        self.calm_since = max(self.calm_since, self.universe.now + span + self._aftermath)

    # -- from beginning to end ---------------------------------------------------------------------

    def run(self) -> None:
        for number in range(self.plan.processes):
            self._start(number)
        self._set_up()
        began = self.universe.now
        for deed in self.plan.deeds:
            self.universe.at(began + deed.at, self._do, deed)
        self.universe.run(began + self.plan.span)
        for hook in self.observer.hooks.values():
            if hook.ended is None and hook.stopped_since is None and not hook.failures:
                self.observer.judge_quiet(hook)
        self._heal()
        self._end()

    def _set_up(self) -> None:
        ready: list[bool] = []

        async def prepare(process: Process) -> None:
            for owner in (*OWNERS, PUBLISHER):
                await self._grant(process, owner)
            drafts = [
                {"gid": gid, "resource_type": kind, "parents": list(parents)}
                for gid, kind, parents in self.plan.resources
            ]
            publisher = await self._caller(process, PUBLISHER)
            await process.publishing.put_many(publisher, Body(drafts))
            ready.append(True)

        first = self.processes[0]
        assert first is not None
        first.call(prepare(first))
        while not ready and not self.universe.stopped:
            self.universe.run(self.universe.now + SECOND)

    def _heal(self) -> None:
        """Let everything be well: receivers, disks, processes."""
        self._healed = True
        self.disk.trouble = None
        for receiver in self.network.receivers.values():
            receiver.healed = True
        for number, process in enumerate(self.processes):
            if process is None:
                self._start(number)
            else:
                process.loop.stalled = False
                process.loop.fuse = None

    def _end(self) -> None:
        """Wait until all is delivered, for as long as that may take; then end the processes in an orderly way."""
        policy = self.plan.policy
        patience = policy.retry_max + 3 * self.plan.poll + 900 * SECOND
        step = max(patience // 20, 10 * SECOND)
        deadline = self.universe.now + patience
        # Callers under way get their answers first.
        self.universe.run(self.universe.now + 3 * policy.delivery_timeout + 30 * SECOND)
        while self.observer.outstanding() and self.universe.now < deadline and not self.universe.stopped:
            self.universe.run(self.universe.now + step)
        self._ending = True
        for number, process in enumerate(self.processes):
            if process is None:
                continue
            process.drain()
            deadline = self.universe.now + policy.delivery_timeout + 60 * SECOND
            while not process.ended and self.universe.now < deadline and not self.universe.stopped:
                self.universe.run(self.universe.now + SECOND)
            if not process.ended:
                self.observer.fail("drain", f"process {number} does not end")
        if not self.universe.stopped:
            self.observer.finish()

    # -- processes ---------------------------------------------------------------------------------

    def _start(self, number: int) -> None:
        if self.processes[number] is not None or self.universe.stopped:
            return
        try:
            process = Process(self, number)
        except StoreUnavailable:
            self.universe.after(2 * SECOND, self._start, number)
            return
        self._put(number, process)
        self.observer.note("started", process, None)

    def _put(self, number: int, process: Process | None) -> None:
        self.processes[number] = process
        up = any(each is not None for each in self.processes)
        if up != (self._up_since is not None):
            self._uptime = self.uptime()
            self._up_since = self.universe.now if up else None

    def process_ended(self, process: Process) -> None:
        """It has drained and closed."""
        self.observer.note("drained", process, None)
        self.observer.seen["drained"] += 1
        process.loop.kill()
        self.disk.close(process)
        self._put(process.number, None)
        if not self._ending:
            down = 0 if self._healed else process.down
            self.universe.after(down, self._start, process.number)

    def _kill(self, process: Process, down: Micros) -> None:
        if process.ended:
            return
        flying = sum(turn.flying and turn.process is process for turn in self._turns())
        self.observer.seen["crash"] += 1
        self.observer.seen["crash_in_flight"] += bool(flying)
        self.observer.note("killed", process, None, flying)
        process.kill()
        self._put(process.number, None)
        self.troubled(down)
        self.universe.after(down, self._start, process.number)

    def _turns(self) -> Iterator[Any]:
        for hook in self.observer.hooks.values():
            yield from hook.turns.values()

    def _alive(self) -> list[Process]:
        return [each for each in self.processes if each is not None and not each.draining and not each.ended]

    def _pick(self, pick: float) -> Process | None:
        alive = self._alive()
        if self._concerned[0] in alive:
            return self._concerned[0]
        return alive[int(pick * len(alive))] if alive else None

    # -- deeds -------------------------------------------------------------------------------------

    def step(self, what: str, process: Process | None, webhook: str | None) -> None:
        """A webhook takes a step that deeds wait for: they are done while it is at it."""
        for deed in self.waiting.pop(what):
            soon = self.dice.choice((1, 2_000, 20_000, 200_000))
            self.universe.after(self.dice.randrange(soon), self._do_to, deed, process, webhook)

    def _do_to(self, deed: Deed, process: Process | None, webhook: str | None) -> None:
        self._concerned = (process, webhook)
        self._do(replace(deed, on=None))
        self._concerned = (None, None)

    def _do(self, deed: Deed, tries: int = 0) -> None:
        if self._healed:
            return
        if deed.on is not None:
            self.waiting.setdefault(deed.on, []).append(deed)
            return
        misfortune = getattr(self, f"_befall_{deed.kind}", None)
        if misfortune is not None:
            misfortune(**deed.what)
            return
        alive = self._alive()
        process = self.dice.choice(alive) if alive else None
        if process is None:
            if tries < CALLS_MAX:
                self.universe.after(self.dice.randrange(SECOND, 60 * SECOND), self._do, deed, tries + 1)
            return
        process.call(self._call(process, deed, self._concerned[1]))

    async def _call(self, process: Process, deed: Deed, webhook: str | None) -> None:
        ask: Callable[..., Awaitable[None]] = getattr(self, f"_ask_{deed.kind}")
        concerned = {"webhook": webhook} if deed.kind in ("filters", "remove") else {}
        try:
            await ask(process, **deed.what, **concerned)
        except RequestError as error:
            self.observer.seen[f"refused {error.code}"] += 1
            self.observer.note("refused", process, None, deed.kind, error.code)
        except StoreUnavailable as error:
            self.observer.seen["unavailable"] += 1
            self.observer.note("unavailable", process, None, deed.kind, str(error).split("/")[-1])
        except Exception as error:
            self.observer.fail("mistake", f"{deed.kind} raised {error!r}")

    async def _caller(self, process: Process, owner: str) -> Any:
        return await process.tokens.authenticate(f"Bearer {self._texts[owner]}")

    async def _grant(self, process: Process, owner: str) -> None:
        created = await process.tokens.create(
            TokenRequest(owner=Owner(owner, "app"), scopes=frozenset(Scope))
        )
        self._texts[owner] = created.text
        self._grants[owner] = created.token.gid

    async def _ask_grant(self, process: Process, owner: str) -> None:
        await self._grant(process, owner)

    async def _ask_revoke(self, process: Process, owner: str) -> None:
        await process.tokens.revoke(self._grants[owner])

    async def _ask_create(
        self, process: Process, owner: str, resource: str, host: str, filters: list[dict[str, Any]]
    ) -> None:
        caller = await self._caller(process, owner)
        target = f"https://{host}/{owner}/{resource}"
        request = CreateRequest(resource, target, parse_filters(filters))
        established = await process.desk.establish(caller, request)
        webhook = established.webhook
        if webhook.gid not in self.observer.hooks:
            self.observer.fail("durable", f"webhook {webhook.gid} was acknowledged and not committed")
        self._told.append((webhook.gid, owner, webhook.resource.resource_type))

    def _webhook(self, pick: float, webhook: str | None) -> tuple[str, str, str] | None:
        for told in self._told:
            if told[0] == webhook:
                return told
        return self._told[int(pick * len(self._told))] if self._told else None

    async def _ask_filters(
        self,
        process: Process,
        pick: float,
        small: list[dict[str, Any]],
        large: list[dict[str, Any]],
        webhook: str | None,
    ) -> None:
        chosen = self._webhook(pick, webhook)
        if chosen is not None:
            gid, owner, kind = chosen
            filters = parse_filters(large if kind in ("workspace", "portfolio") else small)
            await process.desk.replace_filters(await self._caller(process, owner), gid, filters)

    async def _ask_remove(self, process: Process, pick: float, webhook: str | None) -> None:
        chosen = self._webhook(pick, webhook)
        if chosen is None:
            return
        gid, owner, _ = chosen
        caller = await self._caller(process, owner)
        await process.desk.remove(caller, gid)
        self.observer.removed(process, gid)
        try:
            await process.desk.get(caller, gid)
        except NotFound:
            return
        self.observer.fail("ended", "a removed webhook can still be read", self.observer.hooks[gid])

    async def _ask_look(self, process: Process, pick: float) -> None:
        owner = OWNERS[int(pick * len(OWNERS))]
        page = await process.desk.list_page(await self._caller(process, owner), ListQuery(WORKSPACE))
        for webhook in page.webhooks:
            if self.observer.hooks[webhook.gid].owner != owner:
                self.observer.fail("visible", f"{webhook.gid} is not {owner}'s")

    async def _ask_publish(self, process: Process, events: list[dict[str, Any]], key: str | None) -> None:
        for event in events:
            self.observer.raw[int(event["user"])] = event
        caller = await self._caller(process, PUBLISHER)
        body = {"data": events}
        published = await process.publishing.publish(
            caller, Body(events), raw=msgspec.json.encode(body), key=key
        )
        self.observer.acknowledged(events, published)

    async def _ask_put(self, process: Process, gid: str, resource_type: str, parents: list[str]) -> None:
        caller = await self._caller(process, PUBLISHER)
        await process.publishing.put(caller, gid, Body({"resource_type": resource_type, "parents": parents}))

    async def _ask_drop(self, process: Process, gid: str) -> None:
        await process.publishing.delete(await self._caller(process, PUBLISHER), gid)

    # -- misfortunes -------------------------------------------------------------------------------

    def _befall_crash(self, pick: float, down: Micros, fuse: int) -> None:
        process = self._pick(pick)
        if process is not None:
            self._kill(process, down)
            self.observer.compare_rows()

    def _befall_fuse(self, pick: float, down: Micros, fuse: int) -> None:
        """Killed between two of the next callbacks: at any `await`."""
        process = self._pick(pick)
        if process is not None:
            process.loop.fuse = fuse
            process.loop.on_fuse = lambda: self._kill(process, down)

    def _befall_drain(self, pick: float, down: Micros, fuse: int) -> None:
        process = self._pick(pick)
        if process is not None:
            process.down = down
            self.troubled(self.plan.policy.delivery_timeout + down + 60 * SECOND)
            process.drain()

    def _befall_cut_power(self, pick: float, down: Micros, fuse: int) -> None:
        for process in list(self.processes):
            if process is not None:
                self._kill(process, down)
        self.observer.seen["power_cut"] += 1
        lost = self.disk.cut_power()
        self.observer.note("power cut", None, None, len(lost))
        self.observer.power_cut(lost)
        self.observer.compare_rows()

    def _befall_stall(self, pick: float, span: Micros) -> None:
        """The process gets no time: a laptop's lid, a virtual machine that is moved."""
        process = self._pick(pick)
        if process is not None:
            process.loop.stalled = True
            self.observer.seen["stall"] += 1
            self.observer.note("stalled", process, None, span)
            self.troubled(span)
            self.universe.after(span, self._resume, process)

    def _resume(self, process: Process) -> None:
        process.loop.stalled = False

    def _befall_jump(self, by: Micros) -> None:
        self.jumped += by
        self.observer.seen["clock_forward" if by > 0 else "clock_back"] += 1
        self.observer.note("clock", None, None, by)
        self.observer.jumped_at.append((self.universe.now, by))
        # What was due by the old clock is due by the new one at the latest after the longest wait.
        policy = self.plan.policy
        self.troubled(max(policy.retry_max, policy.heartbeat_every * 11 // 10))

    def _befall_trouble(self, trouble: str, odds: float, span: Micros) -> None:
        self.disk.trouble, self.disk.odds = trouble, odds
        self.observer.note("disk", None, None, trouble, odds)
        self.troubled(span)
        self.universe.after(span, self._mend)

    def _mend(self) -> None:
        self.disk.trouble = None


# -- running one -----------------------------------------------------------------------------------


def _constants(plan: Plan) -> dict[str, dict[str, Any]]:
    """Bounds of the engine that a world sets otherwise: small pages, and looks at the store as rare as its days."""
    return {
        "tidings.dispatcher": {"POLL_SECONDS": plan.poll / SECOND},
        "tidings.upkeep": {"LOOK_SECONDS": LOOK_FACTOR * plan.poll / SECOND},
        "tidings.store.sqlite.marking": {"MARK_MAX": plan.mark_max, "_MUCH": plan.mark_much},
        "tidings.store.sqlite.reading": {
            "SCAN_MAX": plan.scan_max,
            "_FIRST_EVENTS": plan.scan_max,
            "_STEP_EVENTS": plan.scan_max,
        },
    }


@contextmanager
def _set(plan: Plan) -> Iterator[None]:
    logger = logging.getLogger("tidings")
    with ExitStack() as stack:
        for name, values in _constants(plan).items():
            module = importlib.import_module(name)
            for key, value in values.items():
                stack.enter_context(patch.object(module, key, value))
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL + 1)
        yield


def run_world(plan: Plan) -> Result:
    """Run a world to its end, or to its first violation."""
    collecting = gc.isenabled()
    # A world is young rubbish: collected once, when it has ended.
    gc.disable()
    try:
        with _set(plan), disk(random.Random(f"disk {plan.seed}"), key_id=SEALER.key_id) as made:
            return _run(World(plan, made))
    finally:
        if collecting:
            gc.enable()


def _run(world: World) -> Result:
    observer = world.observer
    try:
        world.run()
    except Spinning as error:
        observer.fail("idle", str(error))
    except Exception:
        observer.fail("mistake", traceback.format_exc())
    for kind, count in world.disk.failures.items():
        observer.seen[f"disk {kind}"] += count
    result = Result(world.plan, observer.violation, observer.seen, observer.trace, world.universe.now)
    _bury(world)
    return result


def _bury(world: World) -> None:
    """Let go of tasks that never end. What they would still do on the way is nobody's any more."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda unraisable: None
    try:
        for loop in world.universe.every_loop:
            loop.dead = True
            for task in loop.tasks:
                _close(task.get_coro())
            loop.tasks.clear()
        gc.collect(0)
    finally:
        sys.unraisablehook = hook


def _close(coroutine: Any) -> None:
    """End a coroutine, however often it wants to wait for something first."""
    for _ in range(10):
        try:
            coroutine.close()
        except BaseException:
            continue
        return
