"""The sender: HTTP/1.1 POSTs to addresses that were judged, within bounds and one deadline.

    Delivery ──Sender.post──▶ Answer | NoAnswer

    parse the URL → take a kept connection, or: resolve → judge every address → dial a judged one → TLS
                  → write once → read within bounds → keep the connection or close it

Nothing a target is, says or does raises here, costs more than its deadline and a few kilobytes, or delays another
target. Nothing is followed (redirects), remembered (cookies), inflated (gzip) or read from the environment
(proxies).
"""

from tidings.transport.ares import AresLookup
from tidings.transport.resolver import CachingResolver, Resolution, Resolver, Unresolved
from tidings.transport.sender import Sender
from tidings.transport.settings import SenderSettings

__all__ = [
    "AresLookup",
    "CachingResolver",
    "Resolution",
    "Resolver",
    "Sender",
    "SenderSettings",
    "Unresolved",
]
