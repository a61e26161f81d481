"""Receipts of transparency ledgers (attestation.md 4): that a ledger has recorded an envelope.

A receipt is a COSE_Sign1 of its own. Its signature is over the root of the ledger's Merkle
tree; the root is computed from the inclusion proof, whose leaf names the envelope's hash.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from uvmd_policy_rego.envelopes import cbor, cose, headers
from uvmd_policy_rego.envelopes.cbor import go_type
from uvmd_policy_rego.envelopes.errors import CborError, EnvelopeError, ReceiptError

CCF_LEDGER_SHA256: Final = 2
_INCLUSION: Final = -1
_LEAF, _PATH = 1, 2
_HASH_SIZE: Final = 32
_MAX_EVIDENCE: Final = 1024
#: Of one envelope, which anybody may have made; a receipt has some 3 KiB.
_MOST: Final = 32
_MAX_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Receipt:
    """A well-formed receipt: the ledger that made it and the id of the key."""

    issuer: str
    kid: str
    message: cose.Sign1


def parse_receipts(unprotected: headers.Header) -> list[Receipt]:
    """Parse the receipts in an envelope's unprotected header.

    Raises:
        ReceiptError: one is not well-formed; the envelope is not to be taken.
    """
    if headers.RECEIPTS not in unprotected:
        return []
    found = unprotected[headers.RECEIPTS]
    if not isinstance(found, list):
        raise ReceiptError(f"receipts header is not an array (got {go_type(found)})")
    if len(found) > _MOST:
        raise ReceiptError(f"{len(found)} receipts, at most {_MOST} are read")
    return [_parse_receipt(number, one) for number, one in enumerate(found)]


def _parse_receipt(number: int, encoded: Any) -> Receipt:
    if not isinstance(encoded, bytes):
        raise ReceiptError(f"receipt {number} is not a byte string (got {go_type(encoded)})")
    if len(encoded) > _MAX_BYTES:
        raise ReceiptError(f"receipt {number} has {len(encoded)} bytes, at most {_MAX_BYTES} are read")
    try:
        message = cose.parse_sign1(encoded)
    except CborError as error:
        raise ReceiptError(f"receipt {number}: parsing COSE_Sign1: {error}") from None
    kid = message.protected.get(headers.KID)
    if kid is None:
        raise ReceiptError(f"receipt {number}: kid header missing")
    if headers.CLAIMS not in message.protected:
        raise ReceiptError(f"receipt {number}: CWT claims missing")
    claims = message.protected[headers.CLAIMS]
    if not isinstance(claims, dict):
        raise ReceiptError(f"receipt {number}: CWT claims is not a map (got {go_type(claims)})")
    if headers.ISSUER not in claims:
        raise ReceiptError(f"receipt {number}: issuer (iss) claim missing from CWT claims")
    issuer = claims[headers.ISSUER]
    if not isinstance(issuer, str):
        raise ReceiptError(f"receipt {number}: issuer is not a string (got {go_type(issuer)})")
    return Receipt(issuer, headers.kid_text(kid), message)


def validate(receipt: Receipt, keys: Mapping[str, str], statement_hash: bytes) -> None:
    """Insist that the ledger with these keys (key id to DER in base64) recorded the statement.

    Raises:
        ReceiptError: it is not proven; the text says why.
    """
    message = receipt.message
    kind = _integer(message.protected, headers.VDS, "vds", "vds (label 395)")
    if message.payload is not None:
        raise ReceiptError(f"payload must be detached but has {len(message.payload)} bytes")
    algorithm = _integer(message.protected, headers.ALG, "algorithm", "algorithm")
    if receipt.kid not in keys:
        raise ReceiptError(f"no key for kid {receipt.kid}")
    proofs = _proofs_of(message)
    key = load_key(keys[receipt.kid])
    try:
        cose.require_key(algorithm, key)
    except EnvelopeError as error:
        raise ReceiptError(f"cose.NewVerifier (algo {algorithm}): {error}") from None
    for number, proof in enumerate(proofs):
        try:
            root = _root_of(kind, proof, statement_hash)
            cose.verify(algorithm, key, message.signed_bytes(root), message.signature)
        except ReceiptError as error:
            raise ReceiptError(f"inclusion proof {number}{error}") from None
        except EnvelopeError as error:
            raise ReceiptError(f"inclusion proof {number}: signature verification failed ({error})") from None


def load_key(encoded: str) -> Any:
    """Return the public key in base64 of DER, or None: it then suits no algorithm."""
    try:
        return load_der_public_key(base64.b64decode(encoded, validate=True))
    except (ValueError, binascii.Error, UnsupportedAlgorithm):
        return None


def _integer(header: headers.Header, label: int, name: str, missing: str) -> int:
    if label not in header:
        raise ReceiptError(f"missing {missing} in protected header")
    value = header[label]
    if type(value) is not int or value >= 1 << 63 or value < -(1 << 63):
        raise ReceiptError(f"{name} has wrong type: {go_type(value)}")
    return value


def _proofs_of(message: cose.Sign1) -> list[Any]:
    if headers.VDP not in message.unprotected:
        raise ReceiptError("missing vdp (label 396) in unprotected header")
    proofs = message.unprotected[headers.VDP]
    if not isinstance(proofs, dict):
        raise ReceiptError(f"vdp has wrong type: {go_type(proofs)}")
    if _INCLUSION not in proofs:
        raise ReceiptError(f"no inclusion proofs (key {_INCLUSION}) in vdp")
    inclusion = proofs[_INCLUSION]
    if not isinstance(inclusion, list):
        raise ReceiptError(f"inclusion proofs has wrong type: {go_type(inclusion)}")
    if not inclusion:
        raise ReceiptError("inclusion proofs array is empty")
    return inclusion


def _root_of(kind: int, proof: Any, statement_hash: bytes) -> bytes:
    if not isinstance(proof, bytes):
        raise ReceiptError(f" is not a byte string (got {go_type(proof)})")
    if kind != CCF_LEDGER_SHA256:
        raise ReceiptError(f": only receipts with CCF profile supported (got vds {kind})")
    try:
        root, data_hash = compute_root(proof)
    except ReceiptError as error:
        raise ReceiptError(f": {error}") from None
    if data_hash != statement_hash:
        raise ReceiptError(
            f": leaf data-hash {data_hash.hex()} does not match the expected value {statement_hash.hex()} "
            "for the signed envelope"
        )
    return root


def compute_root(proof: bytes) -> tuple[bytes, bytes]:
    """Return the root of the tree that a CCF inclusion proof leads to, and the leaf's data hash.

    Raises:
        ReceiptError: it is no such proof.
    """
    try:
        found = cbor.decode(proof, lenient=True)
    except CborError as error:
        raise ReceiptError(f"decoding inclusion proof: {error}") from None
    if not isinstance(found, dict) or any(type(key) is not int for key in found):
        raise ReceiptError("decoding inclusion proof: not a map with integers for keys")
    for key, name in ((_LEAF, "leaf"), (_PATH, "path")):
        if key not in found:
            raise ReceiptError(f"missing {name} (key {key})")
    current, data_hash = _leaf_hash(found[_LEAF])
    path = found[_PATH]
    if not isinstance(path, list):
        raise ReceiptError("path must be an array")
    if not path:
        raise ReceiptError("path must contain at least one element")
    for number, element in enumerate(path):
        left, sibling = _path_element(number, element)
        pair = sibling + current if left else current + sibling
        current = hashlib.sha256(pair).digest()
    return current, data_hash


def _leaf_hash(leaf: Any) -> tuple[bytes, bytes]:
    if not isinstance(leaf, list) or len(leaf) != 3:
        length = len(leaf) if isinstance(leaf, list) else -1
        raise ReceiptError(f"leaf must be a 3-element array, got {go_type(leaf)} len {length}")
    transaction, evidence, data_hash = leaf
    if not _is_hash(transaction):
        got = go_type(transaction)
        raise ReceiptError(f"leaf.internal-transaction-hash must be a 32-byte bstr, got {got}")
    if not isinstance(evidence, str):
        raise ReceiptError(f"leaf.internal-evidence must be a text tstr, got {go_type(evidence)}")
    text = evidence.encode()
    if not 1 <= len(text) <= _MAX_EVIDENCE:
        raise ReceiptError(f"leaf.internal-evidence has invalid length {len(text)}")
    if not _is_hash(data_hash):
        raise ReceiptError(f"leaf.data-hash must be a 32-byte bstr, got {go_type(data_hash)}")
    return hashlib.sha256(transaction + hashlib.sha256(text).digest() + data_hash).digest(), data_hash


def _path_element(number: int, element: Any) -> tuple[bool, bytes]:
    if not isinstance(element, list) or len(element) != 2:
        raise ReceiptError(f"path element {number} must be a 2-element array")
    left, sibling = element
    if not isinstance(left, bool):
        raise ReceiptError(f"path element {number} left flag must be a bool")
    if not isinstance(sibling, bytes):
        raise ReceiptError(f"path element {number} hash must be a 32-byte bstr, got {go_type(sibling)}")
    if len(sibling) != _HASH_SIZE:
        raise ReceiptError(f"path element {number} hash must be 32 bytes, got {len(sibling)} bytes")
    return left, sibling


def _is_hash(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) == _HASH_SIZE
