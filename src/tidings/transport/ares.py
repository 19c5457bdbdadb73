"""DNS through c-ares: asynchronous, with /etc/hosts and the system's name servers."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

import aiodns
import pycares
from aiodns.error import DNSError

from tidings.transport.resolver import Resolution, Unresolved

# Seconds for the first try of a server that has not answered yet. One that has is given five times what it took, but
# at least 250 ms; each further try has twice as long. Six of them wait some 12 s in all even where the first was that
# short: a server that is quick with what it knows may take seconds to find out about a name it does not.
TRY_SECONDS: Final = 1.5
TRIES: Final = 6
# How long c-ares' own memory of answers lives; see `_forget`.
FORGET_SECONDS: Final = 1.0

# A name means the same wherever we run: no search list is tried.
_FLAGS: Final = pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_EDNS
# ARES_AI_NOSORT, which pycares does not name. Sorting connects a socket to each address to see which source the kernel
# would choose, and these addresses have not been judged yet.
_NOSORT: Final = 1 << 7

_WORDS: Final = {
    pycares.errno.ARES_ENOTFOUND: "there is no such name",
    pycares.errno.ARES_ENODATA: "the name has no address",
    pycares.errno.ARES_ETIMEOUT: "the name servers did not answer",
    pycares.errno.ARES_ESERVFAIL: "the name servers could not answer",
    pycares.errno.ARES_EREFUSED: "the name servers refused to answer",
    pycares.errno.ARES_ECONNREFUSED: "no name server could be reached",
    pycares.errno.ARES_EBADNAME: "the name is not valid",
}

# Where it is not the name that is to blame.
_OURS: Final = frozenset(
    (pycares.errno.ARES_ECONNREFUSED, pycares.errno.ARES_ENOMEM, pycares.errno.ARES_EFILE)
)


class AresLookup:
    """Asks for A and AAAA together, in a thread of c-ares' own. What is remembered is `CachingResolver`'s affair.

    `nameservers` are `address:port`; None means the system's.
    """

    def __init__(
        self,
        nameservers: Sequence[str] | None = None,
        *,
        try_seconds: float = TRY_SECONDS,
        tries: int = TRIES,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._forgetting: asyncio.TimerHandle | None = None
        self._closed = False
        self._dns = aiodns.DNSResolver(
            nameservers=nameservers,
            loop=self._loop,
            timeout=try_seconds,
            tries=tries,
            flags=_FLAGS,
        )

    async def resolve(self, host: str) -> Resolution:
        try:
            found = await self._dns.getaddrinfo(
                host, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM, flags=_NOSORT
            )
        except DNSError as error:
            code, text = error.args
            raise Unresolved(_WORDS.get(code, str(text).lower()), ours=code in _OURS) from None
        finally:
            if self._forgetting is None and not self._closed:
                self._forgetting = self._loop.call_later(FORGET_SECONDS, self._forget)
        if not found.nodes:
            raise Unresolved("the name has no address")
        addresses = tuple(dict.fromkeys(node.addr[0].decode() for node in found.nodes))
        ttls = [node.ttl for node in found.nodes] + [cname.ttl for cname in found.cnames]
        return Resolution(addresses, min(ttls))

    def _forget(self) -> None:
        """Empty c-ares' memory, by having it read its configuration anew.

        It would keep answers for up to an hour, without a bound on their number, and that a name has no address for an
        hour whatever the name server says. There is a switch, but not within pycares' reach.
        """
        self._forgetting = None
        self._dns._channel.reinit()

    async def close(self) -> None:
        self._closed = True
        if self._forgetting is not None:
            self._forgetting.cancel()
        await self._dns.close()
