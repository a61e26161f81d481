"""Certificate authorities, signers and ledgers of the tests' own."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from uvmd_policy_rego.envelopes.certificates import Certificate, pem_of
from uvmd_policy_rego.envelopes.did_x509 import make
from uvmd_policy_rego.envelopes.signing import sign

DAY = datetime.timedelta(days=1)
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
#: In the past already: an envelope outlives its signer's certificate.
LEAF_ENDS = datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC)
LATER = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)
CODE_SIGNING, OUR_USAGE = "1.3.6.1.5.5.7.3.3", "1.3.6.1.4.1.54321.1"
FEED = "example.com/feed"
CODE = 'package extra\nsvn := 1\nframework_version := "0.5.0"\n'


def key_of(name: str, kind: str = "P-256") -> Any:
    """The private key of this name; the same for the whole run."""
    return _key_of(name, kind)


@functools.cache
def _key_of(name: str, kind: str) -> Any:
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("RSA"):
        return rsa.generate_private_key(65537, int(kind.removeprefix("RSA")))
    curves = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1, "K-256": ec.SECP256K1}
    return ec.generate_private_key(curves[kind]())


def name_of(common: str, *attributes: tuple[str, str]) -> x509.Name:
    found = [x509.NameAttribute(x509.ObjectIdentifier(oid), value) for oid, value in attributes]
    return x509.Name([*found, x509.NameAttribute(NameOID.COMMON_NAME, common)])


class Maker(NamedTuple):
    """Who signs a certificate."""

    name: x509.Name
    key: Any


def certificate(
    name: str | x509.Name,
    key: Any,
    maker: Maker | None = None,
    *,
    ca: bool | None = None,
    path_length: int | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    begins: datetime.datetime = LONG_AGO,
    ends: datetime.datetime = LATER,
    digest: Any = None,
    scheme: Any = None,
) -> Certificate:
    """A certificate; without a maker it signs itself. ``ca`` None: without basic constraints."""
    subject = name_of(name) if isinstance(name, str) else name
    maker = maker or Maker(subject, key)
    builder = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=maker.name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), True)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    if digest is None and not isinstance(maker.key, ed25519.Ed25519PrivateKey):
        digest = hashes.SHA256()
    signed = builder.sign(maker.key, digest, rsa_padding=scheme)
    return Certificate(signed.public_bytes(Encoding.DER))


def usage(**on: bool) -> x509.KeyUsage:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: on.get(name, False) for name in names.split()})


def usages(*oids: str) -> x509.ExtendedKeyUsage:
    return x509.ExtendedKeyUsage([x509.ObjectIdentifier(oid) for oid in oids])


class Signer(NamedTuple):
    """A key and its chain."""

    key: Any
    chain: tuple[Certificate, ...]

    @property
    def did(self) -> str:
        return make(self.chain)

    @property
    def pem(self) -> bytes:
        return pem_of(self.chain).encode()

    @property
    def key_pem(self) -> bytes:
        data: bytes = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return data

    def sign(self, payload: bytes | str = CODE, **fields: Any) -> bytes:
        """An envelope as signing services make it."""
        data = payload.encode() if isinstance(payload, str) else payload
        fields = {"issuer": self.did, "feed": FEED} | fields
        return sign(data, self.key, self.chain, **fields)


ROOT = name_of("Root")
BETWEEN = name_of("Between")


@functools.cache
def root() -> Certificate:
    return certificate(ROOT, key_of("root"), ca=True)


@functools.cache
def between() -> Certificate:
    return certificate(BETWEEN, key_of("between"), Maker(ROOT, key_of("root")), ca=True)


def leaf(key: Any = None, name: str | x509.Name = "Leaf", **fields: Any) -> Certificate:
    """A leaf that the certificate between has signed."""
    fields = {"ends": LEAF_ENDS, "maker": Maker(BETWEEN, key_of("between"))} | fields
    return certificate(name, key or key_of("leaf"), **fields)


@functools.cache
def signer(kind: str = "P-256") -> Signer:
    """The usual signer: leaf, certificate between, root."""
    key = key_of("leaf", kind)
    wanted = usages(CODE_SIGNING, OUR_USAGE)
    return Signer(key, (leaf(key, extensions=[(wanted, False)]), between(), root()))
