"""Paths from the leaf to the last certificate: RFC 5280 at the moment the leaf expires."""

from __future__ import annotations

import datetime
import ipaddress
import warnings
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509.name import _ASN1Type
from signers import (
    BETWEEN,
    DAY,
    LATER,
    LEAF_ENDS,
    LONG_AGO,
    ROOT,
    Maker,
    between,
    certificate,
    key_of,
    leaf,
    name_of,
    root,
    usage,
    usages,
)

from uvmd_policy_rego.envelopes import chain as chains
from uvmd_policy_rego.envelopes import der
from uvmd_policy_rego.envelopes.certificates import Certificate, parse_pem_chain, pem_of
from uvmd_policy_rego.envelopes.chain import find_paths
from uvmd_policy_rego.envelopes.errors import ChainError

ROOT_MAKER = Maker(ROOT, key_of("root"))
#: Any key will do for one who is not believed.
STRANGER = Maker(name_of("Stranger"), key_of("stranger"))


def names(chain: list[Certificate]) -> list[list[str]]:
    return [[one.common_name for one in path] for path in find_paths(chain)]


def refused(chain: list[Certificate], reason: str) -> None:
    with pytest.raises(ChainError, match=reason):
        find_paths(chain)


def intermediate(**fields: Any) -> Certificate:
    fields = {"ca": True} | fields
    return certificate(BETWEEN, key_of("between"), ROOT_MAKER, **fields)


def test_a_path_is_found_whatever_the_order_between_the_ends() -> None:
    upper = certificate("Upper", key_of("upper"), ROOT_MAKER, ca=True)
    lower = certificate("Lower", key_of("lower"), Maker(name_of("Upper"), key_of("upper")), ca=True)
    end = leaf(maker=Maker(name_of("Lower"), key_of("lower")))
    for middle in ([lower, upper], [upper, lower], [upper, between(), lower, lower]):
        assert names([end, *middle, root()]) == [["Leaf", "Lower", "Upper", "Root"]]


def test_every_path_is_found() -> None:
    # Two certificates of one CA, as after a renewal.
    renewed = intermediate(ends=LATER - DAY)
    found = find_paths([leaf(), between(), renewed, root()])
    assert [[one.common_name for one in path] for path in found] == [["Leaf", "Between", "Root"]] * 2
    assert {path[1].der for path in found} == {between().der, renewed.der}


def test_the_last_certificate_is_believed_whatever_it_is() -> None:
    assert names([leaf(), between()]) == [["Leaf", "Between"]]
    signed_by_nobody = certificate(BETWEEN, key_of("between"), STRANGER, ca=True)
    assert names([leaf(), signed_by_nobody]) == [["Leaf", "Between"]]
    alone = certificate("Alone", key_of("leaf"))
    assert names([alone, alone]) == [["Alone"]]


def test_nobody_else_is_believed() -> None:
    refused([leaf(), root()], "nobody in the chain issued 'Leaf'")
    other = certificate(BETWEEN, key_of("another"), ROOT_MAKER, ca=True)
    refused([leaf(), other, root()], "'Leaf' was not signed by 'Between': InvalidSignature")
    other = certificate("Root", key_of("another root"), ca=True)
    refused([leaf(), between(), other], "'Between' was not signed by 'Root'")
    refused([root(), between(), leaf()], "nobody in the chain issued 'Root'|not signed|is no CA")


def test_time_is_that_of_the_leafs_end() -> None:
    assert names([leaf(), between(), root()]), "the leaf ended long ago"
    early = intermediate(ends=LEAF_ENDS - DAY)
    refused(
        [leaf(), early, root()], "'Between' is valid from .* to .*, not when the leaf expires, 2021-01-01"
    )
    late = intermediate(begins=LEAF_ENDS + DAY)
    refused([leaf(), late, root()], "'Between' is valid from")
    assert names([leaf(), intermediate(begins=LEAF_ENDS, ends=LEAF_ENDS), root()])
    old_root = certificate(ROOT, key_of("root"), ca=True, ends=LEAF_ENDS - DAY)
    refused([leaf(), between(), old_root], "'Root' is valid from")


def test_an_issuer_must_be_a_ca_that_may_sign() -> None:
    for wrong in (intermediate(ca=False), intermediate(ca=None)):
        refused([leaf(), wrong, root()], "'Between' is no CA")
    no_signing = intermediate(extensions=[(usage(digital_signature=True), True)])
    refused([leaf(), no_signing, root()], "the key of 'Between' may not sign certificates")
    assert names([leaf(), intermediate(extensions=[(usage(key_cert_sign=True), True)]), root()])
    refused([leaf(), certificate(BETWEEN, key_of("between"), ROOT_MAKER)], "'Between' is no CA")


def test_path_lengths_count_certificates_between() -> None:
    for length, allowed in ((0, False), (1, True), (7, True)):
        anchor = certificate(ROOT, key_of("root"), ca=True, path_length=length)
        if allowed:
            assert names([leaf(), between(), anchor])
        else:
            refused([leaf(), between(), anchor], "'Root' allows 0 certificates between it and the leaf")
    assert names([leaf(), intermediate(path_length=0), root()])


def test_weak_signatures_are_refused() -> None:
    weak = certificate(BETWEEN, key_of("between"), Maker(ROOT, key_of("rsa root", "RSA1024")), ca=True)
    anchor = certificate(ROOT, key_of("rsa root", "RSA1024"), ca=True)
    assert names([leaf(), weak, anchor])
    # The library does not sign with SHA-1 any more: the certificate says so of itself.
    sha256, sha1 = (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01" + end for end in (b"\x0b", b"\x05"))
    claimed = Certificate(weak.der.replace(sha256, sha1))
    refused([leaf(), claimed, anchor], "'Between' is signed by an algorithm that is not taken: .*1.1.5")
    refused([leaf(digest=hashes.SHA224()), between(), root()], "an algorithm that is not taken")
    on_koblitz = certificate(ROOT, key_of("koblitz root", "K-256"), ca=True)
    from_koblitz = certificate(
        BETWEEN, key_of("between"), Maker(ROOT, key_of("koblitz root", "K-256")), ca=True
    )
    refused([leaf(), from_koblitz, on_koblitz], "'Root' is on an unsupported curve")


def test_other_kinds_of_keys_sign_certificates_too() -> None:
    for kind in ("P-384", "P-521", "RSA2048", "Ed25519"):
        anchor = certificate(ROOT, key_of("other root", kind), ca=True)
        middle = certificate(BETWEEN, key_of("between"), Maker(ROOT, key_of("other root", kind)), ca=True)
        assert names([leaf(), middle, anchor])


def test_pss_signatures_have_the_usual_salt() -> None:
    key = key_of("rsa root", "RSA1024")
    anchor = certificate(ROOT, key, ca=True)
    for salt, hash_of_mask, allowed in (
        (32, hashes.SHA256(), True),
        (20, hashes.SHA256(), False),
        (32, hashes.SHA384(), False),
    ):
        scheme = padding.PSS(padding.MGF1(hash_of_mask), salt)
        middle = certificate(BETWEEN, key_of("between"), Maker(ROOT, key), ca=True, scheme=scheme)
        if allowed:
            assert names([leaf(), middle, anchor])
        else:
            refused([leaf(), middle, anchor], "the signature of 'Between' is of an unsupported kind")


def test_what_is_critical_and_unknown_is_refused_anywhere() -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    refused(
        [leaf(extensions=[(unknown, True)]), between(), root()], "'Leaf' has an unhandled critical .* 1.2.3.4"
    )
    refused(
        [leaf(), intermediate(extensions=[(unknown, True)]), root()], "'Between' has an unhandled critical"
    )
    anchor = certificate(ROOT, key_of("root"), ca=True, extensions=[(unknown, True)])
    refused([leaf(), between(), anchor], "'Root' has an unhandled critical")
    assert names([leaf(extensions=[(unknown, False)]), between(), root()])
    odd_name = x509.SubjectAlternativeName([x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))])
    refused(
        [leaf(extensions=[(odd_name, True)]), between(), root()], "unhandled critical extension 2.5.29.17"
    )
    assert names([leaf(extensions=[(odd_name, False)]), between(), root()])
    assert names([leaf(extensions=[(usages("1.2.3"), True)]), between(), root()])


def constrained(permitted: Any = None, excluded: Any = None, critical: bool = True) -> Certificate:
    return intermediate(extensions=[(x509.NameConstraints(permitted, excluded), critical)])


def named(*names: x509.GeneralName) -> Certificate:
    return leaf(extensions=[(x509.SubjectAlternativeName(names), False)])


DNS, MAIL, URI = x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier


def address(text: str) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_address(text))


def network(text: str) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_network(text))


@pytest.mark.parametrize(
    ("constraint", "inside", "outside"),
    [
        (DNS("example.com"), DNS("a.EXAMPLE.com"), DNS("example.org")),
        (DNS("example.com"), DNS("example.com"), DNS("badexample.com")),
        (DNS(".example.com"), DNS("a.example.com"), DNS("example.com")),
        (MAIL("example.com"), MAIL("me@example.com"), MAIL("me@example.org")),
        (MAIL("me@example.com"), MAIL("me@EXAMPLE.com"), MAIL("you@example.com")),
        (MAIL(".example.com"), MAIL("me@a.example.com"), MAIL("me@example.com")),
        (URI("example.com"), URI("https://a.example.com:444/x"), URI("https://example.org/example.com")),
        (network("10.0.0.0/8"), address("10.1.2.3"), address("11.0.0.1")),
        (network("2001:db8::/32"), address("2001:db8::1"), address("2001:db9::1")),
        (network("10.0.0.0/8"), address("10.1.2.3"), address("::1")),
    ],
)
def test_names_below_must_fit_the_constraints(constraint: Any, inside: Any, outside: Any) -> None:
    assert names([named(inside), constrained([constraint]), root()])
    refused([named(outside), constrained([constraint]), root()], "'Between' does not permit the name")
    refused([named(inside, outside), constrained([constraint]), root()], "does not permit")
    refused([named(inside), constrained(None, [constraint]), root()], "'Between' excludes the name")
    assert names([named(outside), constrained(None, [constraint]), root()])
    assert names([leaf(), constrained([constraint]), root()]), "without names there is nothing to constrain"


def test_odd_names_do_not_slip_through_constraints() -> None:
    refused([named(DNS("*.example.com")), constrained(None, [DNS("a.example.com")]), root()], "excludes")
    for odd in (URI("https://10.0.0.1/"), URI("urn:x"), URI("https://[::1]/")):
        refused([named(odd), constrained(None, [URI("example.com")]), root()], "cannot be compared")
    refused([named(MAIL("nobody")), constrained(None, [MAIL("example.com")]), root()], "cannot be compared")
    refused([named(DNS("a..b")), constrained(None, [DNS("example.com")]), root()], "cannot be compared")
    # Of another kind than the constraint: not concerned.
    assert names([named(MAIL("me@example.org")), constrained([DNS("example.com")]), root()])
    directory = x509.DirectoryName(name_of("x"))
    refused([leaf(), constrained([directory]), root()], "unhandled critical extension 2.5.29.30")
    assert names([leaf(), constrained([directory], critical=False), root()])


def test_constraints_are_not_a_way_to_keep_us_busy() -> None:
    many = [DNS(f"a{n}.example.com") for n in range(600)]
    refused([named(*many), constrained(None, many), root()], "constrains too many names")
    endless = DNS("a." * 500 + "example.com")
    refused([named(endless), constrained(None, [DNS("example.com")]), root()], "cannot be compared")
    with pytest.raises(ChainError, match="at most 65536 are read"):
        named(*(DNS(f"a{n}.example.com") for n in range(6000)))


def policies(*oids: str) -> tuple[x509.ExtensionType, bool]:
    found = [x509.PolicyInformation(x509.ObjectIdentifier(oid), None) for oid in oids]
    return x509.CertificatePolicies(found), False


def demanding(require: int | None = 0, *oids: str) -> Certificate:
    extensions = [(x509.PolicyConstraints(require, None), True)]
    return intermediate(extensions=[*extensions, *([policies(*oids)] if oids else [])])


ANY = "2.5.29.32.0"


@pytest.mark.parametrize(
    ("middle", "end", "allowed"),
    [
        (("1.2.3",), ("1.2.3",), True),
        (("1.2.3",), ("1.2.4",), False),
        (("1.2.3",), (), False),
        ((), ("1.2.3",), False),
        ((ANY,), ("1.2.4",), True),
        (("1.2.3",), (ANY,), True),
        (("1.2.3", "1.2.4"), ("1.2.4", "1.2.5"), True),
    ],
)
def test_required_policies_must_lead_to_the_leaf(middle: Any, end: Any, allowed: bool) -> None:
    below = leaf(extensions=[policies(*end)] if end else [])
    if allowed:
        assert names([below, demanding(0, *middle), root()])
    else:
        refused([below, demanding(0, *middle), root()], "policy does not lead to the leaf")
    assert names([below, intermediate(extensions=[policies(*middle)] if middle else []), root()])
    assert names([below, demanding(9, *middle), root()])


def test_any_policy_can_be_inhibited_and_mappings_are_not_followed() -> None:
    inhibiting = intermediate(
        extensions=[
            (x509.PolicyConstraints(0, None), True),
            (x509.InhibitAnyPolicy(0), True),
            policies("1.2.3"),
        ]
    )
    refused([leaf(extensions=[policies(ANY)]), inhibiting, root()], "does not lead to the leaf")
    mapping = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.33"), b"\x30\x00")
    mapped = intermediate(extensions=[(mapping, True), (x509.PolicyConstraints(0, None), True)])
    refused([leaf(), mapped, root()], "mappings are not supported")


def test_namesakes_do_not_make_us_try_every_order() -> None:
    # Each of them signed by the same key: any order of any of them would be a path.
    same = [
        certificate(
            BETWEEN,
            key_of("between"),
            Maker(BETWEEN, key_of("between")),
            ca=True,
            extensions=[(x509.SubjectAlternativeName([DNS(f"n{n}.example.com")]), False)],
        )
        for n in range(98)
    ]
    refused([leaf(), *same, root()], "more than 100 signatures would have to be tried")


def test_a_circle_is_not_walked() -> None:
    one = certificate("One", key_of("one"), Maker(name_of("Two"), key_of("two")), ca=True)
    two = certificate("Two", key_of("two"), Maker(name_of("One"), key_of("one")), ca=True)
    end = leaf(maker=Maker(name_of("One"), key_of("one")))
    refused([end, one, two, root()], "nobody in the chain issued")


def test_what_is_no_certificate_is_refused() -> None:
    good = leaf().der
    for wrong in (b"", b"x", good[:-1], good + b"\x00", b"\x30\x00", b"\x30\x84\xff\xff\xff\xff"):
        with pytest.raises(ChainError, match="x509: "):
            Certificate(wrong)


def test_pem_is_read_in_its_order_and_written_on_one_line() -> None:
    chain = [leaf(), between(), root()]
    text = pem_of(chain)
    assert text.count("\n") == 8
    assert not text.endswith("\n")
    key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    assert [one.der for one in parse_pem_chain(key + text.encode() + b"\nnoise\n")] == [
        one.der for one in chain
    ]
    assert parse_pem_chain(b"nothing") == []
    for wrong in (text.replace("MII", "!!!", 1), text.replace("MII", "AAA", 1)):
        with pytest.raises(ChainError, match="certificate parser failed"):
            parse_pem_chain(wrong.encode())


def test_der_lengths_must_fit() -> None:
    for wrong in (
        b"",
        b"\x30",
        b"\x30\x02\x01",
        b"\x30\x80",
        b"\x30\x85\x00\x00\x00\x00\x00",
        b"\x30\x01\x05",
    ):
        with pytest.raises(ChainError, match="DER: "):
            der.children(wrong)
    with pytest.raises(ChainError, match="data after the element"):
        der.children(b"\x30\x00\x00")
    with pytest.raises(ChainError, match="without subject"):
        der.names_of(b"\x30\x00")
    assert der.children(b"\x30\x81\x04\x05\x00\x04\x00") == [b"\x05\x00", b"\x04\x00"]


def test_names_are_compared_as_they_are_written() -> None:
    printable = x509.Name(
        [x509.NameAttribute(x509.NameOID.COMMON_NAME, "Between", _ASN1Type.PrintableString)]
    )
    middle = certificate(printable, key_of("between"), ROOT_MAKER, ca=True)
    refused([leaf(), middle, root()], "nobody in the chain issued 'Leaf'")
    assert middle.common_name == between().common_name


def test_a_leaf_without_a_name_is_still_shown() -> None:
    nameless = certificate(x509.Name([]), key_of("leaf"), STRANGER)
    assert (nameless.common_name, nameless.shown) == ("", "''")
    assert chains.find_paths([nameless, nameless]) == [(nameless,)]
    assert datetime.datetime.now(datetime.UTC) > LONG_AGO


def test_an_odd_serial_number_is_refused_in_words_and_not_on_stderr() -> None:
    encoded = bytearray(leaf().der)
    # The serial number is the first integer of the certificate proper, after its version.
    at = encoded.index(b"\xa0\x03\x02\x01\x02\x02") + 7
    encoded[at] = 0x81
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ChainError, match="negative serial number"):
            Certificate(bytes(encoded))
