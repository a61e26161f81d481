"""Trust lists' payloads, and receipts put into envelopes: for tools and tests, never in a daemon."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from uvmd_policy_rego.envelopes import cbor, cose, headers
from uvmd_policy_rego.envelopes.envelope import open_envelope
from uvmd_policy_rego.envelopes.errors import EnvelopeError
from uvmd_policy_rego.envelopes.trust_lists import parse_trust_list

#: COSE's numbers of curves.
_CURVES: Final = {"secp256r1": 1, "secp384r1": 2, "secp521r1": 3}
Key = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def parse_public_key(pem: bytes) -> Key:
    """Parse a ledger's public key in PEM, or that of a certificate.

    Raises:
        EnvelopeError: it cannot be read, or no receipt can be signed with one of its kind.
    """
    try:
        is_certificate = b"-----BEGIN CERTIFICATE-----" in pem
        key = x509.load_pem_x509_certificate(pem).public_key() if is_certificate else load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise EnvelopeError("the ledger's key cannot be read: no public key or certificate in PEM") from None
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    raise EnvelopeError("a ledger's key is EC (P-256, P-384, P-521) or Ed25519")


def key_id(key: Key) -> str:
    """Return the id that CCF ledgers give a key: the SHA-256 of its DER, in hexadecimal digits."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def write_trust_list(ledgers: Mapping[str, Sequence[tuple[str, Key]]]) -> bytes:
    """Return the payload of a list: for each ledger, keys by their ids.

    Raises:
        EnvelopeError: a daemon would not take it.
    """
    payload = cbor.encode(
        {ledger: {1: [_cose_key(kid, key) for kid, key in keys]} for ledger, keys in ledgers.items()}
    )
    found = parse_trust_list(payload)
    for ledger, keys in ledgers.items():
        if len(found[ledger]) != len(keys):
            raise EnvelopeError(f"two keys of {ledger} have one id")
    return payload


def _cose_key(kid: str, key: Key) -> dict[int, Any]:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {1: 1, 2: kid.encode(), -1: 6, -2: key.public_bytes_raw()}
    numbers, size = key.public_numbers(), cose.CURVES[key.curve.name]
    point = {-2: numbers.x.to_bytes(size, "big"), -3: numbers.y.to_bytes(size, "big")}
    return {1: 2, 2: kid.encode(), -1: _CURVES[key.curve.name], **point}


def attach(envelope: bytes, receipts: Sequence[bytes]) -> bytes:
    """Return the envelope with further receipts. What was signed stays as it is.

    Raises:
        EnvelopeError: the envelope is not valid, or one of these is no receipt.
    """
    message = open_envelope(envelope).message
    there = message.unprotected.get(headers.RECEIPTS, [])
    unprotected = {**message.unprotected, headers.RECEIPTS: [*there, *receipts]}
    protected, payload, signature = message.elements
    attached = b"\xd2\x84" + protected + cbor.encode(unprotected) + payload + signature
    open_envelope(attached)
    return attached
