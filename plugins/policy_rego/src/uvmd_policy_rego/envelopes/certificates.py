"""Certificates: what of them paths and did:x509 look at, read once."""

from __future__ import annotations

import base64
import binascii
import functools
import re
import warnings
from collections.abc import Iterable
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from uvmd_policy_rego.envelopes import der
from uvmd_policy_rego.envelopes.errors import ChainError

_SIGNATURES: Final = frozenset(
    (
        SignatureAlgorithmOID.RSA_WITH_SHA256, SignatureAlgorithmOID.RSA_WITH_SHA384,
        SignatureAlgorithmOID.RSA_WITH_SHA512, SignatureAlgorithmOID.RSASSA_PSS,
        SignatureAlgorithmOID.ECDSA_WITH_SHA256, SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        SignatureAlgorithmOID.ECDSA_WITH_SHA512, SignatureAlgorithmOID.ED25519,
    )
)  # fmt: skip
_CURVES: Final = frozenset(("secp224r1", "secp256r1", "secp384r1", "secp521r1"))
_MIN_RSA_BITS: Final = 1024
#: Anybody may have made it, and all that it names is compared with all that others say.
_MAX_BYTES: Final = 1 << 16
#: Extensions that path validation or did:x509 takes care of, so that they may be critical.
_HANDLED: Final = frozenset(
    (
        ExtensionOID.KEY_USAGE, ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.NAME_CONSTRAINTS, ExtensionOID.CRL_DISTRIBUTION_POINTS, ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.CERTIFICATE_POLICIES, ExtensionOID.POLICY_CONSTRAINTS, ExtensionOID.POLICY_MAPPINGS,
        ExtensionOID.INHIBIT_ANY_POLICY,
    )
)  # fmt: skip
#: Kinds of names that are compared: in a critical extension nothing else may be alone.
COMPARED: Final = (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier, x509.IPAddress)
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


class Certificate:
    """One certificate.

    Raises:
        ChainError: it cannot be read.
    """

    def __init__(self, encoded: bytes) -> None:
        self.der = encoded
        if len(encoded) > _MAX_BYTES:
            raise ChainError(f"x509: {len(encoded)} bytes, at most {_MAX_BYTES} are read")
        try:
            with warnings.catch_warnings():
                # Of what is odd and read all the same; what we refuse is said below, not on stderr.
                warnings.simplefilter("ignore")
                self.parsed = x509.load_der_x509_certificate(encoded)
                serial = self.parsed.serial_number
            self.extensions = {one.oid: one for one in self.parsed.extensions}
            self.version = self.parsed.version
            self.not_before = self.parsed.not_valid_before_utc
            self.not_after = self.parsed.not_valid_after_utc
            self.attributes = list(self.parsed.subject)
            # Parsed when it is looked at: now, so that it cannot fail later.
            self.issuer_text = self.parsed.issuer.rfc4514_string()
        except (ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension) as error:
            raise ChainError(f"x509: {error}") from None
        except x509.UnsupportedGeneralNameType as error:
            raise ChainError(f"x509: a name of an unsupported type: {error}") from None
        if serial < 0:
            raise ChainError("x509: negative serial number")
        names = der.names_of(self.parsed.tbs_certificate_bytes)
        self.issuer, self.subject, self.key_bytes = names

    def extension(self, oid: x509.ObjectIdentifier) -> Any:
        """Return an extension's value, or None."""
        found = self.extensions.get(oid)
        return None if found is None else found.value

    @functools.cached_property
    def public_key(self) -> Any:
        """The public key, or None if its kind is not supported."""
        try:
            return self.parsed.public_key()
        except (ValueError, UnsupportedAlgorithm):
            return None

    @functools.cached_property
    def alternative_names(self) -> list[Any]:
        """The names of the subjectAltName extension."""
        return list(self.extension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME) or ())

    @property
    def key_usage(self) -> x509.KeyUsage | None:
        """The keyUsage extension."""
        usage: x509.KeyUsage | None = self.extension(ExtensionOID.KEY_USAGE)
        return usage

    @property
    def common_name(self) -> str:
        """The subject's last common name, for people and for making a did."""
        names = [str(one.value) for one in self.attributes if one.oid.dotted_string == "2.5.4.3"]
        return names[-1] if names else ""

    @property
    def shown(self) -> str:
        """A name for messages."""
        return repr(self.common_name or self.parsed.subject.rfc4514_string())

    def same_entity(self, other: Certificate) -> bool:
        """Whether it is the same subject with the same key and names, so that a path would turn round."""
        oid = ExtensionOID.SUBJECT_ALTERNATIVE_NAME
        ours, theirs = (one.extension(oid) for one in (self, other))
        return self.subject == other.subject and self.key_bytes == other.key_bytes and ours == theirs

    def require_issued_by(self, issuer: Certificate) -> None:
        """Insist that the issuer may sign certificates and signed this one.

        Raises:
            ChainError: it may not, or did not.
        """
        constraints = issuer.extension(ExtensionOID.BASIC_CONSTRAINTS)
        missing = constraints is None and issuer.version is x509.Version.v3
        if missing or (constraints is not None and not constraints.ca):
            raise ChainError(f"{issuer.shown} is no CA")
        if issuer.key_usage is not None and not issuer.key_usage.key_cert_sign:
            raise ChainError(f"the key of {issuer.shown} may not sign certificates")
        _require_signature(self, issuer)

    def require_no_unhandled(self) -> None:
        """Insist that nothing is critical which nobody looks at.

        Raises:
            ChainError: naming the extension.
        """
        for extension in self.parsed.extensions:
            if not extension.critical:
                continue
            value = extension.value
            known = extension.oid in _HANDLED
            if isinstance(value, x509.SubjectAlternativeName):
                known = any(isinstance(name, COMPARED) for name in value)
            elif isinstance(value, x509.NameConstraints):
                trees = [*(value.permitted_subtrees or ()), *(value.excluded_subtrees or ())]
                known = all(isinstance(name, COMPARED) for name in trees)
            if not known:
                oid = extension.oid.dotted_string
                raise ChainError(f"{self.shown} has an unhandled critical extension {oid}")


def _require_signature(child: Certificate, issuer: Certificate) -> None:
    algorithm = child.parsed.signature_algorithm_oid
    if algorithm not in _SIGNATURES:
        # SHA-1 and MD5 among them: a collision would be another certificate's signature.
        raise ChainError(
            f"{child.shown} is signed by an algorithm that is not taken: {algorithm.dotted_string}"
        )
    key = issuer.public_key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        raise ChainError(f"the RSA key of {issuer.shown} has less than {_MIN_RSA_BITS} bits")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in _CURVES:
        raise ChainError(f"the key of {issuer.shown} is on an unsupported curve")
    if key is None or (algorithm == SignatureAlgorithmOID.RSASSA_PSS and not _ordinary_pss(child)):
        raise ChainError(f"the signature of {child.shown} is of an unsupported kind")
    try:
        child.parsed.verify_directly_issued_by(issuer.parsed)
    except Exception as error:
        # InvalidSignature, or the many ways in which key and algorithm do not go together.
        raise ChainError(f"{child.shown} was not signed by {issuer.shown}: {type(error).__name__}") from None


def _ordinary_pss(certificate: Certificate) -> bool:
    try:
        parameters = certificate.parsed.signature_algorithm_parameters
        digest = certificate.parsed.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return False
    if not isinstance(parameters, padding.PSS) or digest is None:
        return False
    return parameters._salt_length == digest.digest_size and parameters.mgf._algorithm.name == digest.name


def parse_pem_chain(text: bytes) -> list[Certificate]:
    """Parse the certificates of a PEM file, in its order; other blocks are skipped.

    Raises:
        ChainError: one cannot be read.
    """
    found = []
    for block in _PEM.findall(text):
        try:
            found.append(Certificate(base64.b64decode(b"".join(block.split()), validate=True)))
        except (binascii.Error, ChainError) as error:
            raise ChainError(f"certificate parser failed: {error}") from None
    return found


def pem_of(chain: Iterable[Certificate]) -> str:
    """Write a chain as the reference does: a line a certificate, one newline between blocks."""
    blocks = (base64.b64encode(one.der).decode() for one in chain)
    return "\n".join(f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----" for text in blocks)
