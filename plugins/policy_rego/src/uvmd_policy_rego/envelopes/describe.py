"""An envelope described for people, part by part, however broken it is.

Nothing here decides: what a daemon takes is said by ``load``. What can be read is shown,
and what is wrong stands under ``problems``, most important first.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtensionOID

from uvmd_policy_rego.envelopes import cbor, cose, headers
from uvmd_policy_rego.envelopes.certificates import Certificate
from uvmd_policy_rego.envelopes.did_x509 import fingerprint_of, resolve, usages_of
from uvmd_policy_rego.envelopes.envelope import MAX_CERTIFICATES, issuer_and_feed, open_envelope
from uvmd_policy_rego.envelopes.errors import CborError, ChainError, EnvelopeError
from uvmd_policy_rego.envelopes.receipts import parse_receipts
from uvmd_policy_rego.envelopes.trust_lists import parse_trust_list

_HASHES: Final = {-16: "SHA-256", -43: "SHA-384", -44: "SHA-512"}
_SIGN1: Final = 18
_SHOWN_BYTES: Final = 24
_MISSING: Final = object()


def describe(data: bytes) -> dict[str, Any]:
    """Describe an envelope; ``valid`` says whether it opens and its issuer holds for its chain."""
    found: dict[str, Any] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    problems = list(_problems(data))
    found |= {"valid": not problems, "problems": problems}
    parts = _Parts(data)
    if not parts.is_message:
        return found
    protected = parts.protected
    found |= _headers(protected)
    found["chain"] = [_certificate(one) for one in _chain(protected)]
    found["payload"] = _payload(parts.payload, protected)
    found["signature_bytes"] = len(parts.signature) if isinstance(parts.signature, bytes) else None
    found["receipts"] = list(_receipts(parts.unprotected))
    found["protected"] = {_label(label): _shown(value) for label, value in protected.items()}
    found["unprotected"] = {_label(label): _shown(value) for label, value in parts.unprotected.items()}
    return found


def _problems(data: bytes) -> Iterator[str]:
    try:
        envelope = open_envelope(data)
    except EnvelopeError as error:
        yield str(error)
        return
    if not envelope.issuer or not envelope.feed:
        yield "either issuer and feed must both be provided in the COSE_Sign1 protected header"
    else:
        try:
            resolve(envelope.issuer, envelope.chain, envelope.paths)
        except EnvelopeError as error:
            yield f"failed to resolve DID: {error}"
    try:
        envelope.svn()
    except EnvelopeError as error:
        yield str(error)


class _Parts:
    """The four parts as far as they can be read: with or without tag, until something breaks."""

    protected: Mapping[Any, Any] = {}
    unprotected: Mapping[Any, Any] = {}
    payload: Any = _MISSING
    signature: Any = _MISSING
    is_message = False

    def __init__(self, data: bytes) -> None:
        reader = cbor.Reader(data, lenient=True)
        with contextlib.suppress(CborError):
            major, argument = reader.head()
            if (major, argument) == (cbor.TAG, _SIGN1):
                major, argument = reader.head()
            self.is_message = major == cbor.ARRAY and argument in (4, None)
            if self.is_message:
                self._read(reader)

    def _read(self, reader: cbor.Reader) -> None:
        start = reader.position
        major, length = reader.head()
        if major == cbor.BYTES and length is not None:
            # Also of a byte string that is cut off.
            content = reader.data[reader.position : reader.position + length]
            self.protected = _entries(cbor.Reader(content, lenient=True))
        reader.position = start
        reader.value()
        start = reader.position
        self.unprotected = _entries(reader)
        reader.position = start
        reader.value()
        self.payload = reader.value()
        self.signature = reader.value()


def _entries(reader: cbor.Reader) -> dict[Any, Any]:
    """Read a map's entries until one cannot be read."""
    found: dict[Any, Any] = {}
    with contextlib.suppress(CborError):
        major, count = reader.head()
        if major == cbor.MAP:
            for _ in reader.entries(count):
                key = reader.key()
                found[key] = reader.value()
    return found


def _headers(protected: Mapping[Any, Any]) -> dict[str, Any]:
    number = protected.get(headers.ALG)
    name = cose.ALGORITHMS[number].name if type(number) is int and number in cose.ALGORITHMS else None
    claims = protected.get(headers.CLAIMS)
    issuer, feed = "", ""
    with contextlib.suppress(EnvelopeError):
        issuer, feed = issuer_and_feed(protected)
    svn = claims.get(headers.SVN) if isinstance(claims, dict) else None
    found: dict[str, Any] = {
        "style": "old" if claims is None else "claims",
        "algorithm": name or _shown(number),
        "issuer": issuer,
        "feed": feed,
        "svn": _shown(svn),
        "content_type": _shown(protected.get(headers.CONTENT_TYPE)),
    }
    if headers.HASH_ALG in protected:
        hashed = protected[headers.HASH_ALG]
        shown = {
            "hash": _HASHES.get(hashed, _shown(hashed)) if type(hashed) is int else _shown(hashed),
            "preimage_type": _shown(protected.get(headers.PREIMAGE_TYPE)),
            "location": _shown(protected.get(headers.PAYLOAD_LOCATION)),
        }
        found["hash_envelope"] = {name: value for name, value in shown.items() if value is not None}
    return found


def _chain(protected: Mapping[Any, Any]) -> Iterator[Certificate | str]:
    found = protected.get(headers.X5CHAIN)
    for encoded in (found if isinstance(found, list) else [found])[:MAX_CERTIFICATES]:
        if not isinstance(encoded, bytes):
            yield f"no certificate but {cbor.go_type(encoded)}"
            continue
        try:
            yield Certificate(encoded)
        except ChainError as error:
            yield str(error)


def _certificate(one: Certificate | str) -> dict[str, Any]:
    if isinstance(one, str):
        return {"problem": one}
    constraints = one.extension(ExtensionOID.BASIC_CONSTRAINTS)
    return {
        "subject": one.parsed.subject.rfc4514_string(),
        "issuer": one.issuer_text,
        "from": one.not_before.isoformat(),
        "until": one.not_after.isoformat(),
        "ca": bool(constraints is not None and constraints.ca),
        "key": _key(one.public_key),
        "usages": usages_of(one),
        "names": [_name(name.value) for name in one.alternative_names],
        "fingerprint_sha256": fingerprint_of(one),
    }


def _name(value: Any) -> str:
    return value.rfc4514_string() if isinstance(value, x509.Name) else str(value)


def _key(key: Any) -> str:
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    return "Ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else "of an unsupported kind"


def _payload(payload: Any, protected: Mapping[Any, Any]) -> dict[str, Any]:
    if not isinstance(payload, bytes):
        other = "detached" if payload is None else f"of another type, {cbor.go_type(payload)}"
        return {"bytes": None, "note": "cut off" if payload is _MISSING else other}
    found: dict[str, Any] = {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    if headers.HASH_ALG in protected:
        return found | {"digest": payload.hex()}
    try:
        return found | {"text": payload.decode()}
    except UnicodeDecodeError:
        pass
    with contextlib.suppress(EnvelopeError):
        found["ledgers"] = {name: sorted(keys) for name, keys in parse_trust_list(payload).items()}
    return found


def _receipts(unprotected: Mapping[Any, Any]) -> Iterator[dict[str, Any]]:
    found = unprotected.get(headers.RECEIPTS, [])
    for one in found if isinstance(found, list) else [found]:
        try:
            (receipt,) = parse_receipts({headers.RECEIPTS: [one]})
        except EnvelopeError as error:
            yield {"problem": str(error)}
            continue
        yield {"ledger": receipt.issuer, "kid": receipt.kid}


def _label(label: Any) -> str:
    name = headers.NAMES.get(label) if type(label) is int else None
    return cbor.shown(label) if name is None else f"{name} ({label})"


def _shown(value: Any) -> Any:
    """Render a value as JSON can hold it, long byte strings cut."""
    if isinstance(value, bytes):
        cut = value[:_SHOWN_BYTES].hex()
        return f"h'{cut}'" if len(value) <= _SHOWN_BYTES else f"h'{cut}…' ({len(value)} bytes)"
    if isinstance(value, cbor.Tag):
        return {"tag": value.number, "value": _shown(value.value)}
    if isinstance(value, list):
        return [_shown(one) for one in value]
    if isinstance(value, dict):
        return {cbor.shown(label): _shown(one) for label, one in value.items()}
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
