"""Envelopes of the shapes that large signing services and ledgers make, by keys of the tests' own."""

from __future__ import annotations

import base64
import functools
import hashlib
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from ledgers import attach, cose_key, der_of, receipt, trust_list
from signers import CODE_SIGNING, LEAF_ENDS, OUR_USAGE, Maker, Signer, certificate, key_of, name_of, usages

from uvmd_policy_rego.envelopes import cbor, headers
from uvmd_policy_rego.envelopes.did_x509 import make
from uvmd_policy_rego.envelopes.signing import write

LEDGER, ELSEWHERE = "db.ledger.example.com", "cp.ledger.example.com"
IMAGE, SUBJECT, OLD_FEED = "uvm-image", "registry.example.com/lists", "old-images"
OLD_TEXT = b'{"made": "by a test"}\n'
SVN = 104
SIGNED_AT_S = 1_600_000_000
#: Which ledger has which keys: one of them two, as while a key is being replaced.
LEDGERS = {LEDGER: ("db old", "db"), ELSEWHERE: ("cp",)}


@functools.cache
def service(leaf: str, between: str, root: str) -> Signer:
    """A signer below two authorities, with keys of these kinds; its other name is a directory's."""
    key, middle, top = key_of("service", leaf), _authority("between", between), _authority("root", root)
    number = x509.DirectoryName(name_of("unit", ("2.5.4.5", "12+34")))
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (usages(OUR_USAGE, CODE_SIGNING), False),
        (x509.SubjectAlternativeName([number]), False),
    ]
    digest = hashes.SHA384()
    end = certificate("Service", key, middle, ca=False, extensions=extensions, ends=LEAF_ENDS, digest=digest)
    below = certificate(middle.name, middle.key, top, ca=True, digest=digest)
    return Signer(key, (end, below, certificate(top.name, top.key, ca=True, digest=digest)))


def _authority(place: str, kind: str) -> Maker:
    return Maker(name_of(f"{kind} {place}"), key_of(f"service {place}", kind))


def ledger_key(name: str) -> Any:
    return key_of(f"ledger {name}", "P-384")


def kid_of(name: str) -> str:
    """Ledgers name a key by a digest, in hexadecimal."""
    return hashlib.sha256(name.encode()).hexdigest()


@functools.cache
def old() -> bytes:
    """Of the old style: its own labels, and what nobody asks for in both maps."""
    one = service("P-384", "P-384", "P-384")
    claims = {"iss": make(one.chain), "feed": OLD_FEED, "signingtime": cbor.Tag(1, SIGNED_AT_S)}
    protected = _protected(one, -35) | {headers.CONTENT_TYPE: "application/json"} | claims
    return write(protected, {"timestamp": bytes(5213)}, OLD_TEXT, one.key, "ES384")


@functools.cache
def bare() -> bytes:
    """Signed is the digest of an image, RSA all the way up; no ledger knows of it."""
    return _hash_envelope(b"an image")


@functools.cache
def hashed() -> bytes:
    """The same with a ledger's receipt."""
    return attach(bare(), [_receipt(bare(), LEDGER, "db")])


@functools.cache
def grafted() -> bytes:
    """The same with a receipt, by a ledger that is known too, of another envelope."""
    return attach(bare(), [_receipt(_hash_envelope(b"another image"), ELSEWHERE, "cp")])


@functools.cache
def lists() -> bytes:
    """The ledgers' keys, signed with a P-256 key and the hash of P-384."""
    one = service("P-256", "P-384", "P-384")
    keys = {
        ledger: [cose_key(ledger_key(name), kid=kid_of(name)) for name in names]
        for ledger, names in LEDGERS.items()
    }
    protected = _protected(one, -35, SUBJECT, 0) | {
        headers.CONTENT_TYPE: "application/vnd.transparency-trust-list.v1+cose"
    }
    payload = trust_list(**{ledger.replace(".", "_"): listed for ledger, listed in keys.items()})
    return write(protected, {}, payload, one.key, "ES384")


def all_of_them() -> list[bytes]:
    return [old(), hashed(), grafted(), lists()]


def published() -> dict[str, Any]:
    """The ledgers' keys as JSON Web Keys."""
    return {ledger: {"keys": [_web_key(name) for name in names]} for ledger, names in LEDGERS.items()}


def known_keys() -> dict[str, dict[str, tuple[str, tuple[str, ...]]]]:
    """What an enforcer knows once it has taken the lists."""
    return {
        ledger: {kid_of(name): (der_of(ledger_key(name)), (SUBJECT,)) for name in names}
        for ledger, names in LEDGERS.items()
    }


def _web_key(name: str) -> dict[str, str]:
    numbers = ledger_key(name).public_key().public_numbers()
    x, y = (
        base64.urlsafe_b64encode(number.to_bytes(48, "big")).rstrip(b"=").decode()
        for number in (numbers.x, numbers.y)
    )
    return {"kty": "EC", "crv": "P-384", "kid": kid_of(name), "x": x, "y": y}


def _protected(one: Signer, algorithm: int, feed: str = "", svn: int | None = None) -> dict[Any, Any]:
    thumbprint = hashlib.sha256(one.chain[0].der).digest()
    found: dict[Any, Any] = {headers.ALG: algorithm, headers.X5CHAIN: [cert.der for cert in one.chain]}
    found[headers.X5T] = [-16, thumbprint]
    if feed:
        issuer = make(one.chain, f"eku:{OUR_USAGE}", 2)
        claims = {headers.ISSUER: issuer, headers.SUBJECT: feed, headers.ISSUED_AT: cbor.Tag(1, SIGNED_AT_S)}
        found[headers.CLAIMS] = claims | {headers.SVN: svn}
    return found


def _hash_envelope(image: bytes) -> bytes:
    one = service("RSA3072", "RSA2048", "RSA3072")
    hashing = {headers.HASH_ALG: -43, headers.PREIMAGE_TYPE: "application/octet-stream"}
    protected = _protected(one, -38, IMAGE, SVN) | hashing
    return write(protected, {}, hashlib.sha384(image).digest(), one.key, "PS384")


def _receipt(envelope: bytes, ledger: str, name: str) -> bytes:
    kid = kid_of(name).encode()
    return receipt(envelope, key=ledger_key(name), issuer=ledger, kid=kid, algorithm="ES384")
