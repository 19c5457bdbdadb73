"""Is this URL, is this address acceptable as a target? Verdicts only: no DNS, no sockets.

The guard has two halves, and the second is the one that protects:

    URL ──parse_target──▶ Target        before anything is sent: 400 malformed, 403 visibly forbidden
    address ──judge_address──▶ verdict  for every address a name resolves to, right before it is dialled

A name tells nothing (anybody's DNS may answer `127.0.0.1`), so what passes the first half is still judged by the
second, and the address that was judged is the address that is dialled.

Forbidden is every range of the IANA special-purpose registries, all multicast, every IPv6 address outside
2000::/3, and the metadata services of clouds (contract §12.5). An operator opens ranges with `Rules.allowed`. An
IPv6 address that carries an IPv4 address (mapped, NAT64, 6to4, Teredo) is judged by both: opening a tunnel's
prefix never opens what is forbidden behind it.

What is parsed is what is sent: a URL that two parsers could read differently (userinfo, backslashes, odd spellings
of addresses, fragments) is refused, not repaired.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias
from urllib.parse import quote

import idna

from tidings.errors import BadRequest, Forbidden
from tidings.limits import TARGET_CHARS_MAX

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# RFC 1035 §2.3.4, without the root's dot.
HOST_CHARS_MAX: Final = 253
# Distinct targets whose verdict is remembered; one is a kilobyte or two.
REMEMBERED_MAX: Final = 1_024

# fmt: off
DENIED: Final[dict[str, tuple[int, ...]]] = {
    "shells, desktops, file transfer": (21, 22, 23, 512, 513, 514, 873, 3389, 5900, 5985, 5986),
    "mail and news": (25, 110, 119, 143, 465, 587, 993, 995, 2525),
    "names, directories, time, management": (53, 111, 123, 161, 389, 636),
    "file shares and printers": (135, 137, 138, 139, 445, 515, 548, 631, 2049),
    "container engines and their stores": (2375, 2376, 2379, 2380, 10250),
    "databases and caches": (
        1433, 1521, 3306, 5432, 5433, 6379, 6380, 6432, 7687, 9042, 9200, 9300, 11211, 27017, 27018, 27019, 50000,
    ),
}
# fmt: on
"""Ports where something answers that takes commands and is not HTTP, or has no business being called, by what it is."""

DENIED_PORTS: Final = frozenset(port for ports in DENIED.values() for port in ports)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator allows. `allowed` opens special-purpose ranges; nothing closes public ones but the ports."""

    allowed: tuple[Network, ...] = ()
    require_https: bool = False
    deny_ports: frozenset[int] = DENIED_PORTS


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart, once, for everybody who needs a part of it."""

    url: str
    scheme: str
    # Lower case, A-labels, no final dot; an IPv6 address without its brackets.
    host: str
    port: int
    # The request-target to send: path and query, ASCII, never empty.
    path: str
    # `scheme://host:port`: what connections and concurrency are counted by.
    origin: str
    # The host as an address, when it is one.
    address: Address | None

    @property
    def authority(self) -> str:
        """The value of `Host`: the port is left out where it is the scheme's own (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


# -- addresses -------------------------------------------------------------------------------------


def _table(*rows: tuple[str, str]) -> tuple[tuple[Network, str], ...]:
    return tuple((ip_network(network), name) for network, name in rows)


# https://www.iana.org/assignments/iana-ipv4-special-registry, then multicast and what clouds put elsewhere. The
# narrower range stands first, so that the reason given is the exact one.
SPECIAL_V4: Final = _table(
    ("169.254.169.254/32", "cloud metadata"),
    ("168.63.129.16/32", "cloud metadata (Azure)"),
    ("100.100.100.200/32", "cloud metadata (Alibaba)"),
    ("192.0.0.192/32", "cloud metadata (Oracle)"),
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared address space"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "IETF protocol assignments"),
    ("192.0.2.0/24", "documentation"),
    ("192.31.196.0/24", "AS112"),
    ("192.52.193.0/24", "AMT"),
    ("192.88.99.0/24", "6to4 relay"),
    ("192.168.0.0/16", "private"),
    ("192.175.48.0/24", "AS112"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("240.0.0.0/4", "reserved"),
)

# https://www.iana.org/assignments/iana-ipv6-special-registry, then the rest of what lies outside 2000::/3.
SPECIAL_V6: Final = _table(
    ("::1/128", "loopback"),
    ("::/128", "unspecified"),
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("::/96", "IPv4-compatible"),
    ("64:ff9b::/96", "NAT64"),
    ("64:ff9b:1::/48", "local NAT64"),
    ("100::/64", "discard"),
    ("100:0:0:1::/64", "dummy"),
    ("2001::/32", "Teredo"),
    ("2001:1::1/128", "Port Control Protocol anycast"),
    ("2001:1::2/128", "TURN anycast"),
    ("2001:1::3/128", "DNS-SD registration anycast"),
    ("2001:2::/48", "benchmarking"),
    ("2001:3::/32", "AMT"),
    ("2001:4:112::/48", "AS112"),
    ("2001:10::/28", "ORCHID"),
    ("2001:20::/28", "ORCHIDv2"),
    ("2001:30::/28", "drone identities"),
    ("2001::/23", "IETF protocol assignments"),
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "6to4"),
    ("2620:4f:8000::/48", "AS112"),
    ("3fff::/20", "documentation"),
    ("5f00::/16", "segment routing"),
    ("fd00:ec2::254/128", "cloud metadata (Amazon)"),
    ("fd20:ce::254/128", "cloud metadata (Google)"),
    ("fc00::/7", "unique local"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
)
GLOBAL_V6: Final = IPv6Network("2000::/3")

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_LAST_32: Final = 0xFFFF_FFFF

# Where a transition form keeps its IPv4 address. Of the NAT64 layouts only the one for a /96 is known
# (RFC 6052 §2.2): others leave these bits zero, and are refused as `this network`.
_CARRIERS: Final[tuple[tuple[IPv6Network, Callable[[int], int]], ...]] = (
    (_MAPPED, lambda bits: bits & _LAST_32),
    (IPv6Network("::/96"), lambda bits: bits & _LAST_32),
    (IPv6Network("64:ff9b::/96"), lambda bits: bits & _LAST_32),
    (IPv6Network("64:ff9b:1::/48"), lambda bits: bits & _LAST_32),
    (IPv6Network("2001::/32"), lambda bits: ~bits & _LAST_32),
    (IPv6Network("2002::/16"), lambda bits: bits >> 80 & _LAST_32),
)
_OWN_MEANING: Final = frozenset((IPv6Address("::"), IPv6Address("::1")))


def judge_address(address: str | Address, rules: Rules) -> str | None:
    """Say why this address must not be dialled, in a few words, or None if it may.

    Text that is not an address in its plain spelling is refused too: whoever passes it on could read it otherwise.
    """
    if isinstance(address, str):
        try:
            address = ip_address(address)
        except ValueError:
            return "not an address"
    if isinstance(address, IPv4Address):
        return None if _within(address, rules.allowed) else _special(address, SPECIAL_V4)
    return _judge_v6(address, rules)


def _judge_v6(address: IPv6Address, rules: Rules) -> str | None:
    if address.scope_id is not None:
        return "zone id"
    carried = carried_v4(address)
    if carried is not None and address in _MAPPED and _within(carried, rules.allowed):
        return None
    if not _within(address, rules.allowed):
        reason = _special(address, SPECIAL_V6)
        if reason is None and address not in GLOBAL_V6:
            return "reserved"
        return reason
    if carried is None:
        return None
    inner = judge_address(carried, rules)
    return None if inner is None else f"{inner}, within IPv6"


def carried_v4(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address inside a mapped, compatible, NAT64, 6to4 or Teredo address, or None."""
    if address in _OWN_MEANING:
        return None
    for network, extract in _CARRIERS:
        if address in network:
            return IPv4Address(extract(int(address)))
    return None


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def _special(address: Address, table: tuple[tuple[Network, str], ...]) -> str | None:
    return next((name for network, name in table if address in network), None)


# -- URLs ------------------------------------------------------------------------------------------

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

# RFC 3986's three parts of interest; what they may hold is checked part by part.
_URL: Final = re.compile(r"(https?)://([^/?]*)([/?].*)?", re.IGNORECASE | re.ASCII)
_AUTHORITY: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
# Letters, digits, hyphens inside (RFC 1123 §2.1), and the underscore that internal names are fond of.
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# What other parsers take for an IPv4 address: any last label that is a number (WHATWG URL §3.5).
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ufeff\ud800-\udfff]")
# Everything RFC 3986 lets stand in a path or query; the rest is percent-encoded, as browsers do.
_PATH_SAFE: Final = "!$%&'()*+,-./:;=?@_~[]"

LOOPBACKS: Final[tuple[Address, ...]] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
"""What the names of the localhost family mean."""
_LOOPBACK: Final[tuple[Network, ...]] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
_LOCALHOSTS: Final = frozenset(("localhost", "localdomain", "localhost4", "localhost6"))
_LOCALHOST_NAMES: Final = frozenset(
    (
        *("localhost.localdomain", "localhost4.localdomain4", "localhost6.localdomain6"),
        *(
            "ip6-localhost",
            "ip6-loopback",
            "ip6-localnet",
            "ip6-mcastprefix",
            "ip6-allnodes",
            "ip6-allrouters",
        ),
    )
)
# Names that no public resolver answers: RFC 6762 with its appendix G, RFC 8375, ICANN's `internal`.
_INNER_SUFFIXES: Final = frozenset(
    ("local", "internal", "intranet", "private", "corp", "home", "lan", "localdomain")
)


def parse_target(url: str, rules: Rules) -> Target:
    """Take a target's URL apart, or say why it cannot be one.

    `BadRequest` (400, `invalid_target`): no URL a webhook could be posted to, or one that two readers could
    understand differently. `Forbidden` (403, `forbidden_target`): understood, and not allowed here.
    """
    return _parsed(url, rules)


@lru_cache(maxsize=REMEMBERED_MAX)
def _parsed(url: str, rules: Rules) -> Target:
    scheme, authority, rest = _split(url)
    host, port = _host_and_port(authority, default_port=_DEFAULT_PORTS[scheme])
    address, host = _canonical(host)
    _permit_scheme(scheme, rules)
    _permit_port(port, rules)
    if address is None:
        _permit_name(host, rules)
    else:
        _permit_address(address, rules)
    bracketed = f"[{host}]" if ":" in host else host
    return Target(
        url=url,
        scheme=scheme,
        host=host,
        port=port,
        path=_request_target(rest),
        origin=f"{scheme}://{bracketed}:{port}",
        address=address,
    )


def _malformed(text: str) -> BadRequest:
    return BadRequest.at("target", text, code="invalid_target")


def _forbidden(text: str) -> Forbidden:
    return Forbidden(f"target: {text}", code="forbidden_target")


def _split(url: str) -> tuple[str, str, str]:
    if len(url) > TARGET_CHARS_MAX:
        raise _malformed(f"Must be at most {TARGET_CHARS_MAX} characters")
    if _UNPRINTABLE.search(url):
        raise _malformed("Must not contain spaces or control characters")
    if "\\" in url:
        raise _malformed("Must not contain a backslash")
    if "#" in url:
        raise _malformed("Must not have a fragment (#): it would never be sent")
    match = _URL.fullmatch(url)
    if match is None:
        raise _malformed("Must be an absolute URL that begins with http:// or https://")
    scheme, authority, rest = match.groups(default="")
    if "@" in authority:
        raise _malformed("Must not contain a user name or password")
    return scheme.lower(), authority, rest


def _host_and_port(authority: str, *, default_port: int) -> tuple[str, int]:
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise _malformed("The host and port are not valid")
    host, digits = match.groups()
    if not host:
        raise _malformed("The host is missing")
    port = int(digits) if digits else default_port
    if not 1 <= port <= 65_535:
        raise _malformed("The port must be between 1 and 65535")
    return host, port


def _canonical(host: str) -> tuple[Address | None, str]:
    """The host in its one spelling, and the address if it is one."""
    if host.startswith("["):
        address = _literal_v6(host[1:-1])
        return address, str(address)
    name = host.lower() if host.isascii() else _mapped_name(host)
    if _NUMBER.fullmatch(name.removesuffix(".").rpartition(".")[2]):
        # Digits that had to be mapped (full-width, circled) were never meant to be read by a person.
        literal = _literal_v4(name if host.isascii() else host)
        return literal, str(literal)
    return None, _name(name)


def _literal_v4(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        raise _malformed("An IPv4 address must be four decimal numbers without leading zeros") from None


def _literal_v6(text: str) -> IPv6Address:
    if "%" in text:
        raise _malformed("An IPv6 address must not have a zone id")
    try:
        return IPv6Address(text)
    except ValueError:
        raise _malformed("The IPv6 address is not valid") from None


def _mapped_name(host: str) -> str:
    """A name in people's letters as A-labels (IDNA 2008, with UTS 46's mapping)."""
    if len(host) > HOST_CHARS_MAX:
        raise _malformed(f"The host must be at most {HOST_CHARS_MAX} characters")
    try:
        return idna.encode(host, uts46=True, std3_rules=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        raise _malformed("The host is not a valid international domain name") from None


def _name(name: str) -> str:
    name = name.removesuffix(".")
    if len(name) > HOST_CHARS_MAX:
        raise _malformed(f"The host must be at most {HOST_CHARS_MAX} characters")
    for label in name.split("."):
        if not _LABEL.fullmatch(label):
            raise _malformed("The host is not a valid domain name")
        if label.startswith("xn--"):
            _check_a_label(label)
    return name


def _check_a_label(label: str) -> None:
    try:
        idna.ulabel(label)
    except (idna.IDNAError, UnicodeError):
        raise _malformed("The host is not a valid international domain name") from None


def _permit_scheme(scheme: str, rules: Rules) -> None:
    if rules.require_https and scheme != "https":
        raise _forbidden("Must begin with https://: this service does not post to http targets")


def _permit_port(port: int, rules: Rules) -> None:
    if port in rules.deny_ports:
        raise _forbidden(f"Port {port} is not allowed")


def _permit_address(address: Address, rules: Rules) -> None:
    reason = judge_address(address, rules)
    if reason is not None:
        raise _forbidden(f"The address {address} is not allowed: {reason}")


def _permit_name(name: str, rules: Rules) -> None:
    """Refuse by name only what is known to lead inward; an allow-list leaves the verdict to what it resolves to."""
    if is_localhost(name):
        if not any(_overlaps(network, loopback) for network in rules.allowed for loopback in _LOOPBACK):
            raise _forbidden(f"The host {name} is not allowed: loopback")
    elif not rules.allowed and _is_inner(name):
        raise _forbidden(f"The host {name} is not allowed: a name of an internal network")


def is_localhost(name: str) -> bool:
    """Whether a (canonical) name means this machine, whatever DNS says (RFC 6761 §6.3)."""
    return name in _LOCALHOST_NAMES or name.rpartition(".")[2] in _LOCALHOSTS


def _is_inner(name: str) -> bool:
    rest, _, last = name.rpartition(".")
    return not rest or last in _INNER_SUFFIXES or name == "home.arpa" or name.endswith(".home.arpa")


def _overlaps(network: Network, other: Network) -> bool:
    if isinstance(network, IPv4Network):
        return isinstance(other, IPv4Network) and network.overlaps(other)
    return isinstance(other, IPv6Network) and network.overlaps(other)


def _request_target(rest: str) -> str:
    if not rest.startswith("/"):
        rest = "/" + rest
    path = quote(rest, safe=_PATH_SAFE)
    # A character may become twelve.
    if len(path) > TARGET_CHARS_MAX:
        raise _malformed(f"Must be at most {TARGET_CHARS_MAX} characters when percent-encoded")
    return path
