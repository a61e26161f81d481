"""did:x509 as the reference reads it (attestation.md 3): a certificate pinned, a leaf described.

``did:x509:0:<hash>:<fingerprint>::<policy>[::<policy>…]`` holds for a chain when a
certificate above the leaf has the fingerprint and every policy is true of the leaf. It
differs from today's public specification in ways that issuers in policies rely on; the
tests run the public vectors and list where.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtensionOID

from uvmd_policy_rego.envelopes.certificates import Certificate, parse_pem_chain
from uvmd_policy_rego.envelopes.chain import Path, find_paths
from uvmd_policy_rego.envelopes.errors import ChainError, DidError

#: Of a text that is compared, part by part, with all that a certificate names.
_MAX_CHARACTERS: Final = 4096
_HASHES: Final = {"sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}
_SUBJECT: Final = {
    "C": "2.5.4.6", "O": "2.5.4.10", "OU": "2.5.4.11", "L": "2.5.4.7", "S": "2.5.4.8",
    "STREET": "2.5.4.9", "POSTALCODE": "2.5.4.17",
}  # fmt: skip
#: Of these the certificate's last value counts.
_SUBJECT_LAST: Final = {"CN": "2.5.4.3", "SERIALNUMBER": "2.5.4.5"}
_FULCIO_ISSUER: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
#: An ``eku`` policy wants a leaf with a usage outside of these (attestation.md 3.3).
WELL_KNOWN_USAGES: Final = frozenset(
    ("2.5.29.37.0", *(f"1.3.6.1.5.5.7.3.{n}" for n in range(1, 10)), "1.3.6.1.4.1.311.10.3.3")
    + ("2.16.840.1.113730.4.1", "1.3.6.1.4.1.311.2.1.22", "1.3.6.1.4.1.311.61.1.1")
)
_CURVES: Final = {"secp256r1": ("P-256", 32), "secp384r1": ("P-384", 48), "secp521r1": ("P-521", 66)}
_ARC: Final = re.compile(r"[+-]?[0-9]{1,18}")
_URI: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Did:
    """A did that was parsed: what it pins, and the policies with their arguments."""

    text: str
    hash: str
    fingerprint: str
    policies: tuple[tuple[str, ...], ...]


def parse_did(text: str) -> Did:
    """Parse a did.

    Raises:
        DidError: it is none of these.
    """
    if len(text) > _MAX_CHARACTERS:
        raise DidError(f"a DID of {len(text)} characters, at most {_MAX_CHARACTERS} are read")
    first, *policies = text.split("::")
    if not policies:
        raise DidError("invalid DID string")
    tokens = first.split(":")
    if len(tokens) < 5 or tokens[:2] != ["did", "x509"]:
        raise DidError("unsupported method/prefix")
    if tokens[2] != "0":
        raise DidError("unsupported did:x509 version")
    return Did(text, tokens[3], tokens[4], tuple(tuple(policy.split(":")) for policy in policies))


def resolve(text: str, chain: Sequence[Certificate], paths: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the did's document, if the did holds for every path of the chain.

    ``paths`` are those of the chain, where they have been found before.

    Raises:
        DidError: it does not; the text says which part.
    """
    if not chain:
        raise DidError("no certificate chain")
    if len(chain) == 1:
        raise DidError("DID verification failed: certificate chain too short")
    try:
        paths = paths or find_paths(chain)
    except ChainError as error:
        raise DidError(f"certificate chain verification failed: {error}") from None
    try:
        did = parse_did(text)
        for path in paths:
            _require_holds(did, path)
    except DidError as error:
        raise DidError(f"DID verification failed: {error}") from None
    try:
        return document(text, chain[0])
    except DidError as error:
        raise DidError(f"DID document creation failed: {error}") from None


def _require_holds(did: Did, path: Path) -> None:
    if len(path) < 2:
        raise DidError("certificate chain too short")
    if did.hash not in _HASHES:
        raise DidError("unsupported hash algorithm")
    if did.fingerprint not in (fingerprint_of(one, did.hash) for one in path[1:]):
        raise DidError("unexpected certificate fingerprint")
    for policy in did.policies:
        if len(policy) < 2:
            raise DidError("invalid policy")
        name, *arguments = policy
        check = _CHECKS.get(name)
        if check is None:
            raise DidError(f"unsupported did:x509 policy name '{name}'")
        check(path[0], arguments)


def fingerprint_of(certificate: Certificate, hash_name: str = "sha256") -> str:
    """Return a certificate's fingerprint as it stands in a did."""
    return _base64url(_HASHES[hash_name](certificate.der).digest())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unescaped(text: str, failed: str) -> bytes:
    """Decode like a component of a URL's query: ``+`` is a space."""
    wrong = re.search("%(?![0-9A-Fa-f]{2}).{0,2}", text, re.DOTALL)
    if wrong:
        raise DidError(f'{failed} failed: invalid URL escape "{wrong.group()}"')
    return unquote_to_bytes(text.replace("+", " "))


# The policies


def _check_subject(leaf: Certificate, arguments: Sequence[str]) -> None:
    if not arguments or len(arguments) % 2:
        raise DidError("key-value pairs required")
    seen = set()
    for key, escaped in zip(arguments[::2], arguments[1::2], strict=True):
        key = key.upper()
        value = _unescaped(escaped, "urlUnescape")
        if key in seen:
            raise DidError(f"duplicate field '{key}'")
        seen.add(key)
        if value not in _subject_values(leaf, key):
            raise DidError(f"invalid subject value: {key}={value.decode('utf-8', 'replace')}")


def _subject_values(leaf: Certificate, key: str) -> list[bytes]:
    oid = _SUBJECT.get(key) or _SUBJECT_LAST.get(key, key)
    found = [one.value for one in leaf.attributes if one.oid.dotted_string == oid]
    if key not in _SUBJECT and key not in _SUBJECT_LAST:
        if not found:
            raise DidError(f"unsupported subject key: {key}")
        found = found[:1]
    texts = [value.encode() for value in found if isinstance(value, str)]
    if key in _SUBJECT_LAST:
        return texts[-1:] or [b""]
    return texts


def _check_san(leaf: Certificate, arguments: Sequence[str]) -> None:
    if len(arguments) != 2:
        raise DidError("exactly one SAN type and value required")
    kind, value = arguments[0], _unescaped(arguments[1], "url.QueryUnescape")
    texts = _NAMES.get(kind)
    if texts is None:
        raise DidError(f"unknown SAN type: {kind}")
    if value not in (text.encode() for name in leaf.alternative_names if (text := texts(name)) is not None):
        raise DidError(f"SAN not found: {value.decode('utf-8', 'replace')}")


def _dns(name: Any) -> str | None:
    return name.value if isinstance(name, x509.DNSName) else None


def _email(name: Any) -> str | None:
    return name.value if isinstance(name, x509.RFC822Name) else None


def _address(name: Any) -> str | None:
    if not isinstance(name, x509.IPAddress):
        return None
    value = name.value
    if isinstance(value, ipaddress.IPv6Address) and value.ipv4_mapped is not None:
        return str(value.ipv4_mapped)
    return str(value)


def _uri(name: Any) -> str | None:
    if not isinstance(name, x509.UniformResourceIdentifier):
        return None
    scheme = _URI.fullmatch(name.value)
    text = name.value if scheme is None else f"{scheme.group(1).lower()}:{scheme.group(2)}"
    # What no URL may hold as it is, a parser escapes.
    return quote(text.removesuffix("#"), safe="%!#$&'()*+,/:;=?@[]-._~")


_NAMES: Final[dict[str, Callable[[Any], str | None]]] = {
    "dns": _dns,
    "email": _email,
    "ipaddress": _address,
    "uri": _uri,
}


def _check_eku(leaf: Certificate, arguments: Sequence[str]) -> None:
    if len(arguments) != 1:
        raise DidError("exactly one EKU required")
    arcs = arguments[0].split(".")
    if not all(map(_ARC.fullmatch, arcs)):
        raise DidError("oidFromString failed: invalid OID")
    oid = ".".join(str(int(arc)) for arc in arcs)
    usages = usages_of(leaf)
    if WELL_KNOWN_USAGES.issuperset(usages):
        raise DidError("no EKU extension in certificate")
    if oid not in usages:
        raise DidError(f"EKU not found: {oid}")


def usages_of(certificate: Certificate) -> list[str]:
    """Return a certificate's extended key usages in their order."""
    return [one.dotted_string for one in certificate.extension(ExtensionOID.EXTENDED_KEY_USAGE) or ()]


def _check_fulcio_issuer(leaf: Certificate, arguments: Sequence[str]) -> None:
    if len(arguments) != 1:
        raise DidError("excessive arguments to fulcio-issuer")
    issuer = b"https://" + _unescaped(arguments[0], "urlUnescape")
    found = leaf.extension(_FULCIO_ISSUER)
    if not isinstance(found, x509.UnrecognizedExtension) or found.value != issuer:
        raise DidError(f"invalid fulcio-issuer: {issuer.decode('utf-8', 'replace')}")


_CHECKS: Final[dict[str, Callable[[Certificate, Sequence[str]], None]]] = {
    "subject": _check_subject,
    "san": _check_san,
    "eku": _check_eku,
    "fulcio-issuer": _check_fulcio_issuer,
}


# Documents, and making dids


def document(did: str, leaf: Certificate) -> dict[str, Any]:
    """Return the document of a did that holds.

    Raises:
        DidError: the leaf's key is not for this.
    """
    usage = leaf.key_usage
    signs = usage is None or usage.digital_signature
    agrees = usage is None or usage.key_agreement
    if not signs and not agrees:
        raise DidError("leaf certificate key usage must include digital signature or key agreement")
    key = f"{did}#key-1"
    method = {"id": key, "type": "JsonWebKey2020", "controller": did, "publicKeyJwk": jwk_of(leaf.public_key)}
    made = {"@context": "https://www.w3.org/ns/did/v1", "id": did, "verificationMethod": [method]}
    if signs:
        made["assertionMethod"] = key
    if agrees:
        made["keyAgreement"] = key
    return made


def jwk_of(key: Any) -> dict[str, str]:
    """Return a public key as JSON Web Key.

    Raises:
        DidError: its kind has none here.
    """
    if isinstance(key, rsa.RSAPublicKey):
        rsa_numbers = key.public_numbers()
        parts = (("e", rsa_numbers.e), ("n", rsa_numbers.n))
        encoded = {name: _base64url(n.to_bytes((n.bit_length() + 7) // 8, "big")) for name, n in parts}
        return {"e": encoded["e"], "kty": "RSA", "n": encoded["n"]}
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        curve, size = _CURVES[key.curve.name]
        numbers = key.public_numbers()
        x, y = (_base64url(n.to_bytes(size, "big")) for n in (numbers.x, numbers.y))
        return {"crv": curve, "kty": "EC", "x": x, "y": y}
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_bytes_raw())}
    raise DidError("a public key of an unsupported kind")


def make(chain: Sequence[Certificate], policy: str = "cn", index: int = 1, hash_name: str = "sha256") -> str:
    """Make a did that pins the chain's certificate ``index`` and describes the leaf.

    ``policy`` is ``cn``, ``eku``, or the text of a policy, in which the value after
    ``subject:<key>:`` is escaped.

    Raises:
        DidError: it cannot be made, or would not hold for this chain.
    """
    if hash_name != "sha256":
        raise DidError(f'unsupported fingerprint hash algorithm "{hash_name}"')
    if index < 1:
        raise DidError("fingerprint index must be >= 1")
    if not chain:
        raise DidError("chain must not be empty")
    if index >= len(chain):
        raise DidError("signer index out of bounds")
    did = (
        f"did:x509:0:{hash_name}:{fingerprint_of(chain[index], hash_name)}::{_policy_text(chain[0], policy)}"
    )
    resolve(did, chain)
    return did


def _policy_text(leaf: Certificate, policy: str) -> str:
    kind = policy.upper()
    if kind == "CN":
        return f"subject:CN:{_escaped(leaf.common_name)}"
    if kind == "EKU":
        usages = usages_of(leaf)
        special = [oid for oid in usages if oid not in WELL_KNOWN_USAGES] or usages
        if not special:
            raise DidError("invalid policy")
        return f"eku:{special[0]}"
    name, *arguments = policy.split(":")
    if name == "subject" and len(arguments) < 2:
        raise DidError('invalid "subject" policy')
    if name == "subject":
        arguments[1::2] = map(_escaped, arguments[1::2])
    return ":".join((name, *arguments))


def _escaped(value: str) -> str:
    # Stricter than a path needs: a colon would end the value, a plus be read as a space.
    return quote(value, safe="$&=@")


def resolve_pem(text: str, pem: bytes) -> dict[str, Any]:
    """Resolve a did against a chain in PEM.

    Raises:
        DidError: it does not hold.
        ChainError: a certificate cannot be read.
    """
    return resolve(text, parse_pem_chain(pem))
