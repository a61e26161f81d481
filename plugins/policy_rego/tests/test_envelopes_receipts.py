"""Receipts of ledgers and lists of their keys: what proves something, and what does not."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from ledgers import KID, LEDGER, attach, cose_key, der_of, proof, receipt, trust_list
from signers import key_of, signer

from uvmd_policy_rego.envelopes import cbor, receipts
from uvmd_policy_rego.envelopes.envelope import Envelope, open_envelope
from uvmd_policy_rego.envelopes.errors import EnvelopeError, ReceiptError, TrustListError
from uvmd_policy_rego.envelopes.receipts import compute_root, parse_receipts
from uvmd_policy_rego.envelopes.trust_lists import parse_trust_list

ENVELOPE = signer().sign(svn=1)
HASH = open_envelope(ENVELOPE).message.statement_hash()
KEYS = {KID: der_of(key_of("ledger"))}


def opened(*attached: bytes, envelope: bytes = ENVELOPE) -> Envelope:
    return open_envelope(attach(envelope, list(attached)))


def validate(one: bytes, keys: dict[str, str] = KEYS, envelope: bytes = ENVELOPE) -> None:
    found = opened(one, envelope=envelope)
    receipts.validate(found.receipts[0], keys, found.message.statement_hash())


def proves_nothing(reason: str, keys: dict[str, str] = KEYS, **fields: Any) -> None:
    with pytest.raises(ReceiptError, match=reason):
        validate(receipt(ENVELOPE, **fields), keys)


def test_a_receipt_proves_that_the_ledger_has_the_envelope() -> None:
    found = opened(receipt(ENVELOPE), receipt(ENVELOPE, kid=b"\xff"))
    assert [(one.issuer, one.kid) for one in found.receipts] == [(LEDGER, KID), (LEDGER, "ÿ")]
    validate(receipt(ENVELOPE))
    assert found.message.statement_hash() == HASH, "receipts do not change what was recorded"


def test_a_receipt_of_another_envelope_proves_nothing() -> None:
    other = signer().sign(svn=2)
    with pytest.raises(
        ReceiptError, match=r"inclusion proof 0: leaf data-hash .* does not match the expected"
    ):
        validate(receipt(other))
    with pytest.raises(EnvelopeError):
        opened(receipt(ENVELOPE), envelope=ENVELOPE[:-1] + bytes((ENVELOPE[-1] ^ 1,)))


def test_a_ledgers_key_must_be_known_and_its_own() -> None:
    proves_nothing(f"no key for kid {KID}", keys={})
    proves_nothing(
        r"inclusion proof 0: signature verification failed \(verification error\)", key=key_of("x")
    )
    proves_nothing(r"cose.NewVerifier \(algo -7\): ES256: invalid public key", keys={KID: "AAAA"})
    proves_nothing(r"cose.NewVerifier \(algo -7\)", keys={KID: der_of(key_of("e", "Ed25519"))})
    proves_nothing(r"cose.NewVerifier \(algo -8\)", protected={1: -8})


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"protected": {395: None}}, r"missing vds \(label 395\) in protected header"),
        ({"protected": {395: "2"}}, "vds has wrong type: string"),
        ({"protected": {395: True}}, "vds has wrong type: bool"),
        ({"protected": {395: 1}}, r"only receipts with CCF profile supported \(got vds 1\)"),
        ({"payload": b"x"}, "payload must be detached but has 1 bytes"),
        ({"payload": b""}, "payload must be detached but has 0 bytes"),
        ({"protected": {1: None}}, "missing algorithm in protected header"),
        ({"protected": {1: "ES256"}}, "algorithm has wrong type: string"),
        ({"vdp": []}, "vdp has wrong type"),
        ({"vdp": {-2: [b"x"]}}, r"no inclusion proofs \(key -1\) in vdp"),
        ({"proofs": b"x"}, "inclusion proofs has wrong type"),
        ({"proofs": []}, "inclusion proofs array is empty"),
        ({"proofs": [1]}, r"inclusion proof 0 is not a byte string \(got int64\)"),
        ({"proofs": [b"\xa0"]}, r"inclusion proof 0: missing leaf \(key 1\)"),
        ({"root": bytes(32)}, "signature verification failed"),
        ({"proofs": [proof(HASH)[0], proof(bytes(32))[0]]}, "inclusion proof 1: leaf data-hash"),
        ({"proofs": [proof(HASH, path=((False, bytes(32)),))[0]]}, "signature verification failed"),
    ],
)
def test_a_receipt_that_is_off_proves_nothing(fields: dict[str, Any], reason: str) -> None:
    proves_nothing(reason, **fields)


def test_missing_proofs_are_named() -> None:
    one = receipt(ENVELOPE)
    bare = b"\xd2\x84" + open_envelope(attach(ENVELOPE, [one])).receipts[0].message.elements[0]
    rest = open_envelope(attach(ENVELOPE, [one])).receipts[0].message.elements[1:]
    with pytest.raises(ReceiptError, match=r"missing vdp \(label 396\)"):
        validate(bare + b"\xa0" + b"".join(rest))


def test_several_proofs_of_the_same_root_hold_together() -> None:
    good = proof(HASH)[0]
    validate(receipt(ENVELOPE, proofs=[good, good]))


def test_the_envelopes_other_unprotected_headers_do_not_matter() -> None:
    one = receipt(ENVELOPE)
    first = open_envelope(attach(ENVELOPE, [one]))
    protected, payload, signature = first.message.elements
    extra = b"\xd2\x84" + protected + cbor.encode({394: [one], "note": 1, 4: b"k"}) + payload + signature
    again = open_envelope(extra)
    receipts.validate(again.receipts[0], KEYS, again.message.statement_hash())


@pytest.mark.parametrize(
    ("attached", "reason"),
    [
        ("x", r"receipts header is not an array \(got string\)"),
        ({1: 2}, "receipts header is not an array"),
        ([1], r"receipt 0 is not a byte string \(got int64\)"),
        ([receipt(ENVELOPE)] * 33, "33 receipts, at most 32 are read"),
        ([bytes(1 << 17)], "receipt 0 has 131072 bytes, at most 65536 are read"),
        ([b"x"], "receipt 0: parsing COSE_Sign1: cbor: invalid COSE_Sign1_Tagged object"),
        ([receipt(ENVELOPE), receipt(ENVELOPE, kid=None)], "receipt 1: kid header missing"),
        ([receipt(ENVELOPE, protected={15: None})], "receipt 0: CWT claims missing"),
        ([receipt(ENVELOPE, protected={15: 1})], r"receipt 0: CWT claims is not a map \(got int64\)"),
        ([receipt(ENVELOPE, protected={15: {}})], r"receipt 0: issuer \(iss\) claim missing from CWT claims"),
        ([receipt(ENVELOPE, issuer=b"x")], r"receipt 0: issuer is not a string \(got \[\]uint8\)"),
        ([receipt(ENVELOPE, kid=1)], "receipt 0: parsing COSE_Sign1: .*kid: require bstr type"),
        ([receipt(ENVELOPE) + b"\x00"], "receipt 0: parsing COSE_Sign1: .*extraneous"),
    ],
)
def test_a_receipt_that_is_not_well_formed_spoils_the_envelope(attached: Any, reason: str) -> None:
    with pytest.raises(EnvelopeError, match=f"parsing receipts: {reason}"):
        open_envelope(attach(ENVELOPE, attached))


def test_without_receipts_there_are_none() -> None:
    assert parse_receipts({}) == []
    assert opened().receipts == ()


GOOD_LEAF = [bytes(32), "ce", bytes(32)]
GOOD_PATH = [[True, bytes(32)]]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([], "decoding inclusion proof: not a map"),
        ({"a": 1}, "decoding inclusion proof: not a map with integers"),
        ({2: GOOD_PATH}, r"missing leaf \(key 1\)"),
        ({1: GOOD_LEAF}, r"missing path \(key 2\)"),
        ({1: 5, 2: GOOD_PATH}, "leaf must be a 3-element array, got int64 len -1"),
        ({1: [1], 2: GOOD_PATH}, "leaf must be a 3-element array, got .* len 1"),
        ({1: [b"x", "ce", bytes(32)], 2: GOOD_PATH}, "leaf.internal-transaction-hash must be a 32-byte bstr"),
        ({1: [bytes(32), b"ce", bytes(32)], 2: GOOD_PATH}, "leaf.internal-evidence must be a text tstr"),
        ({1: [bytes(32), "", bytes(32)], 2: GOOD_PATH}, "leaf.internal-evidence has invalid length 0"),
        ({1: [bytes(32), "x" * 1025, bytes(32)], 2: GOOD_PATH}, "has invalid length 1025"),
        ({1: [bytes(32), "ce", "x"], 2: GOOD_PATH}, "leaf.data-hash must be a 32-byte bstr, got string"),
        ({1: GOOD_LEAF, 2: {}}, "path must be an array"),
        ({1: GOOD_LEAF, 2: []}, "path must contain at least one element"),
        ({1: GOOD_LEAF, 2: [1]}, "path element 0 must be a 2-element array"),
        ({1: GOOD_LEAF, 2: [[1, bytes(32)]]}, "path element 0 left flag must be a bool"),
        ({1: GOOD_LEAF, 2: [[True, "x"]]}, "path element 0 hash must be a 32-byte bstr, got string"),
        ({1: GOOD_LEAF, 2: [*GOOD_PATH, [True, b"x"]]}, "path element 1 hash must be 32 bytes, got 1 bytes"),
    ],
)
def test_a_proof_of_another_shape_is_named(found: Any, reason: str) -> None:
    with pytest.raises(ReceiptError, match=reason):
        compute_root(cbor.encode(found))


def test_proofs_are_read_leniently_and_never_past_their_end() -> None:
    written, root = proof(HASH, more={3: "more"})
    assert compute_root(written) == (root, HASH)
    indefinite = b"\xbf" + written[1:] + b"\xff"
    assert compute_root(indefinite) == (root, HASH)
    with pytest.raises(ReceiptError, match=r"decoding inclusion proof: .*extraneous"):
        compute_root(written + b"\x00")


@given(st.binary(max_size=120))
def test_any_bytes_are_a_proof_or_refused(data: bytes) -> None:
    with contextlib.suppress(ReceiptError):
        compute_root(data)


# Trust lists


def test_a_trust_list_gives_the_keys_of_each_ledger() -> None:
    keys = {name: key_of(name, kind) for name, kind in (("p", "P-256"), ("q", "P-384"), ("r", "P-521"))}
    edwards = key_of("e", "Ed25519")
    listed = [cose_key(key, kid=name) for name, key in keys.items()]
    payload = trust_list(one_example=listed, two_example=[cose_key(edwards, kid="e", alg=-8)])
    assert parse_trust_list(payload) == {
        "one.example": {name: der_of(key) for name, key in keys.items()},
        "two.example": {"e": der_of(edwards)},
    }


GOOD = cose_key(key_of("ledger"))
X = GOOD[-2]


@pytest.mark.parametrize(
    "bad",
    [
        1,
        {},
        {2: b"k"},
        cose_key(key_of("ledger"), kid=None),
        cose_key(key_of("ledger"), kid=""),
        cose_key(key_of("ledger"), kty=3),
        cose_key(key_of("ledger"), kty="EC2"),
        cose_key(key_of("ledger"), kty=1),
        cose_key(key_of("ledger"), crv=8),
        cose_key(key_of("ledger"), crv="P-256"),
        cose_key(key_of("ledger"), crv=None),
        cose_key(key_of("ledger"), alg=-35),
        cose_key(key_of("ledger"), alg="ES256"),
        cose_key(key_of("ledger"), x=X + b"\x00"),
        cose_key(key_of("ledger"), x=b""),
        cose_key(key_of("ledger"), y=True),
        cose_key(key_of("ledger"), y=None),
        cose_key(key_of("ledger"), y=X),
        cose_key(key_of("ledger"), key_ops=["fly"]),
        cose_key(key_of("ledger"), key_ops=[[1]]),
        cose_key(key_of("ledger"), key_ops=[{}]),
        cose_key(key_of("ledger"), key_ops=1),
        cose_key(key_of("ledger"), base_iv=1),
        cose_key(key_of("e", "Ed25519"), x=b"short"),
        cose_key(key_of("e", "Ed25519"), alg=-7),
        {**GOOD, cbor.Tag(1, 1): 1},
    ],
)
def test_one_bad_key_is_passed_over_and_alone_it_spoils_the_list(bad: Any) -> None:
    if isinstance(bad, dict) and any(isinstance(label, cbor.Tag) for label in bad):
        raw = cbor.encode(GOOD)
        bad_bytes = bytes((raw[0] + 1,)) + raw[1:] + b"\x41\x00\x00"  # a label that is a byte string
    else:
        bad_bytes = cbor.encode(bad)
    good = cbor.encode(GOOD)
    entry = b"\xa1\x01\x82"
    both = b"\xa1\x61L" + entry + bad_bytes + good
    assert parse_trust_list(both) == {"L": {KID: der_of(key_of("ledger"))}}
    with pytest.raises(TrustListError, match=r'parsing COSE_KeySet for issuer "L": .*element 0'):
        parse_trust_list(b"\xa1\x61L\xa1\x01\x81" + bad_bytes)


def test_leading_zeros_of_coordinates_may_be_missing() -> None:
    numbers = ec.derive_private_key(43, ec.SECP256R1()).public_key().public_numbers()
    short = min((numbers.x, numbers.y))
    key = ec.derive_private_key(43, ec.SECP256R1())
    size = (short.bit_length() + 7) // 8
    assert size < 32, "a key with a short coordinate is needed here"
    coordinates = {"x": numbers.x, "y": numbers.y}
    cut = {name: n.to_bytes((n.bit_length() + 7) // 8, "big") for name, n in coordinates.items()}
    assert parse_trust_list(trust_list(L=[cose_key(key, **cut)])) == {"L": {KID: der_of(key)}}


def test_known_operations_do_no_harm() -> None:
    assert parse_trust_list(trust_list(L=[cose_key(key_of("ledger"), key_ops=[2, "verify"], alg=-7)]))


def test_the_first_of_two_keys_under_one_id_counts() -> None:
    listed = [cose_key(key_of("ledger")), cose_key(key_of("other ledger")), cose_key(key_of("ledger"))]
    assert parse_trust_list(trust_list(L=listed)) == {"L": {KID: der_of(key_of("ledger"))}}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "Failed to parse the TTL payload: "),
        (b"\xa0", "empty TTL payload"),
        (b"\x80", "Failed to parse the TTL payload: not a map"),
        (b"\xa1\x01\xa0", "Failed to parse the TTL payload: not a map with texts"),
        (b"\xa0\x00", "Failed to parse the TTL payload: .*extraneous"),
        (b"\xa1\x61L\x01", 'parsing LedgerEntry for issuer "L": not a map'),
        (b"\xa1\x61L\xa1\x61a\x01", 'parsing LedgerEntry for issuer "L": not a map'),
        (b"\xa1\x61L\xa1\x02\x80", r'LedgerEntry for issuer "L" is missing the keys attribute \(1\)'),
        (b"\xa1\x61L\xa1\x01\x80", 'parsing COSE_KeySet for issuer "L": empty COSE Key Set'),
        (b"\xa1\x61L\xa1\x01\xa0", "Failed to parse the COSE_KeySet: not an array"),
        (b"\xa1\x61L\xa1\x01\xa1\x01\x02", "Failed to parse the COSE_KeySet: not an array"),
        (b"\xa1\x61L\xa1\x01\x01", "Failed to parse the COSE_KeySet: not an array"),
    ],
)
def test_a_list_of_another_shape_is_named(payload: bytes, reason: str) -> None:
    with pytest.raises(TrustListError, match=reason):
        parse_trust_list(payload)


def test_one_bad_ledger_spoils_the_list() -> None:
    with pytest.raises(TrustListError, match='issuer "M"'):
        parse_trust_list(trust_list(L=[GOOD], M=[]))


@given(st.binary(max_size=120))
def test_any_bytes_are_a_list_or_refused(data: bytes) -> None:
    with contextlib.suppress(TrustListError):
        parse_trust_list(data)
