"""`serve` and `dispatch`: open what the settings name, and run on it until told to stop.

One process, unless more are asked for: then this one makes everything ready, and has workers do the rest.
"""

import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from tidings import logs
from tidings.config import Settings
from tidings.errors import CannotListen
from tidings.runtime.database import load_key, open_with, token_desk
from tidings.runtime.machine import DICE, allow_open_files, now
from tidings.runtime.service import Service, Serving, assemble, prepare
from tidings.runtime.workers import Workers
from tidings.sealing import Sealer
from tidings.service.rates import RateLimit
from tidings.service.webhooks import HANDSHAKES_MAX
from tidings.transport import AresLookup, CachingResolver, Sender, SenderSettings
from tidings.web import server

# Open files beyond connections: database, logs, locks, what libraries hold.
FILES_SPARE: Final = 64


async def serve(settings: Settings, *, announce: Callable[[Serving], None] = lambda serving: None) -> None:
    """Serve, and deliver unless told not to, until SIGTERM or SIGINT; then finish what is under way.

    Raises:
        SettingsError, CannotListen, StoreUnfit, StoreUnavailable: nothing was started.
        CannotStart, StoreUnfit: a worker cannot run; the others have ended as they do when told to stop.
    """
    configure_log(settings)
    sealer = Sealer(load_key(settings))
    allow_open_files(_files(settings))
    listener = _listen(settings)
    try:
        if settings.workers == 1:
            async with opened(settings, sealer, migrate=True) as service:
                serving = await service.prepare(listener.getsockname())
                await service.run(listener, announced=lambda: announce(serving))
        else:
            serving = await _make_ready(settings, listener.getsockname(), sealer)
            await Workers(settings, listener).run(announced=lambda: announce(serving))
    finally:
        listener.close()


async def dispatch(settings: Settings, *, announce: Callable[[], None] = lambda: None) -> None:
    """Deliver, and answer nobody, until SIGTERM or SIGINT; then finish what is under way.

    Raises:
        SettingsError, StoreUnfit, StoreUnavailable: nothing was started.
    """
    configure_log(settings)
    sealer = Sealer(load_key(settings))
    allow_open_files(_files(settings))
    async with opened(settings, sealer, migrate=True) as service:
        await service.run(None, announced=announce)


def configure_log(settings: Settings, **fields: object) -> None:
    """Log as the settings say; if they do not, as text on a terminal and JSON elsewhere."""
    as_json = settings.log == "json" if settings.log else not sys.stderr.isatty()
    logs.configure(as_json=as_json, fields=fields)


async def _make_ready(settings: Settings, address: tuple[Any, ...], sealer: Sealer) -> Serving:
    """Make or migrate the database and its first tokens, and close it: workers open it for themselves."""
    store = open_with(settings, sealer, migrate=True, serve=True)
    try:
        tokens = token_desk(store, now=now, dice=DICE)
        return await prepare(settings, address, store=store, tokens=tokens, sealer=sealer)
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def opened(
    settings: Settings, sealer: Sealer, *, migrate: bool, rates: RateLimit | None = None
) -> AsyncIterator[Service]:
    """The service on the settings' database and this machine's network, closed at the end."""
    async with contextlib.AsyncExitStack() as stack:
        store = open_with(settings, sealer, migrate=migrate, serve=True)
        stack.push_async_callback(store.close)
        sending = _sender_settings(settings)
        resolver = CachingResolver(AresLookup(), lookups_max=sending.lookup_limit)
        stack.push_async_callback(resolver.close)
        sender = Sender(sending, resolver)
        stack.push_async_callback(sender.close)
        yield assemble(settings, store, sender, sealer, rates=rates)


def _files(settings: Settings) -> int:
    """How many open files deliveries, callers and the database may need."""
    return _sender_settings(settings).socket_limit + server.CONNECTIONS_MAX + FILES_SPARE


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
