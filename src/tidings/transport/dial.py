"""From a target to an open connection: resolve, judge every address, dial a judged one, speak TLS.

What was judged is what is dialled: from here on there are addresses, never names, so DNS has no second say.

With an egress proxy the guard works as without: names are resolved and judged here, and the proxy is asked to
CONNECT to the judged address and port, for http and https alike (TLS then runs end to end, to the target's name).
The proxy never sees a name, so it cannot resolve one to something else; nor can it filter by name. The proxy's own
address is the operator's word and is not judged. Where an allow-list opens loopback or a private range, it opens
the one the proxy sees.
"""

import asyncio
import errno
import os
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from ipaddress import ip_address
from itertools import chain, zip_longest
from typing import Any, Final, NewType, TypeVar

import uvloop

from tidings.errors import SettingsError
from tidings.limits import RESPONSE_HEAD_BYTES_MAX
from tidings.model import Trouble
from tidings.targets import LOOPBACKS, Address, Rules, Target, is_localhost, judge_address
from tidings.transport.connection import Connection
from tidings.transport.faults import Failed, is_ours, os_words, printable, tls_words
from tidings.transport.gate import Gate
from tidings.transport.resolver import Resolver, Unresolved
from tidings.transport.settings import BESIDE_MAX, Proxy, SenderSettings

# Addresses that are tried, the families in turn; the next begins when the last has failed or is slow (RFC 8305 §5).
DIALLED_MAX: Final = 6
DIAL_STAGGER_SECONDS: Final = 0.25
# The loop's own timer of a TLS handshake rings so long after the deadline, which is what ends it.
HANDSHAKE_SLACK_SECONDS: Final = 1.0

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] (\d{3})((?: [^\r]*)?)(?:\r|\Z)")

# Whom a failure is about.
_TARGET: Final = "The target"
_PROXY: Final = "The egress proxy"

Judged = NewType("Judged", str)
"""An address that `judge_address` let pass: the only kind a target is dialled by. The proxy's are plain text."""

AnAddress = TypeVar("AnAddress", bound=str)


class Progress:
    """How far a connection has come, for what is said if its time is over."""

    __slots__ = ("ours", "waiting_for")

    def __init__(self) -> None:
        self.waits("This service was busy and did not begin", ours=True)

    def waits(self, for_what: str, *, ours: bool = False) -> None:
        """`ours`: for something that no target could have hastened."""
        self.waiting_for = for_what
        self.ours = ours


class Dialer:
    """Opens connections. Every refusal and failure is a `Failed`."""

    def __init__(self, settings: SenderSettings, resolver: Resolver) -> None:
        self._rules = settings.rules
        self._resolver = resolver
        self._proxy = None if settings.egress_proxy is None else Proxy.parse(settings.egress_proxy)
        self._tls = _tls_context(settings)
        self._loop = asyncio.get_running_loop()
        self._beside = Gate(BESIDE_MAX)

    async def dial(
        self, target: Target, make: Callable[[], Connection], progress: Progress, *, deadline: float
    ) -> Connection:
        """Open the connection that `make` makes. Cancelled, as at the `deadline` (of the loop's clock), it leaves no
        socket behind."""
        addresses = await self._judged_addresses(target, progress)
        if self._proxy is None:
            progress.waits("The target did not accept a connection")
            connect = partial(self._connect, port=target.port)
        else:
            connect = partial(self._tunnel, proxy=self._proxy, port=target.port, progress=progress)
        sock = await self._race(addresses, connect)
        return await self._take_over(sock, target, make, progress, deadline=deadline)

    # -- addresses ---------------------------------------------------------------------------------

    async def _judged_addresses(self, target: Target, progress: Progress) -> list[Judged]:
        if target.address is not None:
            return [_judge(target.address, self._rules)]
        if is_localhost(target.host):
            return self._loopbacks()
        progress.waits("The name of the target did not resolve")
        found = await self._resolve(target.host)
        return _in_turn([_judge(address, self._rules) for address in found])

    async def _resolve(self, host: str) -> tuple[str, ...]:
        try:
            return (await self._resolver.resolve(host)).addresses
        except Unresolved as error:
            text = f"The name of the target could not be resolved: {error.text}"
            raise Failed(Trouble.DNS, text, ours=error.ours) from None

    def _loopbacks(self) -> list[Judged]:
        """`localhost` means loopback and is never asked for (RFC 6761 §6.3): whichever of the two is allowed."""
        allowed = [Judged(str(each)) for each in LOOPBACKS if judge_address(each, self._rules) is None]
        if not allowed:
            raise Failed(Trouble.REFUSED_ADDRESS, "The target's address is not allowed: loopback")
        return allowed

    # -- sockets -----------------------------------------------------------------------------------

    async def _race(
        self,
        addresses: Sequence[AnAddress],
        connect: Callable[[AnAddress], Coroutine[Any, Any, socket.socket]],
    ) -> socket.socket:
        """The first connection that comes about; a slow or failed address starts the next one."""
        if len(addresses) == 1:
            return await connect(addresses[0])
        started: list[asyncio.Task[socket.socket]] = []
        running: set[asyncio.Task[socket.socket]] = set()
        winner: asyncio.Task[socket.socket] | None = None
        error: BaseException | None = None
        waiting = list(reversed(addresses[:DIALLED_MAX]))
        try:
            while waiting or running:
                if waiting and (not running or self._beside.try_enter()):
                    task = self._loop.create_task(connect(waiting.pop()))
                    if running:
                        task.add_done_callback(self._leave_beside)
                    started.append(task)
                    running.add(task)
                pause = DIAL_STAGGER_SECONDS if waiting else None
                done, running = await asyncio.wait(
                    running, timeout=pause, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    error = task.exception()
                    if error is None:
                        winner = task
                        return task.result()
        finally:
            for task in started:
                if task is not winner:
                    _abandon(task)
        assert error is not None
        raise error

    def _leave_beside(self, task: asyncio.Task[socket.socket]) -> None:
        self._beside.leave()

    async def _connect(self, address: str, *, port: int, who: str = _TARGET) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise _unconnected(error, who, family) from None
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(sock, (address, port))
        except OSError as error:
            sock.close()
            raise _unconnected(error, who, family) from None
        except BaseException:
            sock.close()
            raise
        return sock

    async def _take_over(
        self,
        sock: socket.socket,
        target: Target,
        make: Callable[[], Connection],
        progress: Progress,
        *,
        deadline: float,
    ) -> Connection:
        if target.scheme == "http":
            try:
                return await self._hand_over(sock, make)
            except OSError as error:
                raise _unconnected(error, _TARGET) from None
        progress.waits("The target did not finish the TLS handshake")
        tls = {
            "ssl": self._tls,
            "server_hostname": target.host,
            # The loop's own timer holds what belongs to a handshake that was given up, until it rings.
            "ssl_handshake_timeout": max(0.0, deadline - self._loop.time()) + HANDSHAKE_SLACK_SECONDS,
        }
        try:
            return await self._hand_over(sock, make, **tls)
        except ssl.SSLError as error:
            raise Failed(Trouble.TLS, tls_words(error, target.host)) from None
        except OSError:
            raise Failed(Trouble.TLS, "The target closed the connection during the TLS handshake") from None

    async def _hand_over(self, sock: socket.socket, make: Callable[[], Connection], **tls: Any) -> Connection:
        """Give the loop a socket, for good: whatever comes of it, the loop closes it."""
        try:
            _, connection = await self._loop.create_connection(make, sock=sock, **tls)
        except BaseException:
            if not isinstance(self._loop, uvloop.Loop):
                sock.close()
            raise
        finally:
            if isinstance(self._loop, uvloop.Loop):
                # It closes the descriptor by its number, and does not always tell the socket object: not where the
                # connection broke as it came about (https://github.com/MagicStack/uvloop/issues/738). In the end the
                # object would close whatever had been opened under that number since.
                sock.detach()
        return connection

    # -- the egress proxy --------------------------------------------------------------------------

    async def _tunnel(self, address: Judged, *, proxy: Proxy, port: int, progress: Progress) -> socket.socket:
        progress.waits("The egress proxy did not accept a connection", ours=True)
        sock = await self._connect_proxy(proxy)
        # From here on it may be the target that the proxy waits for.
        progress.waits("The egress proxy did not open a tunnel")
        try:
            await self._loop.sock_sendall(sock, _connect_request(proxy, address, port))
            _expect_tunnel(await self._read_answer(sock))
        except OSError as error:
            sock.close()
            raise _unconnected(error, _PROXY) from None
        except BaseException:
            sock.close()
            raise
        return sock

    async def _connect_proxy(self, proxy: Proxy) -> socket.socket:
        connect = partial(self._connect, port=proxy.port, who=_PROXY)
        if _is_address(proxy.host):
            return await connect(proxy.host)
        try:
            found = await self._resolver.resolve(proxy.host)
        except Unresolved as error:
            raise Failed(Trouble.CONNECT, f"The name of the egress proxy: {error.text}", ours=True) from None
        return await self._race(found.addresses, connect)

    async def _read_answer(self, sock: socket.socket) -> bytes:
        """The proxy's answer: its head, and what came with it."""
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = await self._loop.sock_recv(sock, 4096)
            answer += part
            if not part or len(answer) > RESPONSE_HEAD_BYTES_MAX:
                raise ConnectionResetError(errno.ECONNRESET, "no complete answer")
        return answer


def _expect_tunnel(answer: bytes) -> None:
    """Raise `Failed` unless the proxy has opened a tunnel (RFC 9110 §9.3.6)."""
    head, _, beyond = answer.partition(b"\r\n\r\n")
    line = _STATUS_LINE.match(head)
    if line is None:
        text = "The egress proxy does not speak HTTP/1.1"
        raise Failed(Trouble.CONNECT, text, ours=True)
    status, reason = line.groups()
    if not status.startswith(b"2"):
        said = printable((status + reason[:100]).decode("latin-1"))
        # But for our credentials, it is about the target: that it cannot be reached, or may not.
        text = f"The egress proxy refused the connection: {said}"
        raise Failed(Trouble.CONNECT, text, ours=status == b"407")
    if beyond:
        # The target speaks only when spoken to.
        raise Failed(Trouble.PROTOCOL, "The egress proxy sent bytes that nobody asked for", ours=True)


def _unconnected(error: OSError, who: str, family: int = socket.AF_INET) -> Failed:
    if family == socket.AF_INET6 and error.errno == errno.EADDRNOTAVAIL:
        # So says a machine where IPv6 is switched off, to every such address.
        error = OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
    return Failed(Trouble.CONNECT, os_words(error, who), ours=who is _PROXY or is_ours(error))


def _judge(address: str | Address, rules: Rules) -> Judged:
    reason = judge_address(address, rules)
    if reason is not None:
        # Which address it was is nobody's business who could not know it: it may name an internal network.
        raise Failed(Trouble.REFUSED_ADDRESS, f"The target's address is not allowed: {reason}")
    return Judged(str(address))


def _in_turn(addresses: list[Judged]) -> list[Judged]:
    """IPv6 and IPv4 by turns, each in the resolver's order (RFC 8305 §4)."""
    sixes = [address for address in addresses if ":" in address]
    fours = [address for address in addresses if ":" not in address]
    return [address for address in chain.from_iterable(zip_longest(sixes, fours)) if address is not None]


def _abandon(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancel() and not task.cancelled() and task.exception() is None:
        task.result().close()


def _connect_request(proxy: Proxy, address: str, port: int) -> bytes:
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
    if proxy.credentials is not None:
        lines.append(f"Proxy-Authorization: Basic {b64encode(proxy.credentials.encode()).decode()}")
    return "\r\n".join((*lines, "", "")).encode("ascii")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _tls_context(settings: SenderSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_bundle)
    except OSError as error:
        raise SettingsError([f"The CA bundle {settings.ca_bundle} cannot be used: {error}"]) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
