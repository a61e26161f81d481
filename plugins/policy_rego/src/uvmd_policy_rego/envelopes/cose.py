"""COSE_Sign1 (RFC 9052): reading a message, and whether a key made its signature.

The one room that knows how signatures are verified. A message is read by ``cbor``, so
strictly and with the bytes of its parts kept; the arithmetic is ``cryptography``'s. Why
no COSE library is in between: docs/decisions, "Envelopes are read here".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from uvmd_policy_rego.envelopes import cbor, headers
from uvmd_policy_rego.envelopes.errors import CborError, EnvelopeError

_PREFIX: Final = b"\xd2\x84"
MIN_RSA_BITS: Final = 2048
CURVES: Final = {"secp256r1": 32, "secp384r1": 48, "secp521r1": 66}


class Algorithm(NamedTuple):
    """A signature algorithm of COSE: its name, the kind of key, the hash."""

    name: str
    kind: str
    hash: type[hashes.HashAlgorithm]


ALGORITHMS: Final = {
    -7: Algorithm("ES256", "EC", hashes.SHA256),
    -35: Algorithm("ES384", "EC", hashes.SHA384),
    -36: Algorithm("ES512", "EC", hashes.SHA512),
    -37: Algorithm("PS256", "RSA", hashes.SHA256),
    -38: Algorithm("PS384", "RSA", hashes.SHA384),
    -39: Algorithm("PS512", "RSA", hashes.SHA512),
    -8: Algorithm("EdDSA", "OKP", hashes.SHA512),
}
NUMBERS: Final = {algorithm.name: number for number, algorithm in ALGORITHMS.items()}
_UNSUPPORTED: Final = {
    0: ("Reserved", "can't be implemented"),
    -257: ("RS256", "no built-in implementation available"),
    -258: ("RS384", "no built-in implementation available"),
    -259: ("RS512", "no built-in implementation available"),
}


@dataclass(frozen=True, slots=True)
class Sign1:
    """A message as it was received.

    ``elements`` are the bytes of protected header, payload and signature, heads included.
    """

    protected: headers.Header
    unprotected: headers.Header
    content: bytes
    payload: bytes | None
    signature: bytes
    elements: tuple[bytes, bytes, bytes]

    def algorithm(self) -> int:
        """Return the algorithm of the protected header.

        Raises:
            EnvelopeError: there is none, or it is not an integer.
        """
        if headers.ALG not in self.protected:
            raise EnvelopeError("algorithm missing")
        number = self.protected[headers.ALG]
        if type(number) is not int:
            raise EnvelopeError("algorithm wrong type")
        return number

    def signed_bytes(self, payload: bytes) -> bytes:
        """Return what was signed; ``payload`` may be one that is not in the message."""
        return signed_bytes(self.content, payload)

    def statement_hash(self) -> bytes:
        """Return the SHA-256 of the message without its unprotected headers, as ledgers record it."""
        protected, payload, signature = self.elements
        return hashlib.sha256(_PREFIX + protected + b"\xa0" + payload + signature).digest()


def parse_sign1(data: bytes) -> Sign1:
    """Parse a tagged message.

    Raises:
        CborError: it is none.
    """
    if not data.startswith(_PREFIX):
        raise CborError("cbor: invalid COSE_Sign1_Tagged object")
    reader = cbor.Reader(data, tags=False)
    reader.position = len(_PREFIX)
    content, protected = _byte_string(reader, "protected header")
    unprotected = headers.parse_unprotected(reader, 1)
    payload, payload_element = _byte_string(reader, "payload", nil=True)
    signature, signature_element = _byte_string(reader, "signature", nil=True)
    reader.end()
    if not signature:
        raise CborError("empty signature")
    assert content is not None
    header = headers.parse_protected(content)
    headers.require_one_iv(header, unprotected)
    elements = (protected, payload_element, signature_element)
    return Sign1(header, unprotected, content, payload, signature, elements)


def _byte_string(reader: cbor.Reader, what: str, *, nil: bool = False) -> tuple[bytes | None, bytes]:
    start = reader.position
    initial = reader.peek()
    if initial >> 5 != cbor.BYTES and not (nil and initial == 0xF6):
        raise CborError(f"cbor: {what}: require bstr type")
    value: bytes | None = reader.value(1)
    return value, reader.data[start : reader.position]


def signed_bytes(content: bytes, payload: bytes) -> bytes:
    """Return the signed structure of a message with this protected content and payload."""
    return cbor.encode(["Signature1", content, b"", payload])


def require_key(number: int, key: Any) -> Algorithm:
    """Return the algorithm, if the key suits it.

    Raises:
        EnvelopeError: it does not, or the algorithm is not supported.
    """
    algorithm = ALGORITHMS.get(number)
    if algorithm is None:
        name, why = _UNSUPPORTED.get(number, (f"Algorithm({number})", "unknown algorithm"))
        raise EnvelopeError(f"can't create new Verifier for {name}: {why}: algorithm not supported")
    if algorithm.kind == "RSA" and isinstance(key, rsa.RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise EnvelopeError(f"RSA key must be at least {MIN_RSA_BITS} bits long")
        return algorithm
    if algorithm.kind == "EC" and isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES:
        return algorithm
    if algorithm.kind == "OKP" and isinstance(key, ed25519.Ed25519PublicKey):
        return algorithm
    raise EnvelopeError(f"{algorithm.name}: invalid public key")


def verify(number: int, key: Any, signed: bytes, signature: bytes) -> None:
    """Insist that ``key`` signed these bytes.

    Raises:
        EnvelopeError: the key does not suit the algorithm, or the signature is another's.
    """
    algorithm = require_key(number, key)
    digest = algorithm.hash()
    try:
        if algorithm.kind == "RSA":
            salt_length = digest.digest_size
            cast(rsa.RSAPublicKey, key).verify(
                signature, signed, padding.PSS(padding.MGF1(digest), salt_length), digest
            )
        elif algorithm.kind == "EC":
            _verify_ec(cast(ec.EllipticCurvePublicKey, key), signed, signature, digest)
        else:
            cast(ed25519.Ed25519PublicKey, key).verify(signature, signed)
    except (InvalidSignature, ValueError):
        raise EnvelopeError("verification error") from None


def _verify_ec(
    key: ec.EllipticCurvePublicKey, signed: bytes, signature: bytes, digest: hashes.HashAlgorithm
) -> None:
    # The hash is the algorithm's, not the curve's: signing services make ES384 with P-256.
    size = CURVES[key.curve.name]
    if len(signature) != 2 * size:
        raise InvalidSignature
    r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
    key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(digest))
