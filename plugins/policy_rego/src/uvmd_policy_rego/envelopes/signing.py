"""Making signed artefacts: for tools and tests, never in a daemon."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from uvmd_policy_rego.envelopes import cbor, cose, headers
from uvmd_policy_rego.envelopes.certificates import Certificate
from uvmd_policy_rego.envelopes.did_x509 import resolve
from uvmd_policy_rego.envelopes.envelope import open_envelope
from uvmd_policy_rego.envelopes.errors import EnvelopeError

FRAGMENT: Final = "application/cose-x509+rego"
_BY_CURVE: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


def parse_private_key(pem: bytes, password: bytes | None = None) -> Any:
    """Parse a private key in PEM: EC, RSA or Ed25519.

    Raises:
        EnvelopeError: it cannot be read, or is of another kind.
    """
    try:
        key = load_pem_private_key(pem, password)
    except TypeError as error:
        raise EnvelopeError(f"the private key cannot be read: {error}") from None
    except (ValueError, UnsupportedAlgorithm):
        # The library's text may show parts of the input.
        raise EnvelopeError("the private key cannot be read: it is no key in PEM of a known kind") from None
    algorithm_for(key)
    return key


def algorithm_for(key: Any) -> str:
    """Return the usual algorithm of a private key.

    Raises:
        EnvelopeError: nothing can be signed with a key of this kind.
    """
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _BY_CURVE:
        return _BY_CURVE[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey):
        return "PS384"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "EdDSA"
    raise EnvelopeError("a private key of this kind signs no envelopes: EC, RSA or Ed25519 is needed")


def sign(
    payload: bytes,
    key: Any,
    chain: Sequence[Certificate],
    *,
    issuer: str,
    feed: str,
    svn: int | None = None,
    content_type: str = FRAGMENT,
    algorithm: str = "",
    old_style: bool = False,
    issued_at_s: int | None = None,
) -> bytes:
    """Sign a payload and return the envelope; it was opened again, and the issuer resolved.

    ``algorithm`` is a name of COSE, by default what suits the key. ``old_style`` writes
    issuer and feed as ``iss`` and ``feed``, where no SVN has a place.

    Raises:
        EnvelopeError: a daemon would not take what would come out.
    """
    name = algorithm or algorithm_for(key)
    if name not in cose.NUMBERS:
        raise EnvelopeError(f"unknown algorithm {name}; there are {', '.join(cose.NUMBERS)}")
    if old_style and svn is not None:
        raise EnvelopeError("an envelope of the old style has no place for an SVN: define svn in the text")
    if svn is not None and svn not in headers.INT64:
        raise EnvelopeError("the SVN does not fit into 64 bits")
    if not issuer or not feed:
        raise EnvelopeError("an issuer and a feed are needed")
    if not chain:
        raise EnvelopeError("no certificate chain")
    cose.require_key(cose.NUMBERS[name], key.public_key())
    if chain[0].public_key != key.public_key():
        raise EnvelopeError(f"the private key is not that of the first certificate, {chain[0].shown}")
    protected: dict[Any, Any] = {
        headers.ALG: cose.NUMBERS[name],
        headers.CONTENT_TYPE: content_type,
        headers.X5CHAIN: [one.der for one in chain],
    }
    if old_style:
        protected |= {"iss": issuer, "feed": feed}
    else:
        moment = int(time.time()) if issued_at_s is None else issued_at_s
        claims: dict[Any, Any] = {headers.ISSUER: issuer, headers.SUBJECT: feed}
        claims[headers.ISSUED_AT] = cbor.Tag(1, moment)
        if svn is not None:
            claims[headers.SVN] = svn
        protected[headers.CLAIMS] = claims
    envelope = write(protected, {}, payload, key, name)
    resolve(issuer, open_envelope(envelope).chain)
    return envelope


def write(
    protected: Mapping[Any, Any],
    unprotected: Mapping[Any, Any],
    payload: bytes | None,
    key: Any,
    algorithm: str,
    *,
    detached: bytes | None = None,
) -> bytes:
    """Write and sign a message with these headers, whether or not they make sense.

    ``detached`` is what is signed if the payload is not in the message.
    """
    content = cbor.encode(dict(protected))
    signed = cose.signed_bytes(content, payload if detached is None else detached)  # type: ignore[arg-type]
    parts = [content, dict(unprotected), payload, signature_of(key, algorithm, signed)]
    return cbor.encode(cbor.Tag(18, parts))


def signature_of(key: Any, algorithm: str, signed: bytes) -> bytes:
    """Sign bytes as COSE wants it."""
    digest = cose.ALGORITHMS[cose.NUMBERS[algorithm]].hash()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(digest)))
        size = cose.CURVES[key.curve.name]
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    return cast(ed25519.Ed25519PrivateKey, key).sign(signed)
