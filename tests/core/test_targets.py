"""The target guard: every special-purpose range, every spelling, and what an allow-list opens."""

import time
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidings.errors import BadRequest, Forbidden, RequestError
from tidings.limits import TARGET_CHARS_MAX
from tidings.targets import (
    DENIED_PORTS,
    SPECIAL_V4,
    SPECIAL_V6,
    Rules,
    carried_v4,
    is_localhost,
    judge_address,
    parse_target,
)

STRICT = Rules()
LOOPBACK = Rules(allowed=(ip_network("127.0.0.0/8"), ip_network("::1/128")))


def allowing(*networks: str) -> Rules:
    return Rules(allowed=tuple(ip_network(network) for network in networks))


def words(text: str) -> list[str]:
    return text.split()


# -- addresses -------------------------------------------------------------------------------------

# The registries as published, range by range, apart from the code's own table.
REGISTRY_V4 = words(
    """
    0.0.0.0/8 0.0.0.0/32 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24
    192.0.0.0/29 192.0.0.8/32 192.0.0.9/32 192.0.0.10/32 192.0.0.170/32 192.0.0.171/32 192.0.2.0/24
    192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.88.99.2/32 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15
    198.51.100.0/24 203.0.113.0/24 240.0.0.0/4 255.255.255.255/32 224.0.0.0/4
    """
)
REGISTRY_V6 = words(
    """
    ::1/128 ::/128 ::ffff:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32
    2001:1::1/128 2001:1::2/128 2001:1::3/128 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28 2001:20::/28
    2001:30::/28 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10 ff00::/8
    fec0::/10 ::/96 ::/3 4000::/2 8000::/1
    """
)
METADATA = words(
    """
    169.254.169.254 169.254.170.2 100.100.100.200 168.63.129.16 192.0.0.192 fd00:ec2::254 fd20:ce::254
    ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1
    """
)


@pytest.mark.parametrize("network", REGISTRY_V4 + REGISTRY_V6)
def test_a_registered_range_is_refused_from_its_first_address_to_its_last(network: str) -> None:
    parsed = ip_network(network)
    middle = parsed[parsed.num_addresses // 2]
    for address in (parsed[0], middle, parsed[-1]):
        assert judge_address(address, STRICT) is not None
        assert judge_address(str(address), STRICT) is not None


def registered(address: IPv4Address | IPv6Address) -> bool:
    """Whether it lies in a range of the registries, or is refused by name."""
    ranges = (ip_network(network) for network in REGISTRY_V4 + REGISTRY_V6)
    return any(address in each for each in ranges) or str(address) in METADATA


@pytest.mark.parametrize("network", REGISTRY_V4 + REGISTRY_V6)
def test_a_range_ends_where_it_is_registered_to_end(network: str) -> None:
    """The neighbours on both sides are allowed, unless another range begins there."""
    parsed = ip_network(network)
    kind, last = type(parsed[0]), (1 << parsed.max_prefixlen) - 1
    for bits in (int(parsed[0]) - 1, int(parsed[-1]) + 1):
        if 0 <= bits <= last:
            neighbour = kind(bits)
            assert (judge_address(neighbour, STRICT) is None) == (not registered(neighbour)), neighbour


# Neighbours that are known to be public, range by range.
OUTSIDE = words(
    """
    1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0
    172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.1.255 192.0.3.0 192.31.195.255 192.31.197.0
    192.52.192.255 192.52.194.0 192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0 192.175.47.255 192.175.49.0
    198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255
    168.63.129.15 168.63.129.17 8.8.8.8
    2000:: 2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2001:200:: 2001:db7:ffff:ffff:ffff:ffff:ffff:ffff 2001:db9::
    2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2003:: 2620:4f:7fff:ffff:ffff:ffff:ffff:ffff 2620:4f:8001::
    3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff 3fff:1000:: 3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2606:4700::1111
    """
)


@pytest.mark.parametrize("address", OUTSIDE)
def test_what_lies_just_outside_is_allowed(address: str) -> None:
    assert judge_address(address, STRICT) is None


@pytest.mark.parametrize("address", METADATA)
def test_metadata_services_are_refused(address: str) -> None:
    assert judge_address(address, STRICT) is not None


@given(st.ip_addresses())
@example(IPv4Address("192.0.0.9"))
@example(IPv6Address("2001:1::1"))
def test_whatever_the_standard_library_calls_not_global_is_refused(
    address: IPv4Address | IPv6Address,
) -> None:
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_private:
        assert judge_address(address, STRICT) is not None


@given(st.ip_addresses(v=6))
def test_ipv6_outside_global_unicast_is_refused(address: IPv6Address) -> None:
    if address not in ip_network("2000::/3"):
        assert judge_address(address, STRICT) is not None


def test_the_table_names_each_network_once() -> None:
    for table in (SPECIAL_V4, SPECIAL_V6):
        networks = [network for network, _ in table]
        assert len(networks) == len(set(networks))


def test_a_narrow_range_is_never_hidden_behind_a_wider_one() -> None:
    for table in (SPECIAL_V4, SPECIAL_V6):
        for at, (network, _) in enumerate(table):
            hidden = [str(later) for later, _ in table[at + 1 :] if _covers(network, later)]
            assert not hidden, f"{network} stands before {hidden}"


def _covers(network: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    return other[0] in network and other[-1] in network


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "127.1",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "2130706433",
        "127.0.0.1 ",
        "[::1]",
        "fe80::1%eth0%2",
    ],
)
def test_text_that_is_no_plain_address_is_refused(text: str) -> None:
    assert judge_address(text, allowing("0.0.0.0/0", "::/0")) is not None


def test_a_zone_id_is_refused_even_where_its_range_is_open() -> None:
    assert judge_address("fe80::1%lo", allowing("fe80::/10")) == "zone id"


CARRIED = [
    ("::ffff:10.1.2.3", "10.1.2.3"),
    ("::10.1.2.3", "10.1.2.3"),
    ("64:ff9b::10.1.2.3", "10.1.2.3"),
    ("64:ff9b:1::10.1.2.3", "10.1.2.3"),
    ("2002:0a01:0203::1", "10.1.2.3"),
    ("2001:0:4136:e378:8000:63bf:f5fe:fdfc", "10.1.2.3"),
]


@pytest.mark.parametrize(("address", "inner"), CARRIED)
def test_the_address_within_is_found(address: str, inner: str) -> None:
    assert carried_v4(IPv6Address(address)) == IPv4Address(inner)


@pytest.mark.parametrize("address", ["::", "::1", "2606:4700::1111"])
def test_most_addresses_carry_none(address: str) -> None:
    assert carried_v4(IPv6Address(address)) is None


ALLOWED = [
    # rules, address, whether it may be dialled
    (("127.0.0.0/8",), "127.0.0.1", True),
    (("127.0.0.0/8",), "127.255.255.255", True),
    (("127.0.0.0/8",), "::ffff:127.0.0.1", True),
    (("127.0.0.0/8",), "::1", False),
    (("127.0.0.0/8",), "::127.0.0.1", False),
    (("127.0.0.0/8",), "64:ff9b::127.0.0.1", False),
    (("127.0.0.0/8",), "10.0.0.1", False),
    (("127.0.0.1/32",), "127.0.0.2", False),
    (("::1/128",), "::1", True),
    (("::1/128",), "127.0.0.1", False),
    (("10.0.0.0/8",), "::ffff:10.9.8.7", True),
    (("10.0.0.0/8",), "::ffff:8.8.8.8", False),
    (("10.0.0.0/8",), "2002:a09:807::", False),
    (("64:ff9b::/96",), "64:ff9b::8.8.8.8", True),
    (("64:ff9b::/96",), "64:ff9b::10.0.0.1", False),
    (("64:ff9b::/96", "10.0.0.0/8"), "64:ff9b::10.0.0.1", True),
    (("64:ff9b:1::/48",), "64:ff9b:1:7f00:0:100::", False),
    (("2002::/16",), "2002:7f00:1::", False),
    (("2002::/16",), "2002:808:808::", True),
    (("2001::/32",), "2001:0:4136:e378:8000:63bf:f5fe:fdfc", False),
    (("::ffff:0:0/96",), "::ffff:127.0.0.1", False),
    (("::/0",), "::ffff:127.0.0.1", False),
    (("::/0",), "::1", True),
    (("0.0.0.0/0",), "::ffff:127.0.0.1", True),
    (("fc00::/7",), "fd00::1", True),
    (("fc00::/7",), "fe80::1", False),
]


@pytest.mark.parametrize(("networks", "address", "open_"), ALLOWED)
def test_what_an_allow_list_opens(networks: tuple[str, ...], address: str, open_: bool) -> None:
    assert (judge_address(address, allowing(*networks)) is None) == open_


@given(st.ip_addresses(v=4), st.integers(min_value=0, max_value=32))
def test_a_v4_range_opens_its_mapped_form_and_no_other_form(address: IPv4Address, length: int) -> None:
    rules = allowing(str(ip_network(f"{address}/{length}", strict=False)))
    assert judge_address(address, rules) is None
    assert judge_address(f"::ffff:{address}", rules) is None
    assert judge_address(IPv6Address(int(ip_address("64:ff9b::")) + int(address)), rules) is not None
    assert judge_address(IPv6Address((0x2002 << 112) + (int(address) << 80)), rules) is not None


# -- URLs ------------------------------------------------------------------------------------------

GOOD = [
    # url, origin, Host, request-target
    ("http://example.com", "http://example.com:80", "example.com", "/"),
    ("https://example.com/", "https://example.com:443", "example.com", "/"),
    ("HTTPS://EXAMPLE.COM/Hook", "https://example.com:443", "example.com", "/Hook"),
    ("https://example.com./a", "https://example.com:443", "example.com", "/a"),
    ("https://example.com:443/a", "https://example.com:443", "example.com", "/a"),
    ("http://example.com:0080/a", "http://example.com:80", "example.com", "/a"),
    ("http://example.com:443/a", "http://example.com:443", "example.com:443", "/a"),
    ("https://example.com:8443/a?b=c&d=e", "https://example.com:8443", "example.com:8443", "/a?b=c&d=e"),
    ("https://example.com?b=c", "https://example.com:443", "example.com", "/?b=c"),
    ("https://example.com/a//b/../c;p=1", "https://example.com:443", "example.com", "/a//b/../c;p=1"),
    ("https://example.com/%7Ea%2fb?%zz", "https://example.com:443", "example.com", "/%7Ea%2fb?%zz"),
    (
        "https://example.com/?u=http://x@y:1/[z]",
        "https://example.com:443",
        "example.com",
        "/?u=http://x@y:1/[z]",
    ),
    ("https://example.com/ü?q=é", "https://example.com:443", "example.com", "/%C3%BC?q=%C3%A9"),
    ('https://example.com/a"<>{}|^`', "https://example.com:443", "example.com", "/a%22%3C%3E%7B%7D%7C%5E%60"),
    ("https://my_service.example.com/", "https://my_service.example.com:443", "my_service.example.com", "/"),
    ("https://bücher.example/", "https://xn--bcher-kva.example:443", "xn--bcher-kva.example", "/"),
    ("https://BÜCHER.example/", "https://xn--bcher-kva.example:443", "xn--bcher-kva.example", "/"),
    ("https://XN--bcher-kva.example/", "https://xn--bcher-kva.example:443", "xn--bcher-kva.example", "/"),
    ("https://例え。テスト/", "https://xn--r8jz45g.xn--zckzah:443", "xn--r8jz45g.xn--zckzah", "/"),
    ("https://8.8.8.8/", "https://8.8.8.8:443", "8.8.8.8", "/"),
    ("https://[2606:4700:0::1111]:81/", "https://[2606:4700::1111]:81", "[2606:4700::1111]:81", "/"),
    ("http://1.example/", "http://1.example:80", "1.example", "/"),
    ("http://0x7f.example/", "http://0x7f.example:80", "0x7f.example", "/"),
]


@pytest.mark.parametrize(("url", "origin", "authority", "path"), GOOD)
def test_a_good_url_is_taken_apart(url: str, origin: str, authority: str, path: str) -> None:
    target = parse_target(url, STRICT)
    assert (target.url, target.origin, target.authority, target.path) == (url, origin, authority, path)
    scheme, _, rest = origin.partition("://")
    assert (target.scheme, target.port) == (scheme, int(rest.rpartition(":")[2]))


MALFORMED = [
    "",
    "example.com",
    "//example.com/",
    "/hook",
    "http:",
    "http://",
    "http:///hook",
    "http:/example.com",
    "http:example.com",
    "http:\\\\example.com",
    "ftp://example.com",
    "file:///etc/passwd",
    "gopher://example.com",
    "javascript:alert(1)",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
    # userinfo, and what other parsers take for it
    "http://user@example.com/",
    "http://user:password@example.com/",
    "http://@example.com/",
    "http://example.com\\@127.0.0.1/",
    "http://example.com#@127.0.0.1/",
    "http://127.0.0.1\\.example.com/",
    # ports
    "http://example.com:",
    "http://example.com:0",
    "http://example.com:65536",
    "http://example.com:999999",
    "http://example.com:-1",
    "http://example.com:80a",
    "http://example.com:８０",
    "http://example.com:80:80",
    # whitespace and controls
    " http://example.com",
    "http://example.com ",
    "http://example.com/a b",
    "http://exam\tple.com/",
    "http://example.com/\r\nX: y",
    "http://example.com/\x00",
    "http://example.com/\x7f",
    "http://example.com/\u00a0",
    "http://example.com/\u2028",
    "http://example.com/\ud800",
    "http://example.com/#fragment",
    # names
    "http://a..b/",
    "http://.example.com/",
    "http://example.com../",
    "http://./",
    "http://-a.example/",
    "http://a-.example/",
    "http://exa$mple.com/",
    "http://%65xample.com/",
    "http://exa,mple.com/",
    f"http://{'a' * 64}.example/",
    f"http://{'a.' * 127}example/",
    "http://xn--a/",
    "http://xn--zzzzzzz-99999999.example/",
    "http://\u200d.example/",
    "http://a\u0338b.example\u2100/",
    # odd spellings of addresses
    "http://127.1/",
    "http://127.0.1/",
    "http://2130706433/",
    "http://0177.0.0.1/",
    "http://0x7f.0.0.1/",
    "http://0x7f000001/",
    "http://0x/",
    "http://127.0.0.01/",
    "http://127.0.0.1./",
    "http://127.0.0.256/",
    "http://1.2.3.4.5/",
    "http://example.1/",
    "http://example.0x1/",
    "http://１２７.0.0.1/",
    "http://①②⑦.0.0.1/",
    "http://127。0。0。1/",
    "http://127.0.0.1%00.example.com/",
    "http://[::1/",
    "http://::1/",
    "http://[::1]x/",
    "http://[127.0.0.1]/",
    "http://[::1%25lo]/",
    "http://[fe80::1%eth0]/",
    "http://[v1.fe80::1]/",
    "http://[::ffff:127.1]/",
    "http://[::ffff:0177.0.0.1]/",
    "http://[1::2::3]/",
    "http://[]/",
    "http://[[::1]]/",
    f"http://example.com/{'a' * TARGET_CHARS_MAX}",
    f"http://example.com/{'ü' * (TARGET_CHARS_MAX // 6 + 1)}",
]


@pytest.mark.parametrize("url", MALFORMED)
@pytest.mark.parametrize("rules", [STRICT, LOOPBACK], ids=["strict", "laboratory"])
def test_a_malformed_url_is_400_whatever_is_allowed(url: str, rules: Rules) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_target(url, rules)
    assert caught.value.code == "invalid_target"
    assert caught.value.message.startswith("target: ")


FORBIDDEN = [
    "http://127.0.0.1/",
    "http://127.8.8.8:8080/",
    "http://0.0.0.0/",
    "http://10.0.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]/",
    "http://[::]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1]/",
    "http://[fd00:ec2::254]/",
    "http://localhost/",
    "http://LOCALHOST:8080/",
    "http://localhost./",
    "http://api.localhost/",
    "http://localhost.localdomain/",
    "http://ip6-localhost/",
    "http://ip6-loopback/",
    "http://localhost6/",
    "http://localhost4.localdomain4/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
    "http://localhost。/",
    "http://ＬＯＣＡＬＨＯＳＴ/",
    "http://ſlocal.localhoſt/",
    "http://backend/",
    "http://metadata/",
    "http://metadata.google.internal/",
    "http://printer.local/",
    "http://nas.home.arpa/",
    "http://router.lan/",
]


@pytest.mark.parametrize("url", FORBIDDEN)
def test_what_visibly_leads_inward_is_403(url: str) -> None:
    with pytest.raises(Forbidden) as caught:
        parse_target(url, STRICT)
    assert caught.value.code == "forbidden_target"
    assert caught.value.message.startswith("target: ")


OPENED = [
    (("127.0.0.0/8",), "http://127.0.0.1:8080/", True),
    (("127.0.0.0/8",), "http://[::ffff:127.0.0.1]/", True),
    (("127.0.0.0/8",), "http://[::1]/", False),
    (("127.0.0.0/8",), "http://localhost/", True),
    (("127.0.0.1/32",), "http://api.localhost/", True),
    (("::1/128",), "http://localhost/", True),
    (("::1/128",), "http://127.0.0.1/", False),
    (("10.0.0.0/8",), "http://localhost/", False),
    (("10.0.0.0/8",), "http://ip6-localhost/", False),
    (("10.0.0.0/8",), "http://backend/", True),
    (("10.0.0.0/8",), "http://a.internal/", True),
    (("10.0.0.0/8",), "http://192.168.0.1/", False),
    (("0.0.0.0/0", "::/0"), "http://169.254.169.254/", True),
]


@pytest.mark.parametrize(("networks", "url", "open_"), OPENED)
def test_what_an_allow_list_opens_by_url(networks: tuple[str, ...], url: str, open_: bool) -> None:
    rules = allowing(*networks)
    if open_:
        assert parse_target(url, rules).url == url
    else:
        with pytest.raises(Forbidden):
            parse_target(url, rules)


@pytest.mark.parametrize("port", sorted(DENIED_PORTS))
def test_a_denied_port_is_403_even_where_its_address_is_open(port: int) -> None:
    for rules in (STRICT, LOOPBACK):
        with pytest.raises(Forbidden, match=f"Port {port} is not allowed"):
            parse_target(f"http://example.com:{port}/", rules)


def test_the_deny_list_can_be_changed() -> None:
    rules = Rules(deny_ports=frozenset((8080,)))
    assert parse_target("http://example.com:22/", rules).port == 22
    with pytest.raises(Forbidden):
        parse_target("http://example.com:8080/", rules)


@pytest.mark.parametrize("port", [80, 443, 3000, 5000, 8000, 8080, 8443, 9000])
def test_ports_that_web_servers_use_are_not_denied(port: int) -> None:
    assert port not in DENIED_PORTS


def test_https_can_be_required() -> None:
    rules = Rules(require_https=True)
    assert parse_target("https://example.com/", rules).scheme == "https"
    with pytest.raises(Forbidden, match="https://"):
        parse_target("http://example.com/", rules)


def test_the_verdict_depends_on_the_rules_it_is_asked_with() -> None:
    url = "http://127.0.0.1:9999/remembered"
    assert parse_target(url, LOOPBACK)
    with pytest.raises(Forbidden):
        parse_target(url, STRICT)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("localhost", True), ("a.localhost", True), ("ip6-localhost", True), ("localhost.example.com", False)],
)
def test_the_family_of_localhost(name: str, expected: bool) -> None:
    assert is_localhost(name) == expected


# -- fuzz ------------------------------------------------------------------------------------------

# No input may cost more: a target is judged while its caller waits. Real ones take microseconds, the worst ones a
# millisecond; the rest is for busy machines.
SECONDS_MAX = 1.0

hosts = st.one_of(
    st.text(max_size=300),
    st.text("0123456789abcdefx.:%[]", max_size=60),
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.text("xn-.aé。ｌ\u0660\u200d\u0300", max_size=253),
)
urls = st.one_of(
    st.text(max_size=TARGET_CHARS_MAX + 10),
    st.builds("{}://{}{}".format, st.sampled_from(["http", "https", "HTTP"]), hosts, st.text(max_size=80)),
    st.builds("http://{}:{}/".format, hosts, st.integers(-1, 70_000)),
)


@given(urls)
@example("http://" + "\u0300" * 2_000)
@example("http://" + "xn--" + "a" * 240)
@example("http://" + "１" * 250)
@example("http://" + "a." * 1_000)
@settings(max_examples=500, deadline=None)
def test_any_text_is_judged_in_bounded_time_and_what_passes_is_safe_to_send(url: str) -> None:
    # What this thread computed; not what others did meanwhile.
    begun = time.thread_time()
    try:
        target = parse_target(url, STRICT)
    except RequestError as error:
        assert error.status in (400, 403)
        return
    finally:
        assert time.thread_time() - begun < SECONDS_MAX
    for text in (target.host, target.path, target.authority, target.origin):
        assert text.isascii() and text.isprintable() and " " not in text
    assert target.path.startswith("/")
    assert 1 <= target.port <= 65_535
    assert target.host == target.host.lower() and not target.host.endswith(".")
    if target.address is not None:
        assert judge_address(target.address, STRICT) is None
    # The origin names the same place again.
    assert parse_target(target.origin, STRICT).origin == target.origin


@given(st.text(max_size=100))
@settings(max_examples=300)
def test_any_text_gets_a_verdict_as_an_address(text: str) -> None:
    verdict = judge_address(text, STRICT)
    assert verdict is None or (verdict and verdict.isprintable())
