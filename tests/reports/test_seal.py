"""The seal: what it binds, and that no byte of a sealed document can be changed unseen."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.reports import seal

REPORT = bytes(range(256)) * 9


@pytest.fixture(scope="module")
def key() -> Ed25519PrivateKey:
    return seal.private_key(seal.new_key())


def document(key: Ed25519PrivateKey | None) -> bytes:
    return seal.sealed(lambda blank: b"before " + blank + b" after", REPORT, key)


def test_a_sealed_document_gives_its_report_and_its_signer(key: Ed25519PrivateKey) -> None:
    found = seal.opened(document(key))
    assert found == seal.Seal(REPORT, True, seal.public_bytes(key.public_key()), True)
    assert found.fingerprint == seal.fingerprint(seal.public_bytes(seal.public_key(seal.public_pem(key.public_key()).encode())))


def test_an_unsigned_document_says_so() -> None:
    assert seal.opened(document(None)) == seal.Seal(REPORT, True, None, False)


def test_no_byte_can_be_changed_unseen(key: Ed25519PrivateKey) -> None:
    whole = document(key)
    for place in [*range(20), *range(20, len(whole) - 20, 7), *range(len(whole) - 20, len(whole))]:
        changed = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        try:
            found = seal.opened(changed)
        except seal.NotSealed:
            continue
        assert not (found.intact and found.genuine), f"byte {place}"


def test_a_signature_of_another_document_does_not_fit(key: Ed25519PrivateKey) -> None:
    first, second = document(key), seal.sealed(lambda blank: b"other " + blank, REPORT, key)
    packed = second[second.index(seal.BEGIN) : second.index(seal.END)]
    own = first[first.index(seal.BEGIN) : first.index(seal.END)]
    assert not seal.opened(first.replace(own, packed)).intact


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"a page", "no seal"),
        (b"WAYBILL-SEAL:abc", "cut off"),
        (b"WAYBILL-SEAL:abc:END-SEAL", "damaged"),
        (document(None) * 2, "more than one"),
    ],
)
def test_what_is_no_document_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(seal.NotSealed, match=why):
        seal.opened(data)


def test_a_key_file_with_something_else_is_refused_with_the_reason() -> None:
    with pytest.raises(seal.KeyUnusable, match="no unencrypted private key"):
        seal.private_key(b"not a key")
    with pytest.raises(seal.KeyUnusable, match="no public key"):
        seal.public_key(b"-----BEGIN PUBLIC KEY-----\n")
