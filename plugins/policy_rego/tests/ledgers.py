"""A transparency ledger of the tests' own: a tree, a key, receipts."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from signers import key_of

from uvmd_policy_rego.envelopes import cbor, cose
from uvmd_policy_rego.envelopes.envelope import open_envelope
from uvmd_policy_rego.envelopes.signing import write

LEDGER = "ledger.example.com"
KID = "6b6964"
KID_BYTES = KID.encode()
SIBLINGS = ((True, bytes(32)), (False, b"\x01" * 32), (True, b"\x02" * 32))


def der_of(key: Any) -> str:
    data = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(data).decode()


def digest(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def proof(
    data_hash: bytes, path: Any = SIBLINGS, evidence: str = "ce:2.1:0", **changes: Any
) -> tuple[bytes, bytes]:
    """An inclusion proof and the root that it leads to, computed here in the test's own words."""
    transaction = b"\x07" * 32
    root = digest(transaction, digest(evidence.encode()), data_hash)
    for left, sibling in path:
        root = digest(sibling, root) if left else digest(root, sibling)
    found = {1: [transaction, evidence, data_hash], 2: [[left, sibling] for left, sibling in path]}
    return cbor.encode({**found, **changes.get("more", {})}), root


def receipt(
    envelope: bytes,
    *,
    key: Any = None,
    issuer: Any = LEDGER,
    kid: Any = KID_BYTES,
    protected: dict[Any, Any] | None = None,
    proofs: Any = None,
    root: bytes | None = None,
    payload: bytes | None = None,
    vdp: Any = None,
    algorithm: str = "ES256",
) -> bytes:
    """A receipt for an envelope; what is given replaces what belongs there."""
    good, computed = proof(open_envelope(envelope).message.statement_hash())
    header: dict[Any, Any] = {1: cose.NUMBERS[algorithm], 4: kid, 15: {1: issuer}, 395: 2} | (protected or {})
    header = {label: value for label, value in header.items() if value is not None}
    unprotected = {396: vdp if vdp is not None else {-1: [good] if proofs is None else proofs}}
    signed = computed if root is None else root
    return write(header, unprotected, payload, key or key_of("ledger"), algorithm, detached=signed)


def attach(envelope: bytes, receipts: Any) -> bytes:
    """The envelope with receipts, and nothing else, in its unprotected map."""
    elements = cose.parse_sign1(envelope).elements
    return b"\xd2\x84" + elements[0] + cbor.encode({394: receipts}) + elements[1] + elements[2]


def cose_key(key: Any, kid: str | None = KID, **changes: Any) -> dict[Any, Any]:
    """A COSE_Key; changes by name."""
    labels = {"kty": 1, "kid": 2, "alg": 3, "key_ops": 4, "base_iv": 5, "crv": -1, "x": -2, "y": -3}
    public = key.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        numbers, size = public.public_numbers(), cose.CURVES[public.curve.name]
        curve = {32: 1, 48: 2, 66: 3}[size]
        found: dict[Any, Any] = {1: 2, -1: curve}
        found |= {-2: numbers.x.to_bytes(size, "big"), -3: numbers.y.to_bytes(size, "big")}
    else:
        found = {1: 1, -1: 6, -2: public.public_bytes_raw()}
    if kid is not None:
        found[2] = kid.encode()
    for name, value in changes.items():
        found[labels[name]] = value
        if value is None:
            del found[labels[name]]
    return found


def trust_list(**ledgers: list[Any]) -> bytes:
    """The payload of a trust list; underscores in the names of ledgers are dots."""
    return cbor.encode({name.replace("_", "."): {1: keys} for name, keys in ledgers.items()})
