"""What an operator decides about posting."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from tidings.errors import SettingsError
from tidings.targets import Rules

CONCURRENCY_DEFAULT: Final = 512
# No single receiver may take more than this part of the slots.
ORIGIN_SHARE: Final = 4
# Sockets for addresses that are tried beside a slow first one, all targets together. They come on top of the pool's
# connections, so names with many dead addresses must not use up the process's files.
BESIDE_MAX: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderSettings:
    """Parsed once, at the start.

    `concurrency` bounds exchanges in flight; `per_origin` (None: a quarter of it) those to one scheme, host and
    port. `connections` (None: twice the concurrency) bounds open connections, the kept ones included; each is a
    file descriptor. `idle_seconds` is how long an unused one is kept: shorter than the 60 s or so after which load
    balancers close theirs. `ca_bundle` (PEM) replaces the system's trust. `egress_proxy` is `http://host:port`,
    with `user:password@` where it wants one.
    """

    rules: Rules = field(default_factory=Rules)
    concurrency: int = CONCURRENCY_DEFAULT
    per_origin: int | None = None
    connections: int | None = None
    idle_seconds: float = 50.0
    ca_bundle: Path | None = None
    egress_proxy: str | None = None

    @property
    def origin_limit(self) -> int:
        return self.per_origin or max(1, self.concurrency // ORIGIN_SHARE)

    @property
    def connection_limit(self) -> int:
        """Never below the concurrency: who holds a slot can always open a connection."""
        return max(self.concurrency, self.connections or 2 * self.concurrency)

    @property
    def socket_limit(self) -> int:
        """How many file descriptors the sender may hold."""
        return self.connection_limit + BESIDE_MAX

    @property
    def lookup_limit(self) -> int:
        """Names to look up at once: twice what deliveries can wait for, so that those given up are nobody's."""
        return 2 * self.concurrency


@dataclass(frozen=True, slots=True)
class Proxy:
    """An egress proxy that is asked for tunnels with CONNECT."""

    host: str
    port: int
    # `user:password`, or None where it wants none.
    credentials: str | None = None

    @classmethod
    def parse(cls, url: str) -> "Proxy":
        """Read `http://[user:password@]host:port`; `SettingsError` says what is wrong, without the password."""
        wrong = SettingsError(
            ["The egress proxy must be written http://host:port or http://user:password@host:port"]
        )
        try:
            parts = urlsplit(url)
            port = parts.port or 80
        except ValueError:
            raise wrong from None
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
            raise wrong
        if parts.query or parts.fragment:
            raise wrong
        credentials = None
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return cls(parts.hostname, port, credentials)
