"""Every setting: its type, its default, how it is read, what it means. One entry of this class is one setting."""
# ruff: noqa: RUF009  -- `_setting` is `dataclasses.field` in other words

import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

from tidings.config import values
from tidings.config.sources import Variable, gather, mistake
from tidings.config.values import (
    Database,
    LogFormat,
    Network,
    Postgres,
    SqliteFile,
    duration,
    listed,
    spelled,
    whole,
)
from tidings.delivery import Policy
from tidings.errors import SettingsError
from tidings.limits import SCAN_MAX
from tidings.model import Micros
from tidings.targets import DENIED_PORTS, Rules

T = TypeVar("T")

SANDBOX_DATABASE: Final = "sqlite:///sandbox.db"
# What sandbox mode opens: this machine, and networks that are nobody else's (RFC 1918, RFC 4193). Link-local
# stays closed: cloud machines keep their credentials there.
SANDBOX_TARGETS: Final = tuple(
    ip_network(each)
    for each in ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
# At this pace the 24 hours until a webhook is given up are under a second.
SPEED_MAX: Final = 100_000
# Processes of one service. Only one of them writes at a time, and each keeps a page cache and open files of its own:
# more than a large machine has cores only wait for each other.
WORKERS_MAX: Final = 64
# However fast time runs, nothing is repeated more often than every millisecond.
_SHORTEST: Final[Micros] = 1_000


def _setting(
    default: str | None,
    read: Callable[[str], T],
    meaning: str,
    *,
    shown: str | None = None,
    secret: bool = False,
    credentials: bool = False,
    many: bool = False,
) -> T:
    """Declare a setting. `default` is written as a user would; None is nothing, which `shown` describes."""
    value = None if default is None else read(default)
    metadata = {
        "read": read,
        "default": shown or default or "none",
        "meaning": meaning,
        "secret": secret,
        "credentials": credentials,
        "many": many,
    }
    made: Field[Any] = field(default=cast(Any, value), metadata=metadata, repr=not (secret or credentials))
    return cast(T, made)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one process is told, in full: frozen, made by `load`; `Settings()` has the defaults.

    Durations are microseconds.
    """

    database: Database = _setting(
        "sqlite:///tidings.db",
        values.database,
        "Three slashes relative, four absolute; or `postgresql://user:password@host:port/name`. "
        f"Sandbox: `{SANDBOX_DATABASE}`.",
        credentials=True,
    )
    host: str = _setting("127.0.0.1", values.host, "Address to listen on.")
    port: int = _setting("8080", values.port, "Port to listen on; 0 takes a free one.")
    public_url: str | None = _setting(
        None, values.public_url, "Base of `next_page.uri` behind a proxy.", shown="from the request"
    )
    bootstrap_token: str | None = _setting(
        None,
        values.bootstrap_token,
        "On a database without tokens: creates the owner's token with this value (16 to 256 printable ASCII "
        "characters), all scopes, all workspaces.",
        secret=True,
    )
    secret_key: bytes | None = _setting(
        None,
        values.secret_key,
        "64 hex characters; seals webhook secrets at rest. Required with PostgreSQL.",
        shown="a file beside the SQLite database, mode 0600, made on first start",
        secret=True,
    )
    allow_targets: tuple[Network, ...] = _setting(
        "none",
        listed(values.network),
        "CIDR ranges that are allowed as targets although special-purpose, such as `127.0.0.0/8,::1/128`. Opens "
        "names that resolve only into them, `localhost` included.",
        many=True,
    )
    require_https: bool = _setting("false", values.boolean, "Refuse http targets.")
    retry_first: Micros = _setting(
        "10s",
        duration("10ms", "1h", why="sooner would be a flood, later would look like a loss"),
        "Wait before the first retry; it doubles from there.",
    )
    retry_max: Micros = _setting(
        "1h",
        duration("10ms", "24h", why="a receiver that is back must hear from us within that time"),
        "Longest wait between two retries.",
    )
    give_up_after: Micros = _setting(
        "24h",
        duration("1s", "90d", why="what a failing webhook has not got yet is kept that long"),
        "Unbroken failure until a webhook is deleted.",
    )
    restore_within: Micros = _setting(
        "7d",
        duration("0s", "90d", why="the backlog of an ended webhook is kept that long"),
        "How long an expired or ended webhook can be restored, its backlog included.",
    )
    heartbeat_every: Micros = _setting(
        "8h",
        duration("100ms", "30d", why="every webhook is posted to that often, even when nothing happens"),
        "Quiet time after which a webhook is sent an empty delivery.",
    )
    delivery_timeout: Micros = _setting(
        "10s",
        duration(
            "100ms", "5m", why="the caller of a create waits that long, and a slow target holds its slot"
        ),
        "For a whole exchange, the handshake too.",
    )
    batch_max: int = _setting(
        "100",
        whole(1, SCAN_MAX, why="one turn reads no more behind a cursor"),
        "Events per delivery.",
    )
    concurrency: int = _setting(
        "512",
        whole(1, 10_000, why="each takes a connection, and so a file descriptor"),
        "Deliveries in flight per process; per origin a quarter of it.",
    )
    strict_success: bool = _setting("false", values.boolean, "Only 200 and 204 count as delivered.")
    quota_per_resource: int = _setting(
        "1000",
        whole(1, 1_000_000, why="0 would refuse every webhook, and an event is read once for each of them"),
        "Webhooks per resource, over all apps.",
    )
    quota_per_owner: int = _setting(
        "10000",
        whole(1, 10_000_000, why="0 would refuse every webhook, and past the other end it bounds nothing"),
        "Webhooks per user and app.",
    )
    ca_bundle: Path | None = _setting(
        None, values.file, "PEM file of the authorities that https targets are held to.", shown="system trust"
    )
    egress_proxy: str | None = _setting(
        None,
        values.proxy_url,
        "Proxy that deliveries go through, `http://[user:password@]host:port`.",
        credentials=True,
    )
    deny_ports: frozenset[int] = _setting(
        ",".join(map(str, sorted(DENIED_PORTS))),
        values.denied_ports,
        "Ports that nothing is sent to; `none` opens all.",
        shown="the usual mail, shell and database ports",
        many=True,
    )
    cors_origins: tuple[str, ...] = _setting(
        "none",
        listed(values.origin),
        "Origins of web pages that may call the API, such as `https://app.example.com`.",
        many=True,
    )
    retention: Micros = _setting(
        "14d",
        duration("1s", "3650d", why="the database grows with it"),
        "How long events and attempts are kept, counted while the service is up; at least give-up + restore. "
        "Idempotency keys: 24 h.",
    )
    rate_limit: int = _setting(
        "1500",
        whole(0, 1_000_000, why="0 turns it off"),
        "Requests per minute and token on Asana's own calls, counted over all workers; 0 turns it off.",
    )
    log: LogFormat | None = _setting(
        None, values.log_format, "Form of the log, `text` or `json`.", shown="text on a terminal, else json"
    )

    # What only flags say.
    migrate: bool = False
    dispatch: bool = True
    sandbox: bool = False
    # Sandbox mode was told twice that it may listen beyond loopback.
    sandbox_anywhere: bool = False
    # How many times faster time runs for back-off, heartbeats and expiry.
    speed: float = 1.0
    # How many processes serve, on one socket and one database.
    workers: int = 1

    @classmethod
    def load(cls, environ: Mapping[str, str], file: Path | None, flags: Mapping[str, object]) -> Self:
        """Read the settings: a flag beats the variable, the variable beats the file, the file the default.

        `flags` holds what the command line gave, by this class's field names; None is not given. Raises
        `SettingsError` with every mistake of every source, in words that hold no secret.
        """
        given = gather(describe(), environ=environ, file=file, flags=flags)
        mistakes = list(given.mistakes)
        modes = {name: bool(flags[name]) for name in _MODES if flags.get(name) is not None}
        speed = _speed(flags.get("speed"), mistakes)
        workers = _workers(flags.get("workers"), mistakes)
        read = dict(given.values)
        if modes.get("sandbox"):
            read.setdefault("database", values.database(SANDBOX_DATABASE))
        # What could not be read stands at its default, so that the rest is still held against each other.
        made = cls(**cast(dict[str, Any], read | modes), speed=speed or 1.0, workers=workers or 1)
        mistakes.extend(_contradictions(made, given.places, sped=flags.get("speed") is not None))
        if mistakes:
            raise SettingsError(mistakes)
        return made

    @property
    def policy(self) -> Policy:
        """The delivery policy; the sandbox's speed divides its durations and leaves every clock real."""
        return Policy(
            retry_first=self._sped(self.retry_first),
            retry_max=self._sped(self.retry_max),
            give_up_after=self._sped(self.give_up_after),
            heartbeat_every=self._sped(self.heartbeat_every),
            delivery_timeout=self.delivery_timeout,
            batch_max=self.batch_max,
            strict_success=self.strict_success,
        )

    def _sped(self, micros: Micros) -> Micros:
        return max(_SHORTEST, int(micros / self.speed))

    @property
    def target_rules(self) -> Rules:
        """What a webhook may be sent to; in sandbox mode also loopback and private networks."""
        opened = SANDBOX_TARGETS if self.sandbox else ()
        return Rules(
            allowed=tuple(dict.fromkeys((*opened, *self.allow_targets))),
            require_https=self.require_https,
            deny_ports=self.deny_ports,
        )

    @property
    def embedded(self) -> bool:
        """Whether the database is a file of ours, which is migrated without being asked."""
        return isinstance(self.database, SqliteFile)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach what listens on `host`."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


_MODES: Final = ("migrate", "dispatch", "sandbox", "sandbox_anywhere")


def _speed(value: object, mistakes: list[str]) -> float | None:
    """Read `--speed`; None when it is not given or wrong."""
    if value is None:
        return None
    try:
        speed = float(str(value))
    except ValueError:
        speed = 0.0
    if not 1 <= speed <= SPEED_MAX:
        mistakes.append(mistake("--speed", repr(str(value)), f"write a number from 1 to {SPEED_MAX}"))
        return None
    return speed


def _workers(value: object, mistakes: list[str]) -> int | None:
    """Read `--workers`; None when it is not given or wrong."""
    if value is None:
        return None
    try:
        return whole(1, WORKERS_MAX, why="one of them writes at a time, so more would wait for each other")(
            str(value)
        )
    except ValueError as error:
        mistakes.append(mistake("--workers", repr(str(value)), str(error)))
        return None


def _contradictions(settings: Settings, places: Mapping[str, str], *, sped: bool) -> Iterator[str]:
    """Say which settings do not fit each other, or the machine."""

    def named(name: str) -> str:
        return places.get(name, f"TIDINGS_{name.upper()} (by default)")

    kept = settings.give_up_after + settings.restore_within
    if settings.retention < kept:
        yield mistake(
            named("retention"),
            spelled(settings.retention),
            f"events must be kept for at least {spelled(kept)}, the sum of {named('give_up_after')} "
            f"and {named('restore_within')}",
        )
    if settings.retry_first > settings.retry_max:
        yield mistake(
            named("retry_first"),
            spelled(settings.retry_first),
            f"longer than {named('retry_max')}, which is {spelled(settings.retry_max)}",
        )
    if "*" in settings.cors_origins and len(settings.cors_origins) > 1:
        yield mistake(named("cors_origins"), "a list with *", "* already means every origin")
    yield from _missing(settings, named)
    yield from _sandbox(settings, sped=sped)


def _missing(settings: Settings, named: Callable[[str], str]) -> Iterator[str]:
    """Say which files and keys are not there."""
    if isinstance(settings.database, Postgres) and settings.secret_key is None:
        yield (
            "TIDINGS_SECRET_KEY is not set: with PostgreSQL there is no file of ours to keep a key in; "
            "make one with openssl rand -hex 32"
        )
    if isinstance(settings.database, SqliteFile) and not settings.database.path.parent.is_dir():
        folder = settings.database.path.parent
        yield mistake(named("database"), repr(str(settings.database)), f"there is no folder {folder}")
    if settings.ca_bundle is not None:
        try:
            ssl.create_default_context(cafile=settings.ca_bundle)
        except OSError as error:
            reason = "no PEM certificates in it" if isinstance(error, ssl.SSLError) else error.strerror
            yield mistake(named("ca_bundle"), repr(str(settings.ca_bundle)), f"cannot be read: {reason}")


def _sandbox(settings: Settings, *, sped: bool) -> Iterator[str]:
    """Say what only goes with sandbox mode, and what sandbox mode refuses ."""
    if not settings.sandbox:
        if sped:
            yield "--speed goes with --sandbox only: a service in earnest keeps the real time"
        if settings.sandbox_anywhere:
            yield "--sandbox-anywhere goes with --sandbox only"
    elif not settings.loopback and not settings.sandbox_anywhere:
        yield (
            f"--sandbox listens on loopback only, and {settings.host} is not: whoever reaches it can make this "
            "machine post into its own network. If that is meant, add --sandbox-anywhere"
        )


def describe() -> tuple[Variable, ...]:
    """Every setting that can be written as a variable or into a file, in the order of the documentation."""
    return tuple(
        Variable(name=each.name, **each.metadata) for each in fields(Settings) if "read" in each.metadata
    )
