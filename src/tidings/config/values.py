"""How one value of a setting is read: text in, a typed value out, or a `ValueError` that says what to write.

The error texts never repeat the value: whoever reports them adds it, unless it is a secret.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from tidings.limits import MICROSECONDS_PER_SECOND, TOKEN_CHARS_MAX, TOKEN_CHARS_MIN
from tidings.model import Micros

T = TypeVar("T")

Network: TypeAlias = IPv4Network | IPv6Network
LogFormat: TypeAlias = Literal["text", "json"]

PORT_MAX: Final = 65_535
POSTGRES_PORT: Final = 5_432
# AES-256-GCM takes 32 bytes.
SECRET_KEY_BYTES: Final = 32
# A list longer than this is a mistake; every address and every target is held against it.
LIST_ENTRIES_MAX: Final = 1_000
# RFC 1035 §2.3.4.
_HOST_CHARS_MAX: Final = 253

_UNITS: Final = {
    "ms": MICROSECONDS_PER_SECOND // 1_000,
    "s": MICROSECONDS_PER_SECOND,
    "m": 60 * MICROSECONDS_PER_SECOND,
    "h": 3_600 * MICROSECONDS_PER_SECOND,
    "d": 86_400 * MICROSECONDS_PER_SECOND,
}
_DURATION: Final = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")
_WHOLE: Final = re.compile(r"-?[0-9]{1,15}")
_HOST_NAME: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{_HOST_CHARS_MAX}}}")
_BOOLEANS: Final = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


# -- databases -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SqliteFile:
    """A database in one file; a relative path counts from the working directory."""

    path: Path

    def __str__(self) -> str:
        return f"sqlite:///{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """A PostgreSQL database. `url` is what was given; it and the password never show in a `repr`."""

    url: str = field(repr=False)
    host: str
    port: int
    name: str
    user: str | None
    password: str | None = field(repr=False)

    def __str__(self) -> str:
        return f"postgresql://{self.host}:{self.port}/{self.name}"


Database: TypeAlias = SqliteFile | Postgres


def database(text: str) -> Database:
    """Read `sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://user:password@host:port/name`."""
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "sqlite":
        return SqliteFile(_sqlite_path(rest))
    if colon and scheme in ("postgresql", "postgres"):
        return _postgres(text)
    raise ValueError("write sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME")


def _sqlite_path(rest: str) -> Path:
    path = rest.removeprefix("///")
    if path == rest or not path:
        raise ValueError("write sqlite:/// and a relative path, or sqlite://// and an absolute one")
    if path == ":memory:":
        raise ValueError("a database in memory would lose every event when the process ends; name a file")
    if "?" in path or "\0" in path:
        raise ValueError("the file's name cannot have a ? in it, and there are no options")
    return Path(path)


def _postgres(text: str) -> Postgres:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(
            "the address cannot be read: write special characters of user and password as %XX"
        ) from None
    name = unquote(parts.path.removeprefix("/"))
    if not parts.hostname or not name or "/" in name:
        raise ValueError("write postgresql://USER:PASSWORD@HOST:PORT/NAME")
    return Postgres(
        url=text,
        host=parts.hostname,
        port=POSTGRES_PORT if port is None else port,
        name=name,
        user=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
    )


# -- single values ---------------------------------------------------------------------------------


def host(text: str) -> str:
    """Read an address or a name to listen on; the brackets of an IPv6 address may stay."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not _HOST_NAME.fullmatch(bare):
        try:
            ip_address(bare)
        except ValueError:
            raise ValueError("write an address or a host name, such as 127.0.0.1, ::1 or localhost") from None
    return bare


def port(text: str) -> int:
    """Read a port to listen on; 0 takes a free one."""
    return whole(0, PORT_MAX, why="ports end there; 0 takes a free one")(text)


def boolean(text: str) -> bool:
    """Read true or false, in the usual spellings."""
    value = _BOOLEANS.get(text.lower())
    if value is None:
        raise ValueError("write true or false")
    return value


def whole(low: int, high: int, *, why: str) -> Callable[[str], int]:
    """Make a reader of whole numbers within bounds, which says why they are bounds."""

    def read(text: str) -> int:
        if not _WHOLE.fullmatch(text):
            raise ValueError(f"write a whole number from {low} to {high}")
        if not low <= (number := int(text)) <= high:
            raise ValueError(f"write a number from {low} to {high}: {why}")
        return number

    return read


def duration(low: str, high: str, *, why: str) -> Callable[[str], Micros]:
    """Make a reader of durations (`100ms`, `10s`, `5m`, `24h`, `7d`) within bounds, in microseconds."""
    lowest, highest = span(low), span(high)

    def read(text: str) -> Micros:
        if not lowest <= (micros := span(text)) <= highest:
            raise ValueError(f"write a duration from {low} to {high}: {why}")
        return micros

    return read


def span(text: str) -> Micros:
    """Read a duration such as `10s` as microseconds."""
    if not (match := _DURATION.fullmatch(text)):
        raise ValueError("write a whole number and its unit: ms, s, m, h or d, such as 10s")
    return int(match[1]) * _UNITS[match[2]]


def spelled(micros: Micros) -> str:
    """Write a duration the way it is read, in the largest unit that needs no fraction."""
    for unit in ("d", "h", "m", "s", "ms"):
        if micros >= _UNITS[unit] and micros % _UNITS[unit] == 0:
            return f"{micros // _UNITS[unit]}{unit}"
    return "0s" if micros == 0 else f"{micros / _UNITS['ms']:g}ms"


def log_format(text: str) -> LogFormat | None:
    """Read the form of the log."""
    match text.lower():
        case "text":
            return "text"
        case "json":
            return "json"
        case _:
            raise ValueError("write text or json")


def secret_key(text: str) -> bytes | None:
    """Read the key that seals secrets at rest."""
    if not re.fullmatch(rf"[0-9A-Fa-f]{{{2 * SECRET_KEY_BYTES}}}", text):
        raise ValueError(
            f"write {2 * SECRET_KEY_BYTES} hexadecimal characters (openssl rand -hex {SECRET_KEY_BYTES})"
        )
    return bytes.fromhex(text)


def bootstrap_token(text: str) -> str | None:
    """Read the first token's value: printable ASCII without spaces, since it travels in a header."""
    if not re.fullmatch(rf"[!-~]{{{TOKEN_CHARS_MIN},{TOKEN_CHARS_MAX}}}", text):
        raise ValueError(
            f"write {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} printable ASCII characters, no spaces"
        )
    return text


def file(text: str) -> Path | None:
    """Read the name of a file; whether it is there is looked at once all settings are read."""
    if "\0" in text:
        raise ValueError("write the name of a file")
    return Path(text)


# -- URLs ------------------------------------------------------------------------------------------


def public_url(text: str) -> str | None:
    """Read the base under which clients see us; it is kept without `/api/1.0` and without a last slash."""
    parts = _http_url(text, schemes=("http", "https"))
    if parts.username is not None or parts.query or parts.fragment or text.endswith(("?", "#")):
        raise ValueError("write only scheme, host, port and path, such as https://hooks.example.com")
    return text.rstrip("/").removesuffix("/api/1.0").rstrip("/")


def proxy_url(text: str) -> str | None:
    """Read the proxy that deliveries go through: `http://[user:password@]host:port`."""
    parts = _http_url(text, schemes=("http",))
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("write http://HOST:PORT, and nothing after the port")
    return text.rstrip("/")


def origin(text: str) -> str:
    """Read the origin of a web page as browsers send it: `https://app.example.com`, or `*` for all."""
    if text == "*":
        return text
    parts = _http_url(text, schemes=("http", "https"))
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("write origins only, scheme, host and port, such as https://app.example.com")
    return text.rstrip("/").lower()


def _http_url(text: str, *, schemes: tuple[str, ...]) -> SplitResult:
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        parts = urlsplit(text)
        fits = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"write an address that begins with {wanted} and names a host")
    return parts


# -- lists -----------------------------------------------------------------------------------------


def listed(one: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Make a reader of lists: entries between commas, or `none`. The same entry twice counts once."""

    def read(text: str) -> tuple[T, ...]:
        if text.strip().lower() in ("", "none"):
            return ()
        entries = [entry.strip() for entry in text.split(",")]
        if len(entries) > LIST_ENTRIES_MAX:
            raise ValueError(f"write at most {LIST_ENTRIES_MAX} entries")
        return tuple(dict.fromkeys(one(entry) for entry in entries))

    return read


def network(text: str) -> Network:
    """Read a range of addresses, such as `10.0.0.0/8`; a lone address is a range of one."""
    try:
        return ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            raise ValueError(f"write {ip_network(text, strict=False)}, or the single address") from None
        raise ValueError("write ranges in CIDR form between commas, such as 127.0.0.0/8,::1/128") from None


def denied_ports(text: str) -> frozenset[int]:
    """Read the ports that nothing is sent to."""
    return frozenset(listed(whole(1, PORT_MAX, why="these are the ports there are"))(text))
