"""Our COSE_Sign1 against another: pycose reads, and the ecdsa package computes without OpenSSL."""

from __future__ import annotations

from hashlib import sha256, sha384, sha512
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from ecdsa import NIST256p, NIST384p, NIST521p, VerifyingKey
from ecdsa.keys import BadSignatureError
from hypothesis import given, settings
from hypothesis import strategies as st
from pycose.algorithms import EdDSA, Es256, Es384, Es512, Ps256, Ps384, Ps512
from pycose.headers import Algorithm, ContentType, X5chain
from pycose.keys import EC2Key, OKPKey, RSAKey
from pycose.keys.curves import P256, P384, P521, Ed25519
from pycose.messages import Sign1Message
from signers import CODE, FEED, key_of, signer

from uvmd_policy_rego.envelopes import cbor, cose
from uvmd_policy_rego.envelopes.envelope import open_envelope
from uvmd_policy_rego.envelopes.errors import EnvelopeError
from uvmd_policy_rego.envelopes.signing import signature_of

NAMES = {"ES256": Es256, "ES384": Es384, "ES512": Es512, "PS256": Ps256, "PS384": Ps384, "PS512": Ps512}
NAMES["EdDSA"] = EdDSA
#: What pycose verifies: with EC keys only the hash that goes with the curve.
PAIRS = [
    ("P-256", "ES256"),
    ("P-384", "ES384"),
    ("P-521", "ES512"),
    ("RSA2048", "PS256"),
    ("RSA2048", "PS384"),
    ("RSA2048", "PS512"),
    ("Ed25519", "EdDSA"),
]
HASHES = {"ES256": sha256, "ES384": sha384, "ES512": sha512}
CURVES = {"P-256": NIST256p, "P-384": NIST384p, "P-521": NIST521p}


def their_key(key: Any, *, private: bool = False) -> Any:
    public = key.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        size = cose.CURVES[public.curve.name]
        numbers = public.public_numbers()
        parts = {"x": numbers.x.to_bytes(size, "big"), "y": numbers.y.to_bytes(size, "big")}
        if private:
            parts["d"] = key.private_numbers().private_value.to_bytes(size, "big")
        return EC2Key(crv={32: P256, 48: P384, 66: P521}[size], **parts)
    if isinstance(public, rsa.RSAPublicKey):
        return their_rsa_key(key) if private else RSAKey(**octets(public.public_numbers(), "n e"))
    parts = {"x": public.public_bytes_raw()}
    if private:
        parts["d"] = key.private_bytes_raw()
    return OKPKey(crv=Ed25519, **parts)


def octets(numbers: Any, names: str, **other: str) -> dict[str, bytes]:
    found = {name: getattr(numbers, other.get(name, name)) for name in names.split()}
    return {name: number.to_bytes((number.bit_length() + 7) // 8, "big") for name, number in found.items()}


def their_rsa_key(key: Any) -> RSAKey:
    numbers = key.private_numbers()
    private = octets(numbers, "d p q dp dq qinv", dp="dmp1", dq="dmq1", qinv="iqmp")
    return RSAKey(**octets(numbers.public_numbers, "n e"), **private)


def they_verify(envelope: bytes, key: Any) -> bool:
    message = Sign1Message.decode(envelope)
    message.key = their_key(key)
    try:
        return bool(message.verify_signature())
    except (ValueError, AssertionError):
        return False


def we_verify(envelope: bytes) -> bool:
    try:
        open_envelope(envelope)
    except EnvelopeError:
        return False
    return True


@pytest.mark.parametrize(("kind", "algorithm"), PAIRS)
def test_what_we_sign_they_read_and_verify(kind: str, algorithm: str) -> None:
    one = signer(kind)
    envelope = one.sign(algorithm=algorithm, svn=3)
    theirs, ours = Sign1Message.decode(envelope), open_envelope(envelope)
    assert theirs.phdr[Algorithm] is NAMES[algorithm]
    assert theirs.phdr[ContentType] == ours.content_type
    assert theirs.phdr[X5chain] == [cert.der for cert in ours.chain]
    assert (theirs.payload, theirs.signature) == (ours.payload, ours.message.signature)
    assert they_verify(envelope, one.key)
    assert not they_verify(envelope, key_of("another", kind))


@pytest.mark.parametrize(("kind", "algorithm"), PAIRS)
def test_what_they_sign_we_read_and_verify(kind: str, algorithm: str) -> None:
    one = signer(kind)
    headers = {Algorithm: NAMES[algorithm], ContentType: "application/cose-x509+rego"}
    headers |= {X5chain: [cert.der for cert in one.chain], 15: {1: one.did, 2: FEED, "svn": 4}}
    message = Sign1Message(phdr=headers, uhdr={}, payload=CODE.encode(), key=their_key(one.key, private=True))
    found = open_envelope(message.encode())
    assert (found.issuer, found.feed, found.svn(), found.payload) == (one.did, FEED, 4, CODE.encode())
    message.key = their_key(key_of("another", kind), private=True)
    assert not we_verify(message.encode())


@pytest.mark.parametrize("kind", sorted(CURVES))
@pytest.mark.parametrize("algorithm", sorted(HASHES))
def test_any_curve_with_any_hash_is_what_arithmetic_says(kind: str, algorithm: str) -> None:
    one = signer(kind)
    message = open_envelope(one.sign(algorithm=algorithm)).message
    numbers, size = one.key.public_key().public_numbers(), cose.CURVES[one.key.curve.name]
    point = numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")
    key = VerifyingKey.from_string(point, curve=CURVES[kind])
    signed = cbor.encode(["Signature1", message.content, b"", message.payload])
    arguments = {"hashfunc": HASHES[algorithm], "allow_truncate": True}
    assert key.verify(message.signature, signed, **arguments)
    with pytest.raises(BadSignatureError):
        key.verify(message.signature, signed + b"\x00", **arguments)


@pytest.mark.parametrize(
    ("kind", "algorithm"), [("P-256", "ES256"), ("RSA2048", "PS384"), ("Ed25519", "EdDSA")]
)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_changed_messages_get_the_same_verdict(kind: str, algorithm: str, data: st.DataObject) -> None:
    """They may read more than we do; what both read is judged alike, and we take nothing that they refuse."""
    one = signer(kind)
    envelope = bytearray(one.sign(algorithm=algorithm))
    for _ in range(data.draw(st.integers(0, 2))):
        envelope[data.draw(st.integers(0, len(envelope) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    changed = bytes(envelope)
    ours = we_verify(changed)
    try:
        theirs = they_verify(changed, one.key)
    except Exception:
        theirs = False
    assert ours <= theirs
    if changed == one.sign(algorithm=algorithm) or not ours:
        return
    # Taken by both although changed: then nothing that was signed is.
    assert open_envelope(changed).payload == CODE.encode()


def test_they_read_what_we_refuse() -> None:
    """Why the reader is ours: each of these means different things to different readers."""
    one = signer()
    content = open_envelope(one.sign()).message.content
    twice = bytes((content[0] + 1,)) + b"\x01\x38\x22" + content[1:]  # alg given twice
    signed = cbor.encode(["Signature1", twice, b"", b"x"])
    parts = [twice, {}, b"x", signature_of(one.key, "ES256", signed)]
    envelope = cbor.encode(cbor.Tag(18, parts))
    assert they_verify(envelope, one.key)
    with pytest.raises(EnvelopeError, match="duplicate map key 1"):
        open_envelope(envelope)
    indefinite = b"\xd2\x9f" + one.sign()[2:] + b"\xff"
    assert they_verify(indefinite, one.key)
    assert not we_verify(indefinite)
