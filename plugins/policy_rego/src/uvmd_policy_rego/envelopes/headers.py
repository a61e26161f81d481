"""The two header maps of a COSE message: labels, and the shapes that go with them (attestation.md 2.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from uvmd_policy_rego.envelopes.cbor import MAP, Reader, go_type, shown
from uvmd_policy_rego.envelopes.errors import CborError

ALG, CRIT, CONTENT_TYPE, KID, IV, PARTIAL_IV, CLAIMS, TYPE, X5CHAIN, X5T = 1, 2, 3, 4, 5, 6, 15, 16, 33, 34
HASH_ALG, PREIMAGE_TYPE, PAYLOAD_LOCATION = 258, 259, 260
RECEIPTS, VDS, VDP = 394, 395, 396
ISSUER, SUBJECT, ISSUED_AT, SVN = 1, 2, 6, "svn"
#: Labels as people call them.
NAMES: Final[dict[Any, str]] = {
    ALG: "alg", CRIT: "crit", CONTENT_TYPE: "content type", KID: "kid", IV: "IV",
    PARTIAL_IV: "partial IV", CLAIMS: "CWT claims", TYPE: "type", X5CHAIN: "x5chain", X5T: "x5t",
    HASH_ALG: "payload hash alg", PREIMAGE_TYPE: "preimage content type",
    PAYLOAD_LOCATION: "payload location", RECEIPTS: "receipts", VDS: "vds", VDP: "vdp",
}  # fmt: skip
_COUNTERSIGNATURES: Final = {7: "counter signature", 11: "countersignature version 2"}
_COUNTERSIGNATURES0: Final = {9: "countersignature0", 12: "countersignature0 version 2"}
INT64: Final = range(-(1 << 63), 1 << 63)

Header = dict[Any, Any]


def parse_protected(content: bytes) -> Header:
    """Parse the content of the protected byte string; empty is an empty map.

    Raises:
        CborError: it is no map of headers.
    """
    try:
        if not content:
            return {}
        reader = Reader(content)
        if reader.peek() >> 5 != MAP:
            raise CborError("cbor: protected header: require map type")
        header: Header = reader.value()
        reader.end()
        require_shape(header, protected=True)
    except CborError as error:
        raise CborError(f"cbor: invalid protected header: {error}") from None
    return header


def parse_unprotected(reader: Reader, depth: int) -> Header:
    """Read the unprotected map.

    Raises:
        CborError: it is no map of headers.
    """
    try:
        if reader.peek() >> 5 != MAP:
            raise CborError("cbor: unprotected header: require map type")
        header: Header = reader.value(depth)
        require_shape(header, protected=False)
    except CborError as error:
        raise CborError(f"cbor: invalid unprotected header: {error}") from None
    return header


def require_shape(header: Header, *, protected: bool) -> None:
    """Insist on the types that belong to the labels.

    Raises:
        CborError: naming the parameter.
    """
    for label, value in header.items():
        if not _is_label(label):
            raise CborError(f"header label {shown(label)}: require int / tstr type")
        if label == ALG and not (type(value) is int or isinstance(value, str)):
            raise CborError("header parameter: alg: require int / tstr type")
        if label == CRIT:
            _require_critical(header, value, protected)
        if label in (CONTENT_TYPE, TYPE):
            _require_media_type("type" if label == TYPE else "content type", value)
        if label in (KID, IV, PARTIAL_IV) and not isinstance(value, bytes):
            raise CborError(f"header parameter: {NAMES[label]}: require bstr type")
        if label in _COUNTERSIGNATURES or label in _COUNTERSIGNATURES0:
            _require_countersignature(label, value, protected)
    require_one_iv(header)


def require_one_iv(*headers: Header) -> None:
    """Insist that IV and partial IV do not come together.

    Raises:
        CborError: they do.
    """
    if all(any(label in header for header in headers) for label in (IV, PARTIAL_IV)):
        raise CborError("header parameter: IV and PartialIV: parameters must not both be present")


def text_of(header: Mapping[Any, Any], label: Any) -> str:
    """Return a text, or "" where there is none or something else."""
    value = header.get(label)
    return value if isinstance(value, str) else ""


def kid_text(kid: bytes) -> str:
    """Return a key id as the text under which keys are kept: ledgers write ASCII hex.

    Every byte is a character, so that ids that are no text stay apart and can be saved.
    """
    return kid.decode("latin-1")


def _is_label(label: Any) -> bool:
    return isinstance(label, str) or (type(label) is int and label in INT64)


def _require_critical(header: Header, value: Any, protected: bool) -> None:
    if not protected:
        raise CborError("header parameter: crit: not allowed")
    if not isinstance(value, list) or not value:
        raise CborError("header parameter: crit: require a non-empty array")
    for label in value:
        if not _is_label(label):
            raise CborError(f"header parameter: crit: a label of type {go_type(label)}")
        if label not in header:
            raise CborError(f"header parameter: crit: missing critical header {shown(label)}")


def _require_media_type(name: str, value: Any) -> None:
    if type(value) is int and value >= 0:
        return
    if not isinstance(value, str):
        raise CborError(f"header parameter: {name}: require tstr / uint type")
    if not value:
        raise CborError(f"header parameter: {name}: require non-empty string")
    if value[0] == " " or value[-1] == " ":
        raise CborError(f"header parameter: {name}: require no leading/trailing whitespace")
    if value.count("/") != 1:
        raise CborError(f"header parameter: {name}: require text of form type/subtype")


def _require_countersignature(label: int, value: Any, protected: bool) -> None:
    name = _COUNTERSIGNATURES.get(label) or _COUNTERSIGNATURES0[label]
    if protected:
        raise CborError(f"header parameter: {name}: not allowed")
    if label in _COUNTERSIGNATURES0:
        if not isinstance(value, bytes):
            raise CborError(f"header parameter: {name}: require bstr type")
        return
    several = isinstance(value, list) and bool(value) and isinstance(value[0], list)
    for one in value if several else [value]:
        if not isinstance(one, list) or len(one) != 3:
            raise CborError(f"header parameter: {name}: not one and not a list of them")
        inner, unprotected, signature = one
        if not isinstance(inner, bytes) or not isinstance(unprotected, dict):
            raise CborError(f"header parameter: {name}: not one and not a list of them")
        if not isinstance(signature, bytes) or not signature:
            raise CborError(f"header parameter: {name}: empty signature")
        parse_protected(inner)
        require_shape(unprotected, protected=False)
