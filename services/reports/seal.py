"""The seal of a document: what it was made from, and an Ed25519 signature over that and every other byte (report.proto says the form).

The seal's place lies between two words. A document is made with the place filled by zeros, which is also what its digest is taken over; so
HTML and PDF are sealed and checked by the same few lines, and a reader needs no parser of either.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

FORMAT = "waybill-seal/1"
BEGIN, END = b"WAYBILL-SEAL:", b":END-SEAL"
ALGORITHM = "Ed25519"
SIGNATURE_BYTES, KEY_BYTES = 64, 32


class NotSealed(ValueError):
    """The file holds no seal, or what stands in its place is none; the text says which."""


class KeyUnusable(ValueError):
    """A file that should hold a key and does not; the text says why."""


@dataclass(frozen=True)
class Seal:
    """What was found in a document. `genuine`: the signature fits `public_key` (None: unsigned); `intact`: so do all other bytes."""

    report: bytes
    intact: bool
    public_key: bytes | None
    genuine: bool

    @property
    def fingerprint(self) -> str:
        """Of the key; empty: unsigned."""
        return "" if self.public_key is None else fingerprint(self.public_key)


def sealed(make: Callable[[bytes], bytes], report: bytes, key: Ed25519PrivateKey | None) -> bytes:
    """A document with its seal. `make` gives the document with the bytes it is given, once and unchanged, in it."""
    blank = BEGIN + b"0" * len(_packed(report, "0" * 64, key)) + END
    document = make(blank)
    if document.count(BEGIN) != 1 or document.count(blank) != 1:
        raise ValueError("the document must hold the place for its seal exactly once")
    return document.replace(blank, BEGIN + _packed(report, hashlib.sha256(document).hexdigest(), key) + END)


def opened(document: bytes) -> Seal:
    """The seal of a document, checked. Raises NotSealed."""
    if document.count(BEGIN) != 1:
        raise NotSealed("it holds no seal of Waybill" if BEGIN not in document else "it holds more than one seal")
    before, _, rest = document.partition(BEGIN)
    packed, end, after = rest.partition(END)
    if not end:
        raise NotSealed("its seal is cut off")
    try:
        told: dict[str, Any] = json.loads(packed)
        report, said = base64.b64decode(told["report"], validate=True), str(told["document_sha256"])
        algorithm, form = str(told["algorithm"]), str(told["format"])
        public, signature = (base64.b64decode(told[name], validate=True) for name in ("public_key", "signature"))
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise NotSealed("what stands in the place of its seal is none: it is damaged") from None
    if form != FORMAT or algorithm not in ("", ALGORITHM):
        raise NotSealed(f"its seal is of a form that this version does not know: {form} {algorithm}")
    if _written(report, said, algorithm, public, signature) != packed:  # base64 and JSON have many forms of one value; a seal has one
        raise NotSealed("what stands in the place of its seal is not written as a seal is: it was changed")
    blank = before + BEGIN + b"0" * len(packed) + END + after
    intact = hashlib.sha256(blank).hexdigest() == said
    if not algorithm:
        return Seal(report, intact, None, False)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _signed(report, said))
        genuine = True
    except (InvalidSignature, ValueError):
        genuine = False
    return Seal(report, intact, public, genuine)


def _signed(report: bytes, document_sha256: str) -> bytes:
    return f"{FORMAT}\n{hashlib.sha256(report).hexdigest()}\n{document_sha256}\n".encode()


def _packed(report: bytes, document_sha256: str, key: Ed25519PrivateKey | None) -> bytes:
    """The seal's bytes; their number does not depend on the digest."""
    if key is None:
        return _written(report, document_sha256, "", b"", b"")
    return _written(report, document_sha256, ALGORITHM, public_bytes(key.public_key()), key.sign(_signed(report, document_sha256)))


def _written(report: bytes, document_sha256: str, algorithm: str, public: bytes, signature: bytes) -> bytes:
    """The one way to write these values down."""
    told = {
        "format": FORMAT,
        "report": base64.b64encode(report).decode(),
        "document_sha256": document_sha256,
        "algorithm": algorithm,
        "public_key": base64.b64encode(public).decode(),
        "signature": base64.b64encode(signature).decode(),
    }
    return json.dumps(told, separators=(",", ":")).encode()


# ---------------------------------------------------------------- keys


def new_key() -> bytes:
    """A new private key as PEM (PKCS 8, not encrypted: keep it as you keep a password)."""
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def private_key(pem: bytes) -> Ed25519PrivateKey:
    """The key in a PEM file. Raises KeyUnusable."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise KeyUnusable(f"it holds no unencrypted private key in PEM form: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable("its key is not an Ed25519 key; `waybill keys make` makes one")
    return key


def public_key(pem: bytes) -> Ed25519PublicKey:
    """The public key in a PEM file, or that of the private key in it. Raises KeyUnusable."""
    if b"PRIVATE" in pem:
        return private_key(pem).public_key()
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError as error:
        raise KeyUnusable(f"it holds no public key in PEM form: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyUnusable("its key is not an Ed25519 key")
    return key


def public_bytes(key: Ed25519PublicKey) -> bytes:
    """Its 32 bytes."""
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def public_pem(key: Ed25519PublicKey) -> str:
    """SubjectPublicKeyInfo, PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def fingerprint(public: bytes) -> str:
    """SHA-256 of a public key's 32 bytes, hex."""
    return hashlib.sha256(public).hexdigest()
