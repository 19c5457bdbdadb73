"""Webhook secrets at rest: sealed with a key the database does not hold.

AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce, passed in. The webhook's gid is authenticated along, so a
sealed secret copied onto another row does not open.
"""

import hashlib
import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tidings.errors import TidingsError
from tidings.model import SealedSecret

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12


class UnsealError(TidingsError):
    """The sealed secret was made with another key, for another webhook, or was altered."""


class Sealer:
    """Seals and opens secrets, and derives the keys of other signatures from the same master key."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a sealing key has {KEY_BYTES} bytes")
        self._key = key
        self._cipher = AESGCM(self.derive(b"webhook secrets"))
        # Names the key without telling it: stored beside what it sealed.
        self.key_id = self.derive(b"key id").hex()[:16]

    def derive(self, purpose: bytes) -> bytes:
        """Derive an independent 32-byte key for a purpose (HMAC-SHA256 as a PRF)."""
        return hmac.digest(self._key, b"tidings: " + purpose, hashlib.sha256)

    def seal(self, secret: str, *, webhook: str, nonce: bytes) -> SealedSecret:
        """Seal a secret for one webhook. A nonce must never be used twice."""
        sealed = self._cipher.encrypt(nonce, secret.encode(), webhook.encode())
        return SealedSecret(self.key_id, nonce + sealed)

    def unseal(self, sealed: SealedSecret, *, webhook: str) -> str:
        """Open a sealed secret.

        Raises:
            UnsealError: the key, the webhook or the bytes are not those it was sealed with.
        """
        nonce, text = sealed.sealed[:NONCE_BYTES], sealed.sealed[NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, text, webhook.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise UnsealError(
                f"the secret of webhook {webhook} was sealed with key {sealed.key_id}, "
                f"and does not open with {self.key_id}"
            ) from error
