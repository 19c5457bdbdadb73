"""The composition root: the only place that knows the concrete store, sender and web together.

Clock, dice and environment enter here and are passed on; nothing else in the service reads them.
"""

import asyncio
import base64
import contextlib
import gc
import logging
import os
import random
import resource
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import uvloop
from starlette.applications import Starlette

from tidings import logs, sandbox
from tidings.config import Settings, SqliteFile
from tidings.dispatcher import Clocks, Dispatcher
from tidings.errors import CannotListen, SettingsError, StoreUnfit
from tidings.model import Keeping, Micros, Post, Quotas, SealedSecret
from tidings.sealing import KEY_BYTES, NONCE_BYTES, Sealer
from tidings.service.publishing import Publishing
from tidings.service.rates import RateLimit
from tidings.service.tokens import TokenDesk
from tidings.service.webhooks import HANDSHAKES_MAX, Dice, WebhookDesk
from tidings.store import Store
from tidings.store.sqlite import SqliteStore
from tidings.store.sqlite import open_store as open_sqlite
from tidings.transport import AresLookup, CachingResolver, Sender, SenderSettings
from tidings.upkeep import Upkeep
from tidings.web import app, server
from tidings.web.calls import Desk
from tidings.web.health import Health
from tidings.web.publishing import PublishingCalls
from tidings.web.tokens import TokenCalls
from tidings.web.webhooks import WebhookCalls

T = TypeVar("T")

logger = logging.getLogger(__name__)

SECRET_BYTES: Final = 32
# Events that a live webhook has yet to read are kept this many times the retention, then no longer: a paused webhook
# must not fill the disk.
CEILING_FACTOR: Final = 2
# Objects made before the young ones are looked through. Deliveries make and drop thousands without cycles; at Python's
# 700 the collector took a tenth of the time and found nothing.
GC_THRESHOLD: Final = 20_000
# Open files beyond connections: database, logs, locks, what libraries hold.
FILES_SPARE: Final = 64
# Opened secrets that are remembered: the busiest webhooks' are opened once, not with each delivery.
OPENED_MAX: Final = 10_000
_PHRASE_WORDS: Final = (
    *(
        "amber",
        "brave",
        "calm",
        "dusty",
        "eager",
        "fuzzy",
        "gentle",
        "hollow",
        "icy",
        "jolly",
        "keen",
        "lucky",
    ),
    *(
        "badgers",
        "comets",
        "dolphins",
        "engines",
        "falcons",
        "geysers",
        "harbors",
        "islands",
        "jackdaws",
        "kites",
    ),
    *(
        "argue",
        "bounce",
        "crawl",
        "drift",
        "echo",
        "float",
        "gather",
        "hurry",
        "invent",
        "juggle",
        "knit",
        "listen",
    ),
)


def now() -> Micros:
    """The time of day, in microseconds since the epoch."""
    return time.time_ns() // 1000


def elapsed() -> Micros:
    """A clock that only goes forward, in microseconds."""
    return time.monotonic_ns() // 1000


# The operating system's randomness: gids, secrets and tokens must not be guessed.
DICE: Final = random.SystemRandom()


def new_gid(dice: random.Random) -> str:
    """A fresh gid: sixteen digits, as Asana's are."""
    return str(dice.randrange(1_000_000_000_000_000, 9_000_000_000_000_000))


def new_token(dice: random.Random) -> str:
    """A fresh bearer token: 256 random bits, recognisable in a leak."""
    return "tdg_" + base64.urlsafe_b64encode(dice.randbytes(SECRET_BYTES)).rstrip(b"=").decode()


def new_phrase(dice: random.Random) -> str:
    """A few words that an operator finds in the log when a caller quotes them."""
    words = " ".join(dice.choice(_PHRASE_WORDS) for _ in range(4))
    return f"{dice.randrange(1000, 10_000)} {words}"


CLOCKS: Final = Clocks(now=now, elapsed=elapsed, jitter=random.random)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of this module to its end, on the loop the service is made for."""
    gc.set_threshold(GC_THRESHOLD)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


# -- the database ----------------------------------------------------------------------------------


def load_key(settings: Settings) -> bytes:
    """The sealing key: the setting, or the file beside the database, made when it is missing.

    Raises:
        StoreUnfit: the file does not hold a key, or others may read it.
    """
    if settings.secret_key is not None:
        return settings.secret_key
    path = _database_path(settings).with_name(_database_path(settings).name + ".key")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_key(path)
    except OSError as error:
        raise StoreUnfit(f"the key file {path} cannot be made: {error.strerror}") from error
    key = secrets.token_bytes(KEY_BYTES)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(key.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    return key


def _read_key(path: Path) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise StoreUnfit(f"the key file {path} may be read by others; run: chmod 600 {path}")
        key = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise StoreUnfit(f"the key file {path} cannot be read: {error}") from error
    if len(key) != KEY_BYTES:
        raise StoreUnfit(f"the key file {path} must hold {2 * KEY_BYTES} hex characters")
    return key


def _database_path(settings: Settings) -> Path:
    if not isinstance(settings.database, SqliteFile):
        raise SettingsError(
            [
                f"TIDINGS_DATABASE {settings.database}: this version has no PostgreSQL store yet; "
                "name a sqlite:/// file"
            ]
        )
    return settings.database.path


def _open(settings: Settings, sealer: Sealer, *, migrate: bool) -> SqliteStore:
    return open_sqlite(
        str(_database_path(settings)),
        migrate=migrate,
        generation=secrets.token_hex(16),
        key_id=sealer.key_id,
        sandbox=settings.sandbox,
    )


@contextlib.asynccontextmanager
async def open_store(settings: Settings, *, migrate: bool = True) -> AsyncIterator[Store]:
    """The store of the settings, closed at the end."""
    store = _open(settings, Sealer(load_key(settings)), migrate=migrate)
    try:
        yield store
    finally:
        await store.close()


async def migrate(settings: Settings) -> None:
    """Make the database, or bring it up to date."""
    async with open_store(settings, migrate=True):
        pass


@contextlib.asynccontextmanager
async def open_tokens(settings: Settings) -> AsyncIterator[TokenDesk]:
    """The tokens of the settings' database, for the operator at the machine."""
    async with open_store(settings) as store:
        yield _token_desk(store, now=now, dice=DICE)


def _token_desk(store: Store, *, now: Callable[[], Micros], dice: random.Random) -> TokenDesk:
    return TokenDesk(store, now=now, new_gid=lambda: new_gid(dice), new_text=lambda: new_token(dice))


# -- serving ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Serving:
    """What is said once the service answers. `sandbox_token` is None outside sandbox mode."""

    url: str
    database: str
    sandbox_token: str | None


async def serve(settings: Settings, *, announce: Callable[[Serving], None] = lambda serving: None) -> None:
    """Serve, and deliver unless told not to, until SIGTERM or SIGINT; then finish what is under way.

    Raises:
        SettingsError, CannotListen, StoreUnfit, StoreUnavailable: nothing was started.
    """
    logs.configure(as_json=settings.log == "json" if settings.log else not sys.stderr.isatty())
    sealer = Sealer(load_key(settings))
    _raise_file_limit(settings)
    listener = _listen(settings)
    store = _open(settings, sealer, migrate=True)
    try:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(store.close)
            resolver = CachingResolver(AresLookup())
            stack.push_async_callback(resolver.close)
            sender = Sender(_sender_settings(settings), resolver)
            stack.push_async_callback(sender.close)
            service = assemble(settings, store, sender.post, sealer)
            serving = await service.prepare(listener.getsockname())
            await service.run(listener, announced=lambda: announce(serving))
    finally:
        listener.close()


def _raise_file_limit(settings: Settings) -> None:
    """Allow as many open files as deliveries, callers and the database may need, as far as the machine lets us."""
    wanted = 2 * (settings.concurrency + HANDSHAKES_MAX) + server.CONNECTIONS_MAX + FILES_SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        logger.warning("%d open files are allowed, %d may be needed: see ulimit -n", allowed, wanted)


def _listen(settings: Settings) -> Any:
    try:
        return server.listen(settings.host, settings.port)
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
            "another address is named with --host and --port"
        ) from error


def _sender_settings(settings: Settings) -> SenderSettings:
    # Handshakes have slots of their own, so that deliveries cannot keep a caller waiting.
    return SenderSettings(
        rules=settings.target_rules,
        concurrency=settings.concurrency + HANDSHAKES_MAX,
        ca_bundle=settings.ca_bundle,
        egress_proxy=settings.egress_proxy,
    )


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
        if self._settings.bootstrap_token is not None:
            await self._tokens.bootstrap(self._settings.bootstrap_token)
        token = None
        if self._settings.sandbox:
            # Derived, not stored: the same at every start, and in no file as text.
            token = "tdg_" + self._sealer.derive(b"sandbox token").hex()[:32]
            await sandbox.seed(self._store, self._tokens, token=token, now=now())
        host, port = address[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return Serving(url, str(self._settings.database), token)

    async def run(self, listener: Any, *, announced: Callable[[], None]) -> None:
        """Run until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        async with asyncio.TaskGroup() as tasks:
            upkeep = tasks.create_task(self._upkeep.run())
            delivering = tasks.create_task(self._deliver())
            serving = tasks.create_task(self._web.serve(sockets=[listener]))
            await self._web.answering.wait()
            announced()
            await serving
            await self._webhooks.finish()
            self.dispatcher.drain()
            await delivering
            upkeep.cancel()

    def _stop(self) -> None:
        """Take no more requests, start no more deliveries; `run` ends when the last is recorded."""
        self._web.should_exit = True
        self.dispatcher.drain()

    async def _deliver(self) -> None:
        if self._settings.dispatch:
            await self.dispatcher.run()


def assemble(
    settings: Settings,
    store: Store,
    post: Post,
    sealer: Sealer,
    *,
    clocks: Clocks = CLOCKS,
    dice: random.Random = DICE,
) -> Service:
    """Put the service together on a store and a way to post; nothing is opened or started yet.

    Tests bring their own network, clocks and dice; everything else is then as it is served.
    """
    policy = settings.policy
    dispatcher = Dispatcher(
        store,
        post,
        policy=policy,
        clocks=clocks,
        unseal=lru_cache(OPENED_MAX)(lambda secret, gid: sealer.unseal(secret, webhook=gid)),
        concurrency=settings.concurrency,
    )
    tokens = _token_desk(store, now=clocks.now, dice=dice)

    def seal(secret: str, gid: str) -> SealedSecret:
        return sealer.seal(secret, webhook=gid, nonce=dice.randbytes(NONCE_BYTES))

    webhooks = WebhookDesk(
        store,
        post,
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
    rates = RateLimit(settings.rate_limit, elapsed=clocks.elapsed)
    calls = app.Calls(
        desk=Desk(tokens, rates, new_phrase=lambda: new_phrase(dice)),
        webhooks=WebhookCalls(webhooks, policy=policy, public_url=settings.public_url),
        publishing=PublishingCalls(Publishing(store, now=clocks.now, wake=dispatcher.wake)),
        tokens=TokenCalls(tokens),
        health=Health(
            store,
            now=clocks.now,
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
