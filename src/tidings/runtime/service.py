"""The service, put together: everything that runs on a store and a network."""

import asyncio
import logging
import random
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from starlette.applications import Starlette

from tidings import sandbox
from tidings.config import Settings
from tidings.dispatcher import Clocks, Dispatcher
from tidings.model import Keeping, Network, Quotas, SealedSecret
from tidings.runtime.database import token_desk
from tidings.runtime.machine import CLOCKS, DICE, SECRET_BYTES, new_gid, new_phrase, now
from tidings.sealing import NONCE_BYTES, Sealer
from tidings.service.publishing import Publishing
from tidings.service.rates import RateLimit
from tidings.service.tokens import TokenDesk
from tidings.service.webhooks import Dice, WebhookDesk
from tidings.store import Store
from tidings.upkeep import Upkeep
from tidings.web import app, server
from tidings.web.calls import Desk
from tidings.web.health import Health
from tidings.web.publishing import PublishingCalls
from tidings.web.tokens import TokenCalls
from tidings.web.webhooks import WebhookCalls

logger = logging.getLogger(__name__)

# Events that a live webhook has yet to read are kept this many times the retention, then no longer: a paused webhook
# must not fill the disk.
CEILING_FACTOR: Final = 2
# Opened secrets that are remembered: the busiest webhooks' are opened once, not with each delivery.
OPENED_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Serving:
    """What is said once the service answers. `sandbox_token` is None outside sandbox mode."""

    url: str
    database: str
    sandbox_token: str | None


async def prepare(
    settings: Settings, address: tuple[Any, ...], *, store: Store, tokens: TokenDesk, sealer: Sealer
) -> Serving:
    """Make the tokens that settings and sandbox mode promise, for a service at this address."""
    if settings.bootstrap_token is not None:
        await tokens.bootstrap(settings.bootstrap_token)
    token = None
    if settings.sandbox:
        # Derived, not stored: the same at every start, and in no file as text.
        token = "tdg_" + sealer.derive(b"sandbox token").hex()[:32]
        await sandbox.seed(store, tokens, token=token, now=now())
    host, port = address[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return Serving(url, str(settings.database), token)


class Service:
    """Everything that runs, once it is put together."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store,
        tokens: TokenDesk,
        webhooks: WebhookDesk,
        dispatcher: Dispatcher,
        upkeep: Upkeep,
        application: Starlette,
        sealer: Sealer,
    ) -> None:
        self._settings = settings
        self._store = store
        self._tokens = tokens
        self._webhooks = webhooks
        self.dispatcher = dispatcher
        self._upkeep = upkeep
        self.application = application
        self._web = server.make(application)
        self._sealer = sealer

    async def prepare(self, address: tuple[Any, ...]) -> Serving:
        """Make the tokens that settings and sandbox mode promise."""
        return await prepare(
            self._settings, address, store=self._store, tokens=self._tokens, sealer=self._sealer
        )

    async def run(self, listener: socket.socket | None, *, announced: Callable[[], None]) -> None:
        """Run until `stop` is called, or a signal calls it; without a listener, deliver and answer nobody."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        async with asyncio.TaskGroup() as tasks:
            upkeep = tasks.create_task(self._upkeep.run())
            delivering = tasks.create_task(self._deliver())
            if listener is None:
                announced()
            else:
                await self._answer(listener, announced)
                self.dispatcher.drain()
            await delivering
            upkeep.cancel()

    def stop(self) -> None:
        """Take no more requests, start no more deliveries; `run` ends when the last is recorded."""
        logger.info(
            "stopping, once what is under way is done", extra={"in_flight": self.dispatcher.in_flight}
        )
        self._web.should_exit = True
        self.dispatcher.drain()

    async def _answer(self, listener: socket.socket, announced: Callable[[], None]) -> None:
        """Answer calls until told to stop, and finish those under way."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._web.serve(sockets=[listener]))
            await self._web.answering.wait()
            announced()
        await self._webhooks.finish()
        await self._tokens.finish()

    async def _deliver(self) -> None:
        if self._settings.dispatch:
            await self.dispatcher.run()


def assemble(
    settings: Settings,
    store: Store,
    network: Network,
    sealer: Sealer,
    *,
    clocks: Clocks = CLOCKS,
    dice: random.Random = DICE,
    rates: RateLimit | None = None,
) -> Service:
    """Put the service together on a store and a network; nothing is opened or started yet.

    Tests bring their own network, clocks and dice; everything else is then as it is served. `rates` is what several
    processes share; without it this one counts for itself.
    """
    policy = settings.policy
    dispatcher = Dispatcher(
        store,
        network.send,
        policy=policy,
        clocks=clocks,
        unseal=lru_cache(OPENED_MAX)(lambda secret, gid: sealer.unseal(secret, webhook=gid)),
        concurrency=settings.concurrency,
    )
    tokens = token_desk(store, now=clocks.now, dice=dice)

    def seal(secret: str, gid: str) -> SealedSecret:
        return sealer.seal(secret, webhook=gid, nonce=dice.randbytes(NONCE_BYTES))

    webhooks = WebhookDesk(
        store,
        network.post,
        policy=policy,
        rules=settings.target_rules,
        quotas=Quotas(settings.quota_per_resource, settings.quota_per_owner),
        now=clocks.now,
        dice=Dice(
            new_gid=lambda: new_gid(dice),
            new_secret=lambda: dice.randbytes(SECRET_BYTES).hex(),
            seal=seal,
            jitter=clocks.jitter,
        ),
        offset_key=sealer.derive(b"offsets"),
        withdraw=dispatcher.withdraw,
    )
    keeping = Keeping(
        retention=settings.retention,
        ceiling=CEILING_FACTOR * settings.retention,
        restore_within=settings.restore_within,
    )
    rates = rates or RateLimit(settings.rate_limit, elapsed=clocks.elapsed)
    calls = app.Calls(
        desk=Desk(tokens, rates, new_phrase=lambda: new_phrase(dice)),
        webhooks=WebhookCalls(webhooks, policy=policy, public_url=settings.public_url),
        publishing=PublishingCalls(Publishing(store, now=clocks.now, wake=dispatcher.wake)),
        tokens=TokenCalls(tokens),
        health=Health(
            store,
            now=clocks.now,
            elapsed=clocks.elapsed,
            pulse_age=lambda: clocks.elapsed() - dispatcher.pulse if settings.dispatch else None,
        ),
    )
    return Service(
        settings,
        store=store,
        tokens=tokens,
        webhooks=webhooks,
        dispatcher=dispatcher,
        upkeep=Upkeep(store, policy=policy, keeping=keeping, clocks=clocks, wake=dispatcher.wake),
        application=app.build(calls, cors_origins=settings.cors_origins),
        sealer=sealer,
    )
