"""did:x509: every policy, every hash, and the public vectors."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from signers import (
    CODE_SIGNING,
    OUR_USAGE,
    Maker,
    between,
    certificate,
    key_of,
    leaf,
    name_of,
    root,
    signer,
    usage,
    usages,
)

from uvmd_policy_rego.envelopes.certificates import Certificate
from uvmd_policy_rego.envelopes.did_x509 import fingerprint_of, make, parse_did, resolve, resolve_pem
from uvmd_policy_rego.envelopes.errors import ChainError, DidError

VECTORS = Path(__file__).parents[4] / "shared/data/did-x509/test-vectors.json"
#: Where the reference, which policies rely on, differs from the vectors, and why.
DIFFERENT = {
    "unrelated-candidate-is-rejected-with-valid-ca-fingerprint": "unrelated certificates may be in the chain",
    "unsupported-certificate-san-type": "a name that is not asked for is not looked at",
    "did-url-fragment-is-removed-from-document-id": "a did is a text, nothing is removed from it",
    "eku": "the leaf needs a usage that is not well known",
    "multiple-predicates": "the leaf needs a usage that is not well known",
    "specification-eku-predicate": "the leaf needs a usage that is not well known",
}
NAME = name_of(
    "Cn",
    ("2.5.4.6", "DE"),
    ("2.5.4.10", "One"),
    ("2.5.4.10", "Two & Co: 100%"),
    ("2.5.4.11", "Unit"),
    ("2.5.4.7", "Town"),
    ("2.5.4.8", "State"),
    ("2.5.4.9", "Street 1"),
    ("2.5.4.17", "12345"),
    ("2.5.4.5", "first"),
    ("2.5.4.5", "last"),
    ("1.2.3.4", "dotted"),
    ("1.2.3.4", "second"),
)
SANS = [
    x509.DNSName("host.example.com"),
    x509.RFC822Name("me@example.com"),
    x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
    x509.IPAddress(ipaddress.ip_address("2001:db8:0:0::1")),
    x509.IPAddress(ipaddress.ip_address("::ffff:10.0.0.2")),
    x509.UniformResourceIdentifier("HTTPS://example.com/a b?c#"),
]


def fulcio(value: bytes) -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1"), value), False


def chain_of(end: Certificate) -> list[Certificate]:
    return [end, between(), root()]


RICH = chain_of(
    leaf(
        name=NAME,
        extensions=[
            (x509.SubjectAlternativeName(SANS), False),
            (usages(CODE_SIGNING, OUR_USAGE), False),
            fulcio(b"https://issuer.example.com/x"),
        ],
    )
)


def did(*policies: str, pin: Certificate | None = None, hash_name: str = "sha256") -> str:
    print_ = fingerprint_of(pin or root(), hash_name)
    return "::".join((f"did:x509:0:{hash_name}:{print_}", *policies))


def refused(text: str, reason: str, chain: list[Certificate] | None = None) -> None:
    with pytest.raises(DidError, match=reason):
        resolve(text, chain or RICH)


def read(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_the_public_vectors_resolve_as_they_say_or_as_listed(capsys: pytest.CaptureFixture[str]) -> None:
    if not VECTORS.exists():
        with capsys.disabled():
            print(f"\nNOT checked with the public did:x509 vectors, {VECTORS} is missing")
        return
    vectors = json.loads(VECTORS.read_text())
    assert len(vectors) >= 58
    different = set()
    for vector in vectors:
        name, output = vector["id"], vector["output"]
        chain = [Certificate(read(one)) for one in vector["input"]["chain"]]
        try:
            document = resolve(vector["input"]["did"], chain)
        except DidError:
            if "document" in output:
                different.add(name)
            continue
        if "error" in output:
            different.add(name)
            continue
        expected = output["document"]
        method, (theirs,) = document["verificationMethod"][0], expected["verificationMethod"]
        assert method["publicKeyJwk"] == theirs["publicKeyJwk"], name
        assert document["id"] == expected["id"], name
        for kind in ("assertionMethod", "keyAgreement"):
            assert (kind in document) == (kind in expected), name
    assert different == set(DIFFERENT)


@pytest.mark.parametrize("hash_name", ["sha256", "sha384", "sha512"])
def test_any_certificate_above_the_leaf_can_be_pinned(hash_name: str) -> None:
    for pin in RICH[1:]:
        assert resolve(did("subject:CN:Cn", pin=pin, hash_name=hash_name), RICH)["id"]
    refused(did("subject:CN:Cn", pin=RICH[0], hash_name=hash_name), "unexpected certificate fingerprint")


@pytest.mark.parametrize(
    "policy",
    [
        "subject:CN:Cn",
        "subject:cn:Cn",
        "subject:C:DE:O:One:OU:Unit:L:Town:S:State:STREET:Street%201:POSTALCODE:12345",
        "subject:O:Two%20%26%20Co%3a+100%25",
        "subject:SERIALNUMBER:last",
        "subject:1.2.3.4:dotted",
        "san:dns:host.example.com",
        "san:email:me%40example.com",
        "san:ipaddress:10.0.0.1",
        "san:ipaddress:10.0.0.2",
        "san:ipaddress:2001%3Adb8%3A%3A1",
        "san:uri:https%3A%2F%2Fexample.com%2Fa%2520b%3Fc",
        f"eku:{OUR_USAGE}",
        f"eku:{CODE_SIGNING}",
        "eku:01.3.6.1.4.1.+54321.1",
        "fulcio-issuer:issuer.example.com%2Fx",
    ],
)
def test_a_policy_that_is_true_of_the_leaf_holds(policy: str) -> None:
    assert resolve(did(policy), RICH)
    assert resolve(did(policy, "subject:CN:Cn", policy), RICH)
    refused(did(policy, "subject:CN:Other"), "invalid subject value: CN=Other")


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("subject:", "key-value pairs required"),
        ("subject:CN:Cn:O", "key-value pairs required"),
        ("subject:CN:cn", "invalid subject value: CN=cn"),
        ("subject:CN:Cn:cn:Cn", "duplicate field 'CN'"),
        ("subject:ST:State", "unsupported subject key: ST"),
        ("subject:9.9.9:x", "unsupported subject key: 9.9.9"),
        ("subject:1.2.3.4:second", "invalid subject value: 1.2.3.4=second"),
        ("subject:SERIALNUMBER:first", "invalid subject value"),
        ("subject:CN:C%6E%", 'urlUnescape failed: invalid URL escape "%"'),
        ("subject:CN:%zz", 'urlUnescape failed: invalid URL escape "%zz"'),
        ("subject:CN:%FF", "invalid subject value"),
        ("subject:O:Two%20&%20Co", "invalid subject value"),
        ("san:dns", "exactly one SAN type and value required"),
        ("san:dns:a:b", "exactly one SAN type and value required"),
        ("san:dns:HOST.example.com", "SAN not found: HOST.example.com"),
        ("san:email:host.example.com", "SAN not found"),
        ("san:ipaddress:10.0.0.01", "SAN not found"),
        ("san:uri:HTTPS%3A%2F%2Fexample.com", "SAN not found"),
        ("san:DNS:host.example.com", "unknown SAN type: DNS"),
        ("san:dns:%q0", "url.QueryUnescape failed: invalid URL escape"),
        ("eku:1.2:3", "exactly one EKU required"),
        ("eku:1.2.x", "oidFromString failed: invalid OID"),
        ("eku:", "oidFromString failed: invalid OID"),
        ("eku:1.2.3", "EKU not found: 1.2.3"),
        ("fulcio-issuer:a:b", "excessive arguments to fulcio-issuer"),
        ("fulcio-issuer:issuer.example.com", "invalid fulcio-issuer: https://issuer.example.com"),
        ("email:me@example.com", "unsupported did:x509 policy name 'email'"),
        ("Subject:CN:Cn", "unsupported did:x509 policy name 'Subject'"),
        ("subject", "invalid policy"),
        ("", "invalid policy"),
    ],
)
def test_a_policy_that_is_not_true_says_what_is_not(policy: str, reason: str) -> None:
    refused(did(policy), f"DID verification failed: .*{reason}")
    refused(did("subject:CN:Cn", policy), f"DID verification failed: .*{reason}")


def test_a_usage_of_our_own_is_needed_for_an_eku_policy() -> None:
    for only in ([], [(usages(CODE_SIGNING), False)], [(usages("2.5.29.37.0", CODE_SIGNING), False)]):
        end = leaf(extensions=only)
        refused(did(f"eku:{CODE_SIGNING}"), "no EKU extension in certificate", chain_of(end))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "invalid DID string"),
        ("did:x509:0:sha256:x" + "::san:dns:z" * 400, "a DID of 4419 characters, at most 4096 are read"),
        ("did:x509:0:sha256:x", "invalid DID string"),
        ("did:x509:0:sha256::subject:CN:Cn", "unsupported method/prefix"),
        ("did:web:0:sha256:x::a:b", "unsupported method/prefix"),
        ("DID:x509:0:sha256:x::a:b", "unsupported method/prefix"),
        ("did:x509:1:sha256:x::a:b", "unsupported did:x509 version"),
        ("did:x509:0:md5:x::a:b", "unsupported hash algorithm"),
        ("did:x509:0:SHA256:x::a:b", "unsupported hash algorithm"),
        ("did:x509:0:sha256:x::a:b", "unexpected certificate fingerprint"),
    ],
)
def test_a_did_of_another_form_is_refused(text: str, reason: str) -> None:
    refused(text, f"DID verification failed: {reason}")


def test_a_fingerprint_is_compared_as_text() -> None:
    good = fingerprint_of(root())
    for other in (
        good + "=",
        good + "==",
        good[:-1],
        good.upper(),
        good.replace("_", "/").replace("-", "+") + "=",
    ):
        refused(f"did:x509:0:sha256:{other}::subject:CN:Cn", "unexpected certificate fingerprint")
    # What follows it is not looked at.
    assert resolve(f"did:x509:0:sha256:{good}:more:tokens::subject:CN:Cn", RICH)


def test_a_did_must_hold_for_every_path() -> None:
    renewed = certificate(
        name_of("Between"), key_of("between"), Maker(name_of("Root"), key_of("root")), ca=True
    )
    chain = [RICH[0], between(), renewed, root()]
    assert resolve(did("subject:CN:Cn"), chain)
    for pin in (between(), renewed):
        refused(did("subject:CN:Cn", pin=pin), "unexpected certificate fingerprint", chain)


def test_short_and_broken_chains_resolve_to_nothing() -> None:
    with pytest.raises(DidError, match="no certificate chain"):
        resolve(did("subject:CN:Cn"), [])
    refused(did("subject:CN:Cn"), "certificate chain too short", RICH[:1])
    refused(did("subject:CN:Cn"), "certificate chain too short", [RICH[0], RICH[0]])
    refused(did("subject:CN:Cn"), "certificate chain verification failed: ", [RICH[0], root()])
    with pytest.raises(DidError, match="no certificate chain"):
        resolve_pem(did("subject:CN:Cn"), b"no certificates")
    with pytest.raises(ChainError):
        resolve_pem("x", b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----")
    assert resolve_pem(signer().did, signer().pem)["id"] == signer().did


def test_the_document_says_what_the_key_is_for() -> None:
    for on, kinds in (
        ({"digital_signature": True}, {"assertionMethod"}),
        ({"key_agreement": True}, {"keyAgreement"}),
        ({"digital_signature": True, "key_agreement": True}, {"assertionMethod", "keyAgreement"}),
    ):
        document = resolve(did("subject:CN:Leaf"), chain_of(leaf(extensions=[(usage(**on), True)])))
        assert document.keys() - {"@context", "id", "verificationMethod"} == kinds
        assert all(document[kind] == f"{document['id']}#key-1" for kind in kinds)
    other = chain_of(leaf(extensions=[(usage(key_encipherment=True), True)]))
    refused(
        did("subject:CN:Leaf"),
        "DID document creation failed: leaf certificate key usage must include digital signature",
        other,
    )


@pytest.mark.parametrize(
    ("kind", "jwk"),
    [
        ("P-256", {"kty": "EC", "crv": "P-256"}),
        ("P-384", {"kty": "EC", "crv": "P-384"}),
        ("P-521", {"kty": "EC", "crv": "P-521"}),
        ("RSA2048", {"kty": "RSA", "e": "AQAB"}),
        ("Ed25519", {"kty": "OKP", "crv": "Ed25519"}),
    ],
)
def test_the_document_shows_the_key(kind: str, jwk: dict[str, str]) -> None:
    document = resolve(signer(kind).did, signer(kind).chain)
    shown = document["verificationMethod"][0]["publicKeyJwk"]
    assert jwk.items() <= shown.items()
    assert document["@context"] == "https://www.w3.org/ns/did/v1"
    assert "=" not in json.dumps(shown)


def test_a_key_of_another_kind_has_no_document() -> None:
    chain = chain_of(leaf(key_of("koblitz", "K-256")))
    refused(
        did("subject:CN:Leaf"), "DID document creation failed: a public key of an unsupported kind", chain
    )


@pytest.mark.parametrize(
    "common", ["Cn", "Gen 1 (DO NOT TRUST)", "a:b", "a+b", "100%", "ä/ö;ü,?", "::", "~x"]
)
def test_what_is_made_holds_whatever_the_name(common: str) -> None:
    chain = chain_of(leaf(name=common))
    for index in (1, 2):
        made = make(chain, "cn", index)
        assert made.startswith(f"did:x509:0:sha256:{fingerprint_of(chain[index])}::subject:CN:")
        assert resolve(made, chain)["id"] == made
        assert make(chain, f"subject:CN:{common}" if ":" not in common else "cn", index) == made


def test_dids_are_made_of_usages_and_texts() -> None:
    assert make(RICH, "eku").endswith(f"::eku:{OUR_USAGE}")
    assert make(RICH, "subject:O:One:L:Town", 2).endswith("::subject:O:One:L:Town")
    assert make(RICH, "san:dns:host.example.com").endswith("::san:dns:host.example.com")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"index": 0}, "fingerprint index must be >= 1"),
        ({"index": 3}, "signer index out of bounds"),
        ({"hash_name": "sha512"}, 'unsupported fingerprint hash algorithm "sha512"'),
        ({"policy": "subject:CN"}, 'invalid "subject" policy'),
        ({"policy": "subject:CN:Other"}, "invalid subject value"),
        ({"policy": "other"}, "invalid policy"),
    ],
)
def test_a_did_that_would_not_hold_is_not_made(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(DidError, match=reason):
        make(RICH, **fields)


def test_nothing_is_made_without_usages_or_certificates() -> None:
    with pytest.raises(DidError, match="invalid policy"):
        make(chain_of(leaf()), "eku")
    with pytest.raises(DidError, match="chain must not be empty"):
        make([])
    # One that is well known is taken for want of another, and then does not hold.
    with pytest.raises(DidError, match="no EKU extension"):
        make(chain_of(leaf(extensions=[(usages(CODE_SIGNING), False)])), "eku")


@given(
    st.text(max_size=80)
    | st.lists(st.sampled_from(["did", "x509", ":", "::", "0", "sha256", "%", "eku"])).map("".join)
)
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(DidError):
        assert parse_did(text).text == text
    with pytest.raises(DidError):
        resolve(text, RICH)


@given(st.text(max_size=60))
def test_any_argument_is_judged(argument: str) -> None:
    for policy in ("subject:CN:", "san:dns:", "san:uri:", "eku:", "fulcio-issuer:", "subject:", "san:"):
        with contextlib.suppress(DidError):
            resolve(did(policy + argument), RICH)
