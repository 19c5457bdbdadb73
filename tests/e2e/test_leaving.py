"""How deliveries leave the service, as its settings say: held to a bundle, through a proxy, to what is not closed."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

import trustme

from tests.e2e.conftest import Start
from tests.serving import PROJECT, TASK, Receiver, Service, event, wait_until
from tests.transport.certificates import server
from tests.transport.peers import Peer, Wire, listening, proxying


@contextmanager
def elsewhere(peer: AbstractAsyncContextManager[Peer]) -> Iterator[Peer]:
    """A peer on a loop of its own, in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        made = asyncio.run_coroutine_threadsafe(peer.__aenter__(), loop).result()
        yield made
        asyncio.run_coroutine_threadsafe(peer.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def takes(wire: Wire) -> None:
    """A receiver that shakes hands and takes everything."""
    while True:
        head, _, _ = (await wire.request()).partition(b"\r\n\r\n")
        echo = b"".join(line + b"\r\n" for line in head.split(b"\r\n") if line.startswith(b"X-Hook-Secret:"))
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%b\r\n" % echo)


def refusal(service: Service, target: str) -> tuple[int, str]:
    """The status and message of a webhook that is refused."""
    response = service.api("POST", "/webhooks", data={"resource": PROJECT, "target": target})
    return response.status_code, response.json()["errors"][0]["message"]


def test_https_is_held_to_the_bundle(start: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    service = start(TIDINGS_CA_BUNDLE=str(tmp_path / "authority.pem"))
    good, bad = (ca.issue_cert("127.0.0.1") for ca in (authority, trustme.CA()))
    with elsewhere(listening(takes, tls=server(good))) as trusted:
        gid = service.create_webhook(PROJECT, trusted.url())["gid"]
        service.publish(event(TASK))
        wait_until(lambda: service.ask("GET", f"/webhooks/{gid}/attempts"))
        assert service.ask("GET", f"/webhooks/{gid}/attempts")[0]["result"] == "delivered"
    with elsewhere(listening(takes, tls=server(bad))) as untrusted:
        status, message = refusal(service, untrusted.url())
        assert status == 400
        assert "its certificate comes from an authority that is not trusted" in message


def test_deliveries_go_through_the_proxy(start: Start, receiver: Receiver) -> None:
    with elsewhere(proxying()) as proxy:
        service = start(TIDINGS_EGRESS_PROXY=proxy.url(path=""))
        service.create_webhook(PROJECT, receiver.url())
        service.publish(event(TASK))
        receiver.wait_until(lambda: receiver.events())
        where = receiver.url().split("/")[2].encode()
        assert proxy.requests
        assert all(head.startswith(b"CONNECT %b HTTP/1.1\r\n" % where) for head in proxy.requests)
        # The guard stands before the proxy.
        asked = len(proxy.requests)
        assert refusal(service, "http://10.0.0.1/")[0] == 403
        assert len(proxy.requests) == asked
        service.stop()


def test_http_and_ports_can_be_closed(start: Start, receiver: Receiver) -> None:
    service = start(TIDINGS_REQUIRE_HTTPS="true", TIDINGS_DENY_PORTS="8443")
    for target, words in (
        (receiver.url(), "Must begin with https://"),
        ("https://127.0.0.1:8443/", "Port 8443 is not allowed"),
    ):
        status, message = refusal(service, target)
        assert (status, words in message) == (403, True), message
    assert not receiver.taken()
