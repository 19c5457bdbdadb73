"""The egress proxy: it is asked for judged addresses and nothing else."""

import asyncio
import contextlib
import socket

import pytest
import trustme

from tests.transport.certificates import server
from tests.transport.conftest import SHORT, MakeSender, answer, post, trouble, until
from tests.transport.peers import OK, NameServer, Wire, answering, listening, proxying
from tidings.errors import SettingsError
from tidings.model import Trouble
from tidings.transport import CachingResolver, Sender, SenderSettings
from tidings.transport.settings import Proxy


async def test_http_goes_through_a_tunnel_to_the_judged_address(
    make_sender: MakeSender, names: NameServer
) -> None:
    names.say("hook.test", ["127.0.0.1"])
    async with answering() as target, proxying() as proxy:
        sender = make_sender(egress_proxy=f"http://127.0.0.1:{proxy.port}")
        for _ in range(3):
            assert answer(await post(sender, target.url(host="hook.test"))).status == 200
        where = f"127.0.0.1:{target.port}".encode()
        assert proxy.requests == [b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (where, where)]
        assert f"Host: hook.test:{target.port}".encode() in target.requests[0]
        await sender.close()


async def test_https_is_spoken_with_the_target_through_the_tunnel(
    make_sender: MakeSender, names: NameServer, authority: trustme.CA
) -> None:
    names.say("hook.test", ["127.0.0.1"])
    async with answering(tls=server(authority.issue_cert("hook.test"))) as target, proxying() as proxy:
        sender = make_sender(egress_proxy=f"http://user:pass%40word@localhost:{proxy.port}")
        answer(await post(sender, target.url(host="hook.test")))
        assert b"Proxy-Authorization: Basic dXNlcjpwYXNzQHdvcmQ=\r\n" in proxy.requests[0]
        assert b"uthorization" not in target.requests[0]
        await sender.close()


@pytest.mark.parametrize("addresses", [["127.0.0.2"], ["127.0.0.1", "10.0.0.1"]])
async def test_the_guard_stands_before_the_proxy(
    make_sender: MakeSender, names: NameServer, addresses: list[str]
) -> None:
    names.say("hook.test", addresses)
    async with proxying() as proxy:
        sender = make_sender(egress_proxy=f"http://127.0.0.1:{proxy.port}")
        trouble(await post(sender, "http://hook.test:8080/"), Trouble.REFUSED_ADDRESS)
        trouble(await post(sender, "http://127.0.0.2:8080/"), Trouble.REFUSED_ADDRESS)
        assert proxy.connections == 0


@pytest.mark.parametrize(
    ("words", "kind", "expected", "ours"),
    [
        (b"HTTP/1.1 407 Authentication Required\r\n\r\n", Trouble.CONNECT, "407 Authentication", True),
        (b"HTTP/1.1 502 Bad\x1b[2J\r\nA: b\r\n\r\n", Trouble.CONNECT, "refused the connection: 502", False),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n<html>", Trouble.CONNECT, "refused the connection: 403", False),
        (b"HTTP/1.1 407 \r\n\r\nWho are you?", Trouble.CONNECT, "refused the connection: 407", True),
        (b"HTTP/1.0 503\r\n\r\n", Trouble.CONNECT, "refused the connection: 503", False),
        (b"HTTP/1.1 2\r\n\r\n", Trouble.CONNECT, "The egress proxy does not speak HTTP/1.1", True),
        (b"nonsense\r\n\r\n", Trouble.CONNECT, "The egress proxy", True),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Trouble.PROTOCOL, "nobody asked for", True),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 10_000, Trouble.CONNECT, "The egress proxy", True),
        (
            b"HTTP/1.1 200 OK\r\n",
            Trouble.TIMEOUT,
            "The egress proxy did not open a tunnel within 400 ms",
            False,
        ),
        (b"", Trouble.TIMEOUT, "The egress proxy did not open a tunnel", False),
    ],
)
async def test_a_proxy_that_does_not_open_the_tunnel(
    *, make_sender: MakeSender, words: bytes, kind: Trouble, expected: str, ours: bool
) -> None:
    """Whose fault it is: the target's where the proxy answers, or may still, for it."""

    async def behave(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        await wire.send(words)
        await wire.until_gone()

    async with listening(behave) as proxy:
        sender = make_sender(egress_proxy=proxy.url(path=""))
        trouble(await post(sender, "http://127.0.0.1:8080/", timeout=SHORT), kind, expected, ours=ours)
        await until(lambda: proxy.open_now == 0)


async def test_a_proxy_that_hangs_up(make_sender: MakeSender) -> None:
    async def behave(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")

    async with listening(behave) as proxy:
        sender = make_sender(egress_proxy=proxy.url(path=""))
        reply = await post(sender, "http://127.0.0.1:8080/")
        trouble(reply, Trouble.CONNECT, "The egress proxy reset", ours=True)


async def test_a_proxy_that_does_not_accept(make_sender: MakeSender) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        with contextlib.ExitStack() as queue:
            for _ in range(8):  # more than the kernel queues: the next is not answered
                waiting = queue.enter_context(contextlib.closing(socket.socket()))
                waiting.setblocking(False)
                waiting.connect_ex(address)
            reply = await post(
                make_sender(egress_proxy=f"http://127.0.0.1:{address[1]}"),
                "http://127.0.0.1:8080/",
                timeout=SHORT,
            )
    trouble(reply, Trouble.TIMEOUT, "The egress proxy did not accept a connection", ours=True)


async def test_a_proxy_that_is_not_there(make_sender: MakeSender, names: NameServer) -> None:
    async with proxying() as proxy:
        url = proxy.url(path="")
    trouble(
        await post(make_sender(egress_proxy=url), "http://127.0.0.1:8080/"),
        Trouble.CONNECT,
        "The egress proxy refused the connection",
        ours=True,
    )
    missing = make_sender(egress_proxy="http://proxy.test:3128")
    reply = await post(missing, "http://127.0.0.1:8080/")
    trouble(reply, Trouble.CONNECT, "egress proxy", "no such name", ours=True)


async def test_the_next_address_is_tried_through_the_proxy(
    make_sender: MakeSender, names: NameServer
) -> None:
    names.say("both.test", ["::1", "127.0.0.1"])
    async with answering() as target, proxying() as proxy:
        sender = make_sender(egress_proxy=proxy.url(path=""))
        answer(await post(sender, target.url(host="both.test")))
        await sender.close()
        await asyncio.sleep(0)


async def test_a_tunnel_that_hangs_does_not_keep_the_next_address_waiting(
    make_sender: MakeSender, names: NameServer
) -> None:
    names.say("both.test", ["::1", "127.0.0.1"])

    async def behave(wire: Wire) -> None:
        """Opens tunnels that end here; over IPv6 none ever comes about."""
        head = await wire.reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"CONNECT ["):
            await wire.until_gone()
        await wire.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await wire.request()
        await wire.send(OK)

    async with listening(behave) as proxy:
        sender = make_sender(egress_proxy=proxy.url(path=""))
        answer(await post(sender, "http://both.test:8080/"))
        assert proxy.connections == 2


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy.example:3128", Proxy("proxy.example", 3128)),
        ("http://proxy.example/", Proxy("proxy.example", 80)),
        ("http://[::1]:3128", Proxy("::1", 3128)),
        ("http://u:p@10.0.0.1:3128", Proxy("10.0.0.1", 3128, "u:p")),
        ("http://u@10.0.0.1:3128", Proxy("10.0.0.1", 3128, "u:")),
    ],
)
def test_how_a_proxy_is_written(url: str, expected: Proxy) -> None:
    assert Proxy.parse(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "proxy:3128",
        "https://proxy:3128",
        "socks5://proxy:1080",
        "http://",
        "http://u:s3cret@p:port",
        "http://p/a",
    ],
)
def test_how_a_proxy_is_not_written(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Proxy.parse(url)
    assert "s3cret" not in str(caught.value)


async def test_a_wrong_proxy_is_a_mistake_of_the_settings(resolver: CachingResolver) -> None:
    with pytest.raises(SettingsError, match="egress proxy"):
        Sender(SenderSettings(egress_proxy="socks5://proxy"), resolver)
