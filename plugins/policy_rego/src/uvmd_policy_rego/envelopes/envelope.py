"""A signed artefact, checked in the order of attestation.md 2.2: chain, signature, issuer, receipts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from uvmd_policy_rego.envelopes import cose, headers
from uvmd_policy_rego.envelopes.cbor import go_type
from uvmd_policy_rego.envelopes.certificates import Certificate
from uvmd_policy_rego.envelopes.chain import Path, find_paths
from uvmd_policy_rego.envelopes.errors import ChainError, EnvelopeError
from uvmd_policy_rego.envelopes.receipts import Receipt, parse_receipts

MAX_CERTIFICATES: Final = 100


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a valid envelope says, and the paths of its chain. The did is not resolved yet."""

    message: cose.Sign1
    algorithm: int
    chain: tuple[Certificate, ...]
    paths: tuple[Path, ...]
    issuer: str
    feed: str
    content_type: str
    payload: bytes
    receipts: tuple[Receipt, ...]

    def svn(self) -> int | None:
        """Return the SVN of the claims; None where there is none.

        Raises:
            EnvelopeError: it is no integer of 64 bits.
        """
        claims = self.message.protected.get(headers.CLAIMS, {})
        if headers.SVN not in claims:
            return None
        svn = claims[headers.SVN]
        if type(svn) is not int or svn not in headers.INT64:
            got = "big.Int" if type(svn) is int else go_type(svn)
            raise EnvelopeError(
                "SVN present in CWT claims, but failed to convert it to int64: "
                f"expected integer type, got {got}"
            )
        return svn


def open_envelope(data: bytes) -> Envelope:
    """Parse an envelope and insist that its own chain's leaf signed it.

    Raises:
        EnvelopeError: naming the first thing that is wrong.
    """
    message = cose.parse_sign1(data)
    algorithm = message.algorithm()
    chain = chain_of(message)
    try:
        paths = tuple(find_paths(chain)) if len(chain) > 1 else ()
    except ChainError as error:
        raise ChainError(f"certificate chain verification failed - {error}") from None
    cose.require_key(algorithm, chain[0].public_key)
    if message.payload is None:
        raise EnvelopeError("missing payload")
    signed = message.signed_bytes(message.payload)
    cose.verify(algorithm, chain[0].public_key, signed, message.signature)
    issuer, feed = issuer_and_feed(message.protected)
    content_type = headers.text_of(message.protected, headers.CONTENT_TYPE)
    try:
        receipts = tuple(parse_receipts(message.unprotected))
    except EnvelopeError as error:
        raise EnvelopeError(f"parsing receipts: {error}") from None
    return Envelope(message, algorithm, chain, paths, issuer, feed, content_type, message.payload, receipts)


def chain_of(message: cose.Sign1) -> tuple[Certificate, ...]:
    """Return the certificates in the protected header; nobody vouches for them yet.

    Raises:
        EnvelopeError: there are none, or they cannot be read.
    """
    if headers.X5CHAIN not in message.protected:
        raise EnvelopeError("x5Chain missing")
    found: Any = message.protected[headers.X5CHAIN]
    encoded = [found] if isinstance(found, bytes) else found
    if not isinstance(encoded, list) or not encoded or not all(isinstance(one, bytes) for one in encoded):
        raise EnvelopeError("x5Chain wrong type")
    # Counted before they are parsed: certificates are the dearest thing here to read.
    if len(encoded) > MAX_CERTIFICATES:
        raise EnvelopeError(f"unreasonable number of certs ({len(encoded)}) in COSE_Sign1 document")
    return tuple(map(Certificate, encoded))


def issuer_and_feed(protected: Mapping[Any, Any]) -> tuple[str, str]:
    """Return who signed and what for, from the claims or, without any, from the old labels.

    Raises:
        EnvelopeError: the claims are no map.
    """
    if headers.CLAIMS not in protected:
        return headers.text_of(protected, "iss"), headers.text_of(protected, "feed")
    claims = protected[headers.CLAIMS]
    if not isinstance(claims, dict):
        raise EnvelopeError(
            "expected CWTClaims header to be a map[any]any, got map[interface {}]interface {}"
        )
    return headers.text_of(claims, headers.ISSUER), headers.text_of(claims, headers.SUBJECT)
