"""What went wrong, in words: one line that a person who does not know our code can act on."""

import errno
import os
import ssl
from typing import Final

from tidings.limits import MICROSECONDS_PER_SECOND
from tidings.model import Micros, NoAnswer, Trouble


class Failed(Exception):
    """Raised inside the transport only, on the way to a connection; `Sender.post` turns it into its `reply`."""

    def __init__(self, trouble: Trouble, text: str, *, ours: bool = False) -> None:
        super().__init__(text)
        self.reply = NoAnswer(trouble, text, ours)


def span_text(span: Micros) -> str:
    """`10 s`, `1.5 s`, `200 ms`."""
    if span >= MICROSECONDS_PER_SECOND:
        return f"{span / MICROSECONDS_PER_SECOND:g} s"
    return f"{span / 1_000:g} ms"


def printable(text: str) -> str:
    """The same text, with a mark where something stood that a terminal or a database might choke on."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


_OS_WORDS: Final = {
    errno.ECONNREFUSED: "{who} refused the connection",
    errno.ECONNRESET: "{who} reset the connection",
    errno.EPIPE: "{who} closed the connection",
    errno.ETIMEDOUT: "{who} did not accept the connection",
    errno.EHOSTUNREACH: "{who} cannot be reached: no route to its host",
    errno.ENETUNREACH: "{who} cannot be reached: no route to its network",
    errno.EMFILE: "No connection could be opened: this service has too many open files",
    errno.ENFILE: "No connection could be opened: this machine has too many open files",
    errno.EADDRNOTAVAIL: "No connection could be opened: this machine has no free local port",
}


# What this machine has too little of: no target can be blamed.
_OUR_OWN: Final = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM, errno.ENETDOWN)
)


def is_ours(error: OSError) -> bool:
    """Whether a connection failed for want of something that this machine should have had."""
    return error.errno in _OUR_OWN


def os_words(error: OSError, who: str = "The target") -> str:
    """Say what the operating system reported about a connection to `who`."""
    code = error.errno or 0
    words = _OS_WORDS.get(code)
    if words is not None:
        return words.format(who=who)
    return f"The connection failed: {os.strerror(code) if code else 'unknown error'}"


# X509_V_ERR_…, as OpenSSL numbers them; the names are not in Python's ssl module.
_CERTIFICATE_WORDS: Final = {
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    18: "its certificate is self-signed",
    19: "its certificate chain ends in an authority that is not trusted",
    20: "its certificate comes from an authority that is not trusted, or an intermediate certificate is missing",
    21: "its certificate comes from an authority that is not trusted, or an intermediate certificate is missing",
    23: "its certificate was revoked",
    26: "its certificate is not meant for servers",
    66: "its certificate's key is too weak",
    68: "its certificate's signature is too weak",
}
_NAME_MISMATCH: Final = frozenset((62, 64))

# OpenSSL's reasons for the mistakes people make.
_TLS_WORDS: Final = {
    "WRONG_VERSION_NUMBER": "what answers on this port does not speak TLS",
    "HTTP_REQUEST": "what answers on this port does not speak TLS",
    "UNSUPPORTED_PROTOCOL": "it offers no TLS version from 1.2 on",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it offers no TLS version from 1.2 on",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it has no cipher in common with this service",
    "TLSV1_UNRECOGNIZED_NAME": "it does not know this host name",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a client certificate",
    "UNEXPECTED_EOF_WHILE_READING": "it closed the connection",
}


def tls_words(error: ssl.SSLError, host: str) -> str:
    """Say why no TLS session came about, or why one broke."""
    return f"TLS with the target failed: {_tls_reason(error, host)}"


def _tls_reason(error: ssl.SSLError, host: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _NAME_MISMATCH:
            return f"its certificate is not valid for '{host}'"
        return _CERTIFICATE_WORDS.get(
            error.verify_code, f"its certificate was refused ({error.verify_message})"
        )
    reason = error.reason or ""
    return _TLS_WORDS.get(reason, reason.replace("_", " ").lower() or "unknown reason")
