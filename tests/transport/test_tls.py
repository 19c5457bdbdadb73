"""TLS: the target's name is what counts, and each way to fail has its words."""

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.transport.certificates import server, yesterday
from tests.transport.conftest import LONG, SHORT, MakeSender, answer, close_and_check, post, trouble, until
from tests.transport.peers import NameServer, Wire, answering, listening
from tidings.errors import SettingsError
from tidings.model import Trouble
from tidings.transport import CachingResolver, Sender, SenderSettings
from tidings.transport.dial import _tls_context

Issue = Callable[[trustme.CA], trustme.LeafCert]


@pytest.fixture
async def trusting(sender: Sender, names: NameServer) -> Sender:
    names.say("hook.test", ["127.0.0.1"])
    return sender


async def test_a_target_with_a_good_certificate(trusting: Sender, authority: trustme.CA) -> None:
    context = server(authority.issue_cert("hook.test"))
    asked: list[str | None] = []
    context.sni_callback = lambda sock, name, ctx: asked.append(name)
    async with answering(tls=context) as target:
        for _ in range(3):
            assert answer(await post(trusting, target.url(host="hook.test"))).status == 200
        assert target.connections == 1
        assert asked == ["hook.test"]


async def test_an_address_in_the_url_is_looked_for_in_the_certificate(
    trusting: Sender, authority: trustme.CA
) -> None:
    async with answering(tls=server(authority.issue_cert("127.0.0.1"))) as target:
        answer(await post(trusting, target.url()))
    async with answering(tls=server(authority.issue_cert("hook.test"))) as target:
        trouble(await post(trusting, target.url()), Trouble.TLS, "not valid for '127.0.0.1'")


BAD_CERTIFICATES: list[tuple[str, Issue, str]] = [
    (
        "expired",
        lambda ca: ca.issue_cert(
            "hook.test", not_before=yesterday() - timedelta(days=9), not_after=yesterday()
        ),
        "its certificate has expired",
    ),
    (
        "early",
        lambda ca: ca.issue_cert("hook.test", not_before=yesterday() + timedelta(days=9)),
        "its certificate is not valid yet",
    ),
    ("wrong name", lambda ca: ca.issue_cert("other.test"), "its certificate is not valid for 'hook.test'"),
    ("unknown authority", lambda ca: trustme.CA().issue_cert("hook.test"), "authority that is not trusted"),
]


@pytest.mark.parametrize(
    ("issue", "words"), [case[1:] for case in BAD_CERTIFICATES], ids=[case[0] for case in BAD_CERTIFICATES]
)
async def test_a_bad_certificate_is_named(
    trusting: Sender, authority: trustme.CA, issue: Issue, words: str
) -> None:
    async with answering(tls=server(issue(authority))) as target:
        trouble(await post(trusting, target.url(host="hook.test")), Trouble.TLS, words)
        assert target.requests == []
        assert trusting.open_connections == 0


async def test_without_a_bundle_the_systems_trust_decides(
    make_sender: MakeSender, authority: trustme.CA, names: NameServer
) -> None:
    names.say("hook.test", ["127.0.0.1"])
    sender = make_sender(ca_bundle=None)
    async with answering(tls=server(authority.issue_cert("hook.test"))) as target:
        trouble(await post(sender, target.url(host="hook.test")), Trouble.TLS, "not trusted")


async def test_a_handshake_that_stalls(trusting: Sender) -> None:
    async def behave(wire: Wire) -> None:
        await wire.until_gone()

    async with listening(behave) as target:
        url = target.url(host="hook.test").replace("http:", "https:")
        reply = await post(trusting, url, timeout=SHORT)
        trouble(reply, Trouble.TIMEOUT, "did not finish the TLS handshake within 400 ms")
        await until(lambda: target.open_now == 0)


async def test_a_handshake_a_byte_at_a_time(trusting: Sender) -> None:
    async def behave(wire: Wire) -> None:
        await wire.drip(b"\x16\x03\x03\x40\x00" + b"\x00" * 1_000, pause=0.03)

    async with listening(behave) as target:
        url = target.url(host="hook.test").replace("http:", "https:")
        reply = await post(trusting, url, timeout=SHORT)
        assert getattr(reply, "trouble", None) in (Trouble.TIMEOUT, Trouble.TLS)
        await until(lambda: target.open_now == 0)


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH\r\n" * 5])
async def test_a_target_that_does_not_speak_tls(trusting: Sender, words: bytes) -> None:
    async def behave(wire: Wire) -> None:
        await wire.reader.read(1)
        await wire.send(words)
        await wire.until_gone()

    async with listening(behave) as target:
        url = target.url(host="hook.test").replace("http:", "https:")
        trouble(await post(trusting, url), Trouble.TLS, "does not speak TLS")


@pytest.mark.parametrize(
    ("alert", "words"),
    [
        (70, "it offers no TLS version from 1.2 on"),
        (40, "it has no cipher in common with this service"),
        (112, "it does not know this host name"),
    ],
)
async def test_what_a_target_objects_to_is_told(trusting: Sender, alert: int, words: str) -> None:
    async def behave(wire: Wire) -> None:
        await wire.reader.read(1)
        # A fatal alert (RFC 8446 §6).
        await wire.send(b"\x15\x03\x03\x00\x02\x02" + bytes((alert,)))
        await wire.until_gone()

    async with listening(behave) as target:
        url = target.url(host="hook.test").replace("http:", "https:")
        trouble(await post(trusting, url), Trouble.TLS, words)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_target_that_leaves_the_handshake(trusting: Sender, reset: bool) -> None:
    async def behave(wire: Wire) -> None:
        await wire.reader.read(1)
        if reset:
            wire.reset()

    async with listening(behave) as target:
        url = target.url(host="hook.test").replace("http:", "https:")
        trouble(await post(trusting, url), Trouble.TLS, "closed the connection")


async def test_a_target_that_wants_our_certificate(trusting: Sender, authority: trustme.CA) -> None:
    context = server(authority.issue_cert("hook.test"))
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    async with answering(tls=context) as target:
        reply = await post(trusting, target.url(host="hook.test"))
        # In TLS 1.3 the target says so after the handshake, when the request may be on its way.
        assert getattr(reply, "trouble", None) in (Trouble.TLS, Trouble.CLOSED)
        assert target.requests == []


async def test_a_kept_tls_connection_that_went_stale_is_replaced(
    trusting: Sender, authority: trustme.CA
) -> None:
    async def behave(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        if wire.number == 1:
            await wire.request()

    async with listening(behave, tls=server(authority.issue_cert("hook.test"))) as target:
        for _ in range(2):
            assert answer(await post(trusting, target.url(host="hook.test"))).status == 204
        assert target.connections == 2


async def test_an_answer_that_ends_with_the_tls_connection(trusting: Sender, authority: trustme.CA) -> None:
    async def behave(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\n\r\nbye")
        wire.writer.close()
        await wire.until_gone()

    async with listening(behave, tls=server(authority.issue_cert("hook.test"))) as target:
        assert answer(await post(trusting, target.url(host="hook.test"))).body == b"bye"


async def test_many_handshakes_at_once_all_come_through(trusting: Sender, authority: trustme.CA) -> None:
    async with answering(tls=server(authority.issue_cert("hook.test"))) as target:
        url = target.url(host="hook.test")
        for reply in await asyncio.gather(*(post(trusting, url, timeout=LONG) for _ in range(30))):
            answer(reply)
        assert trusting.idle_connections == target.connections


def test_old_versions_are_not_spoken_and_names_are_checked(bundle: Path) -> None:
    context = _tls_context(SenderSettings(ca_bundle=bundle))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_bundle_that_cannot_be_used_is_a_mistake_of_the_settings(
    resolver: CachingResolver, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "bundle.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match="CA bundle"):
        Sender(SenderSettings(ca_bundle=path), resolver)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_socket_outlives_its_connection(
    make_sender: MakeSender, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Or it would, when it is forgotten, close what has been opened under its number since."""
    opened: list[socket.socket] = []

    class Socket(socket.socket):
        def __init__(self, *arguments: Any, **accepted: Any) -> None:
            super().__init__(*arguments, **accepted)
            if not accepted:
                opened.append(self)

    sender = make_sender()
    with resetting() as port:
        monkeypatch.setattr(socket, "socket", Socket)
        for _ in range(30):
            await asyncio.gather(*(post(sender, f"{scheme}://127.0.0.1:{port}/") for _ in range(10)))
    await close_and_check(sender)
    assert len(opened) >= 300
    left = [each.detach() for each in opened if each.fileno() != -1]
    assert left == []


@contextmanager
def resetting() -> Iterator[int]:
    """A port where connections are reset as soon as they are accepted, in a thread of its own: at any moment."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:

        def reset_all() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()

        thread = threading.Thread(target=reset_all)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
