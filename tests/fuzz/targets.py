"""Targets: no spelling of any URL or address gets a forbidden address past the guard.

The judge here is not the guard's table: it is Python's `ipaddress` (which has a table of its own), the C library's
readings of odd spellings (`inet_aton`, `getaddrinfo` for numbers only), and the readings of other URL parsers.
"""

import random
import re
import socket
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import unquote, urlsplit

import httpx

from tests.core.test_targets import FORBIDDEN, GOOD, MALFORMED, METADATA, REGISTRY_V4, REGISTRY_V6
from tests.fuzz.mutating import mutated
from tidings.errors import BadRequest, Forbidden
from tidings.targets import Address, Network, Rules, Target, judge_address, parse_target

Fuzz = Callable[[random.Random], None]
STRICT = Rules()
URLS: Sequence[str] = [*(case[0] for case in GOOD), *MALFORMED, *FORBIDDEN]
RANGES: Sequence[Network] = [ip_network(text) for text in REGISTRY_V4 + REGISTRY_V6]
TOKENS: Sequence[str] = [
    *(
        "http://",
        "https://",
        "//",
        "/",
        "\\",
        "?",
        "#",
        "@",
        ":",
        ".",
        "..",
        "%",
        "[",
        "]",
        "-",
        "_",
        "0",
        "0x",
        "a",
    ),
    *(
        "。",
        "．",
        "｡",
        "１",
        "①",
        "⓿",
        "٠",
        "Ⅷ",
        "ｘ",
        "\u00ad",
        "\u200b",
        "\u200d",
        "\u2060",
        "\ufe0f",
        "\u0338",
        "ſ",
        "ß",
    ),
    *("%2e", "%00", "%31", "%25", "%5B", "\t", "\r\n", " ", "\x00", "\x7f", "\ud800", "\u2028"),
    *(
        "localhost",
        "ＬＯＣＡＬＨＯＳＴ",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0177.0.0.1",
        "::1",
        "[::1]",
        "user@",
    ),
    *(
        "127.0.0.1.nip.io",
        "example.com",
        "xn--",
        "xn--bcher-kva",
        ":80",
        ":22",
        ":0",
        ":65536",
        "::ffff:",
        "64:ff9b::",
    ),
]


# -- an independent judgement ----------------------------------------------------------------------


def forbidden(address: Address) -> bool:
    """Whether the standard library's tables know a reason against it; one more than the guard's is no fault."""
    if isinstance(address, IPv4Address):
        return (
            not address.is_global or address.is_multicast or address.is_reserved or str(address) in METADATA
        )
    if (
        address.is_multicast
        or address.is_reserved
        or not address.is_global
        or address.packed[0] >> 5 != 0b001
    ):
        return True
    inner = address.sixtofour or (address.teredo and address.teredo[1])
    return forbidden(inner) if inner else False


def readings(text: str) -> Iterator[Address]:
    """What the C library takes this for, if it takes it for an address at all."""
    with suppress(OSError, ValueError):
        yield IPv4Address(socket.inet_aton(text))
    try:
        found = socket.getaddrinfo(text, None, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError):
        return
    for *_, where in found:
        yield ip_address(str(where[0]).partition("%")[0])


def as_others_read_it(url: str) -> Iterator[str]:
    """The host of a URL, as other parsers see it, and as careless programs clean it up."""
    for parse in (_by_urllib, _by_httpx):
        host = parse(url)
        for variant in (
            host,
            unquote(host),
            unicodedata.normalize("NFKC", host),
            re.sub(r"\s|\xad|\u200b", "", host),
        ):
            yield variant
            yield variant.rstrip(".")


def _by_urllib(url: str) -> str:
    return urlsplit(url).hostname or ""


def _by_httpx(url: str) -> str:
    try:
        return httpx.URL(url).host
    except (httpx.InvalidURL, UnicodeError):
        return ""


# -- one input -------------------------------------------------------------------------------------


def fuzz(dice: random.Random) -> None:
    """One URL, and one address under one allow-list."""
    _fuzz_url(dice)
    _fuzz_address(dice)


def _fuzz_url(dice: random.Random) -> None:
    base = dice.choice(URLS) if dice.random() < 0.5 else _dressed(dice, _spelled(dice, _address(dice)))
    url = mutated(dice, base, URLS, TOKENS)
    try:
        target = parse_target(url, STRICT)
    except (BadRequest, Forbidden) as error:
        assert error.message.startswith("target: ") and error.message.isprintable(), url
        return
    check(url, target)


def check(url: str, target: Target) -> None:
    """What must be true of every URL that passes."""
    if target.address is not None:
        assert not forbidden(target.address), url
        assert ip_address(target.host) == target.address, url
    for host in as_others_read_it(url):
        for address in readings(host):
            assert target.address == address, f"{url!r} is {address} for others"
    for address in readings(target.host):
        assert target.address == address, url
    name = unicodedata.normalize("NFKC", target.host).casefold().rstrip(".")
    assert name.rpartition(".")[2] not in ("localhost", "localdomain", "local", "internal"), url
    assert target.host.isascii() and target.path.isascii() and target.path.startswith("/"), url
    sent = f"{target.path} {target.authority}"
    assert sent.isprintable() and sent.count(" ") == 1, url


def _fuzz_address(dice: random.Random) -> None:
    text = mutated(dice, _spelled(dice, _address(dice)), [str(_address(dice))], TOKENS)
    if judge_address(text, STRICT) is None:
        address = ip_address(text)
        assert not forbidden(address), text
        assert all(reading == address for reading in readings(text)), text
    address = _address(dice)
    rules = Rules(allowed=tuple(_network(dice, address) for _ in range(dice.randrange(3))))
    if judge_address(address, rules) is None and forbidden(address):
        check_opened(address, rules)


def check_opened(address: Address, rules: Rules) -> None:
    """A forbidden address passes only where it, and what it carries, is opened by name."""
    inner = _carried(address) if isinstance(address, IPv6Address) else None
    mapped = isinstance(address, IPv6Address) and address.ipv4_mapped is not None
    assert _opened(address, rules) or (mapped and inner is not None and _opened(inner, rules)), (
        address,
        rules,
    )
    assert inner is None or not forbidden(inner) or _opened(inner, rules), (address, rules)


def _carried(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address within, read apart from the guard's way of reading it."""
    teredo = address.teredo
    last = IPv4Address(address.packed[12:])
    if address.packed[:12] in (b"\0" * 12, b"\0\x64\xff\x9b" + b"\0" * 8):
        return None if int(address) < 2 else last
    if address.packed[:6] == b"\0\x64\xff\x9b\0\x01":
        return last
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


def _opened(address: Address, rules: Rules) -> bool:
    return any(address in network for network in rules.allowed if network.version == address.version)


# -- making addresses and spellings ----------------------------------------------------------------


def _address(dice: random.Random) -> Address:
    network = dice.choice(RANGES)
    at = dice.choice((0, network.num_addresses - 1, dice.randrange(network.num_addresses)))
    address: Address = network[at]
    if dice.random() < 0.2:
        # A neighbour, perhaps an allowed one.
        address = type(address)((int(address) + dice.choice((-1, 1))) % (1 << address.max_prefixlen))
    if isinstance(address, IPv4Address) and dice.random() < 0.3:
        return dice.choice(_CARRYING)(int(address))
    return address


_CARRYING: Sequence[Callable[[int], IPv6Address]] = [
    lambda bits: IPv6Address(0xFFFF << 32 | bits),
    lambda bits: IPv6Address(bits),
    lambda bits: IPv6Address(0x64_FF9B << 96 | bits),
    lambda bits: IPv6Address(0x64_FF9B_0001 << 80 | bits),
    lambda bits: IPv6Address(0x2002 << 112 | bits << 80 | 1),
    lambda bits: IPv6Address(0x2001 << 112 | 8 << 76 | bits ^ 0xFFFF_FFFF),
]


def _network(dice: random.Random, around: Address) -> Network:
    """A range to open; often one that the address lies in."""
    if dice.random() < 0.3:
        return dice.choice(RANGES)
    address = around if dice.random() < 0.7 else _address(dice)
    length = dice.randint(0, address.max_prefixlen)
    if isinstance(address, IPv4Address):
        return IPv4Network((int(address), length), strict=False)
    return IPv6Network((int(address), length), strict=False)


def _spelled(dice: random.Random, address: Address) -> str:
    if isinstance(address, IPv6Address):
        text = dice.choice((str(address), address.exploded, str(address).upper()))
        return text if dice.random() < 0.8 else f"{text}%{dice.choice(('lo', 'eth0', '25lo', '1'))}"
    parts = [_number(dice, part) for part in _split(dice, int(address))]
    text = dice.choice((".", ".", ".", "。", "．", "%2e")).join(parts) + dice.choice(("", "", "", ".", ".."))
    return dice.choice((str, _full_width, str.upper))(text)


def _split(dice: random.Random, bits: int) -> list[int]:
    """One to four parts, the last of which takes what is left, as `inet_aton` reads them."""
    count = dice.choice((1, 2, 3, 4, 4, 4))
    octets = list(bits.to_bytes(4, "big"))
    return [*octets[: count - 1], int.from_bytes(octets[count - 1 :], "big")]


def _number(dice: random.Random, value: int) -> str:
    return dice.choice((str(value), str(value), f"0{value:o}", f"0x{value:x}", f"0{value}", f"{value:08o}"))


def _full_width(text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


def _dressed(dice: random.Random, host: str) -> str:
    bracketed = f"[{host}]" if ":" in host and dice.random() < 0.9 else host
    scheme = dice.choice(("http", "https", "HTTP"))
    before = dice.choice(("", "", "", "", "user@", "example.com@", "@"))
    after = dice.choice(("", "", ":80", ":8080", ":"))
    return f"{scheme}://{before}{bracketed}{after}{dice.choice(('', '/', '/a?b', '?c', '#d'))}"
