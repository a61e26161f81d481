"""Envelopes: what is signed as it should be opens, everything else says what is wrong with it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from signers import BETWEEN, CODE, FEED, Maker, between, certificate, key_of, leaf, root, signer

from uvmd_policy_rego.envelopes import cbor, cose, headers
from uvmd_policy_rego.envelopes.envelope import open_envelope
from uvmd_policy_rego.envelopes.errors import CborError, EnvelopeError
from uvmd_policy_rego.envelopes.signing import algorithm_for, parse_private_key, sign, signature_of, write

CHAIN = [one.der for one in signer().chain]


def protected(**changes: Any) -> dict[Any, Any]:
    """The usual protected headers; keys of changes are names of labels."""
    claims = {1: signer().did, 2: FEED, "svn": 1}
    usual: dict[Any, Any] = {1: -7, 3: "application/cose-x509+rego", 15: claims, 33: CHAIN}
    for name, value in changes.items():
        label = {"alg": 1, "crit": 2, "content_type": 3, "claims": 15, "type": 16, "x5chain": 33}.get(
            name, name
        )
        usual[label] = value
        if value is None:
            del usual[label]
    return usual


def written(header: dict[Any, Any], unprotected: dict[Any, Any] | None = None, **more: Any) -> bytes:
    return write(header, unprotected or {}, CODE.encode(), key_of("leaf"), "ES256", **more)


def refused(envelope: bytes, reason: str) -> None:
    with pytest.raises(EnvelopeError, match=reason):
        open_envelope(envelope)


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        *((curve, name) for curve in ("P-256", "P-384", "P-521") for name in ("ES256", "ES384", "ES512")),
        *(("RSA2048", name) for name in ("PS256", "PS384", "PS512")),
        ("Ed25519", "EdDSA"),
    ],
)
@pytest.mark.parametrize("old_style", [False, True])
def test_each_algorithm_opens_with_each_key_that_suits_it(kind: str, algorithm: str, old_style: bool) -> None:
    one = signer(kind)
    svn = None if old_style else 7
    found = open_envelope(one.sign(algorithm=algorithm, old_style=old_style, svn=svn))
    assert (found.issuer, found.feed, found.svn()) == (one.did, FEED, svn)
    assert (found.payload, found.algorithm) == (CODE.encode(), cose.NUMBERS[algorithm])
    assert found.content_type == "application/cose-x509+rego"
    assert [found.chain[0].common_name, found.receipts] == ["Leaf", ()]


@pytest.mark.parametrize(
    ("kind", "algorithm", "reason"),
    [
        ("P-256", -37, "PS256: invalid public key"),
        ("P-256", -8, "EdDSA: invalid public key"),
        ("RSA2048", -7, "ES256: invalid public key"),
        ("Ed25519", -35, "ES384: invalid public key"),
        ("P-256", -257, "RS256: no built-in implementation available: algorithm not supported"),
        ("P-256", -65535, r"Verifier for Algorithm\(-65535\): unknown algorithm: algorithm not supported"),
        ("P-256", 0, "Verifier for Reserved: can't be implemented"),
        ("P-256", 7, "unknown algorithm"),
    ],
)
def test_another_algorithm_than_the_keys_is_refused(kind: str, algorithm: int, reason: str) -> None:
    one = signer(kind)
    header = protected(alg=algorithm, x5chain=[cert.der for cert in one.chain])
    refused(write(header, {}, b"x", one.key, algorithm_for(one.key)), reason)


def test_a_short_rsa_key_is_refused() -> None:
    key = key_of("short", "RSA1024")
    chain = [leaf(key).der, between().der, root().der]
    refused(write(protected(alg=-37, x5chain=chain), {}, b"x", key, "PS256"), "at least 2048 bits long")


def test_a_key_on_another_curve_is_refused() -> None:
    key = key_of("koblitz", "K-256")
    chain = [leaf(key).der, between().der, root().der]
    refused(written(protected(x5chain=chain)), "ES256: invalid public key")


def test_a_signature_by_another_or_changed_is_refused() -> None:
    envelope = signer().sign(svn=1)
    place = envelope.index(b"package")
    refused(envelope[:place] + b"P" + envelope[place + 1 :], "verification error")
    refused(envelope[:-1] + bytes((envelope[-1] ^ 1,)), "verification error")
    refused(write(protected(), {}, b"x", key_of("another"), "ES256"), "verification error")
    place = envelope.index(FEED.encode())
    refused(envelope[:place] + b"E" + envelope[place + 1 :], "verification error")


@pytest.mark.parametrize("length", [1, 63, 65, 96])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    parts = [cbor.encode(protected()), {}, b"x", bytes(length)]
    refused(cbor.encode(cbor.Tag(18, parts)), "verification error")
    refused(cbor.encode(cbor.Tag(18, [*parts[:3], b""])), "empty signature")
    refused(cbor.encode(cbor.Tag(18, [*parts[:3], None])), "empty signature")


def test_the_unprotected_map_is_not_signed_and_not_consulted() -> None:
    envelope = written(protected(), {"note": "x", 33: b"no certificate", 4: b"k", 15: 7})
    assert open_envelope(envelope).issuer == signer().did
    refused(written(protected(x5chain=None), {33: CHAIN}), "x5Chain missing")
    refused(written(protected(alg=None), {1: -7}), "algorithm missing")


def test_a_detached_payload_is_refused_and_an_empty_one_is_not() -> None:
    header, key = protected(), key_of("leaf")
    refused(write(header, {}, None, key, "ES256", detached=b"x"), "missing payload")
    assert open_envelope(write(header, {}, b"", key, "ES256")).payload == b""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"alg": "ES256"}, "algorithm wrong type"),
        ({"alg": b"x"}, "alg: require int / tstr type"),
        ({"alg": True}, "alg: require int / tstr type"),
        ({"x5chain": []}, "x5Chain wrong type"),
        ({"x5chain": "x"}, "x5Chain wrong type"),
        ({"x5chain": [CHAIN[0], 1]}, "x5Chain wrong type"),
        ({"x5chain": [CHAIN[0], b""]}, "x509: "),
        ({"x5chain": [CHAIN[0], CHAIN[1][:-1]]}, "x509: "),
        ({"x5chain": [CHAIN[0] + b"\x00", *CHAIN[1:]]}, "x509: "),
        ({"x5chain": CHAIN * 34}, r"unreasonable number of certs \(102\)"),
        ({"claims": 1}, "expected CWTClaims header to be a map"),
        ({"claims": []}, "expected CWTClaims header to be a map"),
        ({"crit": []}, "crit: require a non-empty array"),
        ({"crit": 1}, "crit: require a non-empty array"),
        ({"crit": ["absent"]}, "missing critical header 'absent'"),
        ({"crit": [b"x"]}, "crit: a label of type"),
        ({"content_type": ""}, "content type: require non-empty string"),
        ({"content_type": " a/b"}, "no leading/trailing whitespace"),
        ({"content_type": "rego"}, "require text of form type/subtype"),
        ({"content_type": "a/b/c"}, "require text of form type/subtype"),
        ({"content_type": -1}, "content type: require tstr / uint type"),
        ({"type": "x"}, "type: require text of form type/subtype"),
        ({"type": b"a/b"}, "type: require tstr / uint type"),
    ],
)
def test_a_header_of_another_shape_is_refused_by_name(changes: dict[str, Any], reason: str) -> None:
    refused(written(protected(**changes)), reason)


@pytest.mark.parametrize(
    ("label", "value", "reason"),
    [
        (4, "text", "kid: require bstr type"),
        (5, 1, "IV: require bstr type"),
        (2, [1], "crit: not allowed"),
        (7, 1, "counter signature: not one and not a list of them"),
        (7, [], "counter signature: not one"),
        (7, [b"", {}, b""], "counter signature: empty signature"),
        (11, [b"\x01", {}, b"s"], "countersignature version 2|protected header"),
        (9, "x", "countersignature0: require bstr type"),
        (3, "x", "content type"),
        (1 << 63, 0, "above 2"),
    ],
)
def test_an_unprotected_header_of_another_shape_spoils_the_message(
    label: int, value: Any, reason: str
) -> None:
    refused(written(protected(), {label: value}), f"invalid unprotected header: .*({reason})")


def test_countersignatures_belong_in_the_unprotected_map() -> None:
    one = [b"", {}, b"signature"]
    assert open_envelope(written(protected(), {7: one, 11: [one, one], 9: b"s", 12: b"s"}))
    for label in (7, 9, 11, 12):
        refused(written(protected() | {label: one}), "invalid protected header: .*not allowed")


def test_iv_and_partial_iv_do_not_come_together_even_in_two_maps() -> None:
    both = "IV and PartialIV: parameters must not both be present"
    refused(written(protected() | {5: b"a", 6: b"b"}), both)
    refused(written(protected() | {5: b"a"}, {6: b"b"}), both)
    assert open_envelope(written(protected() | {5: b"a"}, {}))


def raw(*parts: bytes, prefix: bytes = b"\xd2\x84") -> bytes:
    return prefix + b"".join(parts)


def test_whatever_is_no_tagged_message_is_refused() -> None:
    envelope = signer().sign(svn=1)
    for other in (b"", b"\xd2", envelope[1:], b"\xd8\x12" + envelope[1:], b"\xd2\x83" + envelope[2:], b"{}"):
        refused(other, "cbor: invalid COSE_Sign1_Tagged object")
    refused(b"\xd2\x9f" + envelope[2:] + b"\xff", "invalid COSE_Sign1_Tagged object")
    refused(b"\xd2\xd2\x84" + envelope[2:], "invalid COSE_Sign1_Tagged object")
    refused(envelope + b"\x00", "1 bytes of extraneous data")
    refused(envelope + envelope, "extraneous data")


def test_a_message_that_ends_early_is_refused_wherever_it_ends() -> None:
    envelope = signer().sign(svn=1)
    for end in range(len(envelope)):
        with pytest.raises(CborError):
            open_envelope(envelope[:end])


def test_parts_of_another_type_are_refused() -> None:
    content, signature = cbor.encode(cbor.encode(protected())), b"\x41\x00"
    refused(raw(b"\xa0", b"\xa0", b"\x40", signature), "protected header: require bstr type")
    refused(raw(b"\xf6", b"\xa0", b"\x40", signature), "protected header: require bstr type")
    refused(raw(content, b"\x80", b"\x40", signature), "unprotected header: require map type")
    refused(raw(content, b"\xa0", b"\x60", signature), "payload: require bstr type")
    refused(raw(content, b"\xa0", b"\xf7", signature), "payload: require bstr type")
    refused(raw(content, b"\xa0", b"\x40", b"\x61x"), "signature: require bstr type")
    refused(raw(b"\x41\x80", b"\xa0", b"\x40", signature), "protected header: require map type")
    refused(raw(b"\x40", b"\xa0", b"\x40", signature), "algorithm missing")
    refused(raw(b"\x42\xa0\x00", b"\xa0", b"\x40", signature), "invalid protected header: .*extraneous")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("a201260126", "duplicate map key 1"),
        ("a20126180126", "duplicate map key 1"),
        ("a1410026", "invalid map key"),
        ("bf0126ff", "indefinite-length"),
        ("a1015f41ff", "indefinite-length"),
        ("a1f526", "header label True: require int / tstr type"),
        ("a10fa201000100", "duplicate map key 1"),
        ("a1616181ff", "invalid simple value"),
        ("a13bffffffffffffffff26", "require int / tstr type"),
        ("a10fa1011b8000000000000000", "above 2"),
    ],
)
def test_ambiguous_headers_are_refused_in_both_maps(header: str, reason: str) -> None:
    data = bytes.fromhex(header)
    refused(raw(cbor.encode(data), b"\xa0", b"\x40", b"\x41\x00"), f"invalid protected header: .*({reason})")
    refused(raw(b"\x40", data, b"\x40", b"\x41\x00"), f"invalid unprotected header: .*({reason})")


def test_tags_are_for_the_protected_map_only() -> None:
    envelope = written(protected(claims={1: signer().did, 2: FEED, 6: cbor.Tag(1, 1_700_000_000)}))
    assert open_envelope(envelope).feed == FEED
    refused(written(protected(), {"when": cbor.Tag(1, 1)}), "CBOR tag isn't allowed")
    refused(written(protected(), {"when": [{"deep": cbor.Tag(1, 1)}]}), "CBOR tag isn't allowed")


def test_lengths_in_longer_form_are_read_and_signed_in_shortest() -> None:
    content = cbor.encode(protected())
    signature = signature_of(key_of("leaf"), "ES256", cose.signed_bytes(content, b"x"))
    long = b"\x5a" + len(content).to_bytes(4, "big") + content
    envelope = raw(long, b"\xa0", b"\x58\x01x", cbor.encode(signature))
    assert open_envelope(envelope).payload == b"x"
    # What a ledger records is the message as it came.
    assert open_envelope(envelope).message.elements[0] == long


def test_huge_messages_are_read_once_and_refused_cheaply() -> None:
    payload = bytes(12 << 20)
    refused(raw(cbor.encode(cbor.encode(protected())), b"\xa0", cbor.encode(payload), b"\x41\x00"), "verif")
    refused(raw(b"\x5b" + b"\xff" * 8), "in the middle of an item")
    refused(raw(b"\x40", b"\xbb" + b"\xff" * 8), "more than 131072 entries")
    refused(raw(b"\x40", b"\xa1\x00" + b"\x81" * 100_000), "nested deeper than 32 levels")
    many = {n: 0 for n in range(1000, 131072 + 1001)}
    refused(raw(b"\x40", cbor.encode(many), b"\x40", b"\x41\x00"), "more than 131072 entries")


def test_a_message_of_nothing_but_small_items_is_not_read_to_its_end() -> None:
    row = b"\x9a\x00\x01\x00\x00" + b"\x00" * 65536
    began = time.process_time()
    refused(raw(b"\x40", b"\xa1\x00\x98\xb0" + row * 176), "more than 262144 items")
    refused(raw(b"\x40", b"\xa1\x00\x98\xb0" + b"\x80" * 12_000_000), "extraneous|items|require bstr")
    assert time.process_time() - began < 2


def test_issuer_and_feed_come_from_claims_or_old_labels_never_both() -> None:
    both = protected() | {"iss": "old", "feed": "old feed"}
    assert open_envelope(written(both)).issuer == signer().did
    empty = protected(claims={}) | {"iss": "old", "feed": "old feed"}
    found = open_envelope(written(empty))
    assert (found.issuer, found.feed, found.svn()) == ("", "", None)
    old = protected(claims=None) | {"iss": "old", "feed": 7}
    found = open_envelope(written(old))
    assert (found.issuer, found.feed, found.svn()) == ("old", "", None)
    assert open_envelope(written(protected(content_type=7))).content_type == ""


@pytest.mark.parametrize("svn", [0, -1, 5, (1 << 63) - 1, -(1 << 63)])
def test_an_svn_of_64_bits_is_taken(svn: int) -> None:
    assert open_envelope(written(protected(claims={"svn": svn}))).svn() == svn


@pytest.mark.parametrize(
    ("svn", "kind"),
    [("1", "string"), (None, "<nil>"), (True, "bool"), ([1], "interface"), (-(1 << 63) - 1, "big.Int")],
)
def test_an_svn_of_another_type_is_refused(svn: Any, kind: str) -> None:
    envelope = open_envelope(written(protected(claims={"svn": svn})))
    with pytest.raises(
        EnvelopeError, match=f"failed to convert it to int64: expected integer type, got .*{kind}"
    ):
        envelope.svn()


def test_a_single_certificate_opens_and_resolves_to_nothing() -> None:
    alone = certificate("Alone", key_of("leaf"))
    for found in (alone.der, [alone.der]):
        envelope = open_envelope(written(protected(x5chain=found)))
        assert [one.common_name for one in envelope.chain] == ["Alone"]


def test_a_swapped_or_foreign_chain_is_refused() -> None:
    refused(written(protected(x5chain=CHAIN[::-1])), "certificate chain verification failed - ")
    refused(
        written(protected(x5chain=[CHAIN[1], CHAIN[0], CHAIN[2]])), "chain verification failed|verification"
    )
    other = certificate("Root", key_of("another root"), ca=True)
    refused(written(protected(x5chain=[*CHAIN[:2], other.der])), "chain verification failed - ")
    foreign = leaf(key_of("another"), maker=Maker(BETWEEN, key_of("between")))
    refused(written(protected(x5chain=[foreign.der, *CHAIN[1:]])), "verification error")


def test_signing_refuses_what_no_daemon_would_take() -> None:
    one = signer()
    fields = {"issuer": one.did, "feed": FEED}

    def fails(reason: str, key: Any = one.key, chain: Any = one.chain, **changes: Any) -> None:
        with pytest.raises(EnvelopeError, match=reason):
            sign(b"x", key, chain, **(fields | changes))

    fails("not that of the first certificate", key=key_of("another"))
    fails("DID verification failed", issuer="did:x509:0:sha256:x::subject:CN:Leaf")
    fails("an issuer and a feed", feed="")
    fails("no place for an SVN", old_style=True, svn=1)
    fails("unknown algorithm ES1", algorithm="ES1")
    fails("PS256: invalid public key", algorithm="PS256")
    fails("no certificate chain", chain=())
    fails("certificate chain too short", chain=one.chain[:1])


def test_private_keys_are_read_without_being_quoted() -> None:
    one = signer()
    assert parse_private_key(one.key_pem).public_key() == one.key.public_key()
    for wrong in (b"", b"s3cret", one.pem, one.key_pem[:-40]):
        with pytest.raises(EnvelopeError, match="the private key cannot be read") as caught:
            parse_private_key(wrong)
        assert "s3cret" not in str(caught.value)
    with pytest.raises(EnvelopeError, match="of this kind"):
        algorithm_for(key_of("koblitz", "K-256"))


def test_labels_have_names_for_people() -> None:
    assert headers.NAMES[33] == "x5chain"
    assert headers.kid_text(b"\xff" + "ä".encode()) != headers.kid_text("ÿä".encode())
