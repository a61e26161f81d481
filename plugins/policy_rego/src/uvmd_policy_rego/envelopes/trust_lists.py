"""The payload of a transparency trust list (attestation.md 4.4): ledgers and their public keys."""

from __future__ import annotations

import base64
import logging
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from uvmd_policy_rego.envelopes import cbor
from uvmd_policy_rego.envelopes.errors import CborError, TrustListError
from uvmd_policy_rego.envelopes.headers import kid_text

log = logging.getLogger(__name__)

_KEYS: Final = 1
_KTY, _KID, _ALG, _KEY_OPS, _BASE_IV = 1, 2, 3, 4, 5
_CRV, _X, _Y, _D = -1, -2, -3, -4
_OKP, _EC2 = 1, 2
_CURVES: Final[dict[int, tuple[type[ec.EllipticCurve], int, int]]] = {
    1: (ec.SECP256R1, 32, -7),
    2: (ec.SECP384R1, 48, -35),
    3: (ec.SECP521R1, 66, -36),
}
_ED25519, _EDDSA = 6, -8
_TYPES: Final = ((_KTY, "kty", int), (_ALG, "alg", int), (_KID, "kid", bytes), (_BASE_IV, "base_iv", bytes))
_OPERATIONS: Final = frozenset(
    ("sign", "verify", "encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits")
)

Ledgers = dict[str, dict[str, str]]


def parse_trust_list(payload: bytes) -> Ledgers:
    """Return the keys by ledger and key id, as DER in base64.

    A key that cannot be used is passed over, as COSE demands of key sets; a ledger
    without a usable key spoils the list.

    Raises:
        TrustListError: it is no such list.
    """
    try:
        pairs = cbor.raw_map(payload)
    except CborError as error:
        raise TrustListError(f"Failed to parse the TTL payload: {error}") from None
    if pairs is None or not all(isinstance(ledger, str) for ledger, _ in pairs):
        raise TrustListError("Failed to parse the TTL payload: not a map with texts for keys")
    if not pairs:
        raise TrustListError("empty TTL payload")
    return {ledger: _keys_of_entry(ledger, entry) for ledger, entry in pairs}


def _keys_of_entry(ledger: str, entry: bytes) -> dict[str, str]:
    pairs = cbor.raw_map(entry)
    if pairs is None or not all(type(key) is int for key, _ in pairs):
        raise TrustListError(f'parsing LedgerEntry for issuer "{ledger}": not a map with integers for keys')
    key_set = dict(pairs).get(_KEYS)
    if key_set is None:
        raise TrustListError(f'LedgerEntry for issuer "{ledger}" is missing the keys attribute ({_KEYS})')
    try:
        return _parse_key_set(key_set)
    except TrustListError as error:
        raise TrustListError(f'parsing COSE_KeySet for issuer "{ledger}": {error}') from None


def _parse_key_set(encoded: bytes) -> dict[str, str]:
    elements = cbor.raw_array(encoded)
    if elements is None:
        raise TrustListError("Failed to parse the COSE_KeySet: not an array")
    if not elements:
        raise TrustListError("empty COSE Key Set")
    keys: dict[str, str] = {}
    problem = ""
    for number, element in enumerate(elements):
        try:
            kid, key = _parse_key(number, element)
        except (TrustListError, CborError) as error:
            problem = str(error)
            log.warning("a key of a trust list cannot be used, ignoring", extra={"element": number})
            continue
        if keys.setdefault(kid, key) != key:
            log.warning("a second key under one id in a trust list, ignoring", extra={"element": number})
    if not keys:
        raise TrustListError(problem)
    return keys


def _parse_key(number: int, element: bytes) -> tuple[str, str]:
    try:
        found = cbor.decode(element)
    except CborError as error:
        raise TrustListError(f"UnmarshalCBOR element {number}: {error}") from None
    if not isinstance(found, dict):
        raise TrustListError(f"UnmarshalCBOR element {number}: not a map")
    try:
        _require_common(found)
    except TrustListError as error:
        raise TrustListError(f"UnmarshalCBOR element {number}: {error}") from None
    kid = found.get(_KID)
    if not kid:
        raise TrustListError(f"missing key ID in element {number}")
    try:
        key = _public_key(found)
    except (TrustListError, ValueError, UnsupportedAlgorithm) as error:
        raise TrustListError(f"construct PublicKey from element {number}: {error}") from None
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return kid_text(kid), base64.b64encode(der).decode()


def _require_common(key: dict[Any, Any]) -> None:
    if _KTY not in key:
        raise TrustListError("kty: missing")
    for label, name, wanted in _TYPES:
        if label in key and type(key[label]) is not wanted:
            raise TrustListError(f"{name}: invalid type {cbor.go_type(key[label])}")
    operations = key.get(_KEY_OPS, [])
    if not isinstance(operations, list):
        raise TrustListError(f"key_ops: invalid type {cbor.go_type(operations)}")
    for one in operations:
        if type(one) is not int and not (isinstance(one, str) and one in _OPERATIONS):
            raise TrustListError("key_ops: unknown entry")
    if any(type(label) not in (int, str) for label in key):
        raise TrustListError("invalid label type")


def _public_key(key: dict[Any, Any]) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
    kind, curve, algorithm = key[_KTY], key.get(_CRV), key.get(_ALG, 0)
    x, y = key.get(_X), key.get(_Y)
    if type(curve) is not int or not isinstance(x, bytes) or not x:
        raise TrustListError("required parameters missing")
    if kind == _OKP and curve == _ED25519:
        if algorithm not in (0, _EDDSA):
            raise TrustListError(f"found algorithm {algorithm} (expected {_EDDSA})")
        return ed25519.Ed25519PublicKey.from_public_bytes(x)
    if kind != _EC2 or curve not in _CURVES:
        raise TrustListError(f"unsupported key type {kind} with curve {curve}")
    kind_of_curve, size, expected = _CURVES[curve]
    if not isinstance(y, bytes) or not y:
        raise TrustListError("required parameters missing, or a compressed point")
    if len(x) > size or len(y) > size:
        raise TrustListError("a coordinate is longer than the curve's")
    if algorithm not in (0, expected):
        raise TrustListError(f"found algorithm {algorithm} (expected {expected})")
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(x, "big"), int.from_bytes(y, "big"), kind_of_curve()
    )
    return numbers.public_key()
