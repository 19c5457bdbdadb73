"""Secrets at rest: there and back, and no other way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tidings.model import SealedSecret
from tidings.sealing import KEY_BYTES, NONCE_BYTES, Sealer, UnsealError

KEY = bytes(range(KEY_BYTES))
NONCE = b"n" * NONCE_BYTES
SECRET = "cfecd97ea57de2b55a0a1a343c16fe3e"


@given(st.text(st.characters(codec="utf-8")), st.binary(min_size=12, max_size=12))
def test_what_was_sealed_opens(secret: str, nonce: bytes) -> None:
    sealed = Sealer(KEY).seal(secret, webhook="17", nonce=nonce)
    assert Sealer(KEY).unseal(sealed, webhook="17") == secret
    assert sealed.valid_until is None


def test_a_seal_does_not_show_the_secret() -> None:
    sealed = Sealer(KEY).seal(SECRET, webhook="17", nonce=NONCE)
    assert SECRET.encode() not in sealed.sealed
    assert bytes.fromhex(SECRET) not in sealed.sealed
    assert sealed.sealed[:NONCE_BYTES] == NONCE


@given(st.integers(0), st.integers(1, 255))
def test_one_altered_byte_does_not_open(where: int, flip: int) -> None:
    sealer = Sealer(KEY)
    sealed = sealer.seal(SECRET, webhook="17", nonce=NONCE)
    raw = bytearray(sealed.sealed)
    raw[where % len(raw)] ^= flip
    with pytest.raises(UnsealError):
        sealer.unseal(SealedSecret(sealed.key_id, bytes(raw)), webhook="17")


@pytest.mark.parametrize("length", [0, 1, 7, 8, 12, 20, 27])
def test_a_cut_seal_does_not_open(length: int) -> None:
    sealer = Sealer(KEY)
    sealed = sealer.seal(SECRET, webhook="17", nonce=NONCE)
    with pytest.raises(UnsealError):
        sealer.unseal(SealedSecret(sealed.key_id, sealed.sealed[:length]), webhook="17")


def test_a_seal_copied_to_another_webhook_does_not_open() -> None:
    sealed = Sealer(KEY).seal(SECRET, webhook="17", nonce=NONCE)
    with pytest.raises(UnsealError):
        Sealer(KEY).unseal(sealed, webhook="18")


def test_another_key_does_not_open_and_the_error_names_both() -> None:
    ours, other = Sealer(KEY), Sealer(b"k" * KEY_BYTES)
    sealed = other.seal(SECRET, webhook="17", nonce=NONCE)
    with pytest.raises(UnsealError) as refused:
        ours.unseal(sealed, webhook="17")
    assert "17" in str(refused.value)
    assert other.key_id in str(refused.value)
    assert ours.key_id in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Sealer(b"k" * length)


def test_keys_of_other_purposes_are_others() -> None:
    """Deriving is stable over restarts, and no purpose gives away another's key or the master key."""
    sealer = Sealer(KEY)
    assert sealer.derive(b"offsets") == Sealer(KEY).derive(b"offsets")
    derived = {sealer.derive(b"offsets"), sealer.derive(b"sync"), sealer.derive(b"webhook secrets"), KEY}
    assert len(derived) == 4
    assert all(len(key) == KEY_BYTES for key in derived)


def test_the_key_id_names_the_key_without_telling_it() -> None:
    sealer = Sealer(KEY)
    assert sealer.key_id == Sealer(KEY).key_id != Sealer(b"k" * KEY_BYTES).key_id
    assert sealer.key_id not in KEY.hex()


def test_a_seal_remembers_its_end_apart_from_what_is_sealed() -> None:
    sealer = Sealer(KEY)
    sealed = replace(sealer.seal(SECRET, webhook="17", nonce=NONCE), valid_until=5)
    assert sealer.unseal(sealed, webhook="17") == SECRET
