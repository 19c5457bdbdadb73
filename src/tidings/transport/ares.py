"""DNS through c-ares: asynchronous, with /etc/hosts and the system's name servers."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

import aiodns
import pycares
from aiodns.error import DNSError

from tidings.transport.resolver import Resolution, Unresolved

# Seconds for the first try of each server; c-ares doubles it for the next. All tries fit a delivery's 10 s.
TRY_SECONDS: Final = 1.5
TRIES: Final = 3

# A name means the same wherever we run: no search list is tried.
_FLAGS: Final = pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_EDNS

_WORDS: Final = {
    pycares.errno.ARES_ENOTFOUND: "there is no such name",
    pycares.errno.ARES_ENODATA: "the name has no address",
    pycares.errno.ARES_ETIMEOUT: "the name servers did not answer",
    pycares.errno.ARES_ESERVFAIL: "the name servers could not answer",
    pycares.errno.ARES_EREFUSED: "the name servers refused to answer",
    pycares.errno.ARES_ECONNREFUSED: "no name server could be reached",
    pycares.errno.ARES_EBADNAME: "the name is not valid",
}


class AresLookup:
    """Asks for A and AAAA together, in a thread of c-ares' own. Remembers nothing: see `CachingResolver`.

    `nameservers` are `address:port`; None means the system's.
    """

    def __init__(
        self,
        nameservers: Sequence[str] | None = None,
        *,
        try_seconds: float = TRY_SECONDS,
        tries: int = TRIES,
    ) -> None:
        self._dns = aiodns.DNSResolver(
            nameservers=nameservers,
            loop=asyncio.get_running_loop(),
            timeout=try_seconds,
            tries=tries,
            flags=_FLAGS,
        )

    async def resolve(self, host: str) -> Resolution:
        try:
            found = await self._dns.getaddrinfo(host, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM)
        except DNSError as error:
            raise Unresolved(_WORDS.get(error.args[0], str(error.args[1]).lower())) from None
        if not found.nodes:
            raise Unresolved("the name has no address")
        addresses = tuple(dict.fromkeys(node.addr[0].decode() for node in found.nodes))
        ttls = [node.ttl for node in found.nodes] + [cname.ttl for cname in found.cnames]
        return Resolution(addresses, min(ttls))

    async def close(self) -> None:
        await self._dns.close()
