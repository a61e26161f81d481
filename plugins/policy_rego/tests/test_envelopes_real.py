"""Envelopes that real signing services and a real ledger made (data/cosesign1go)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from uvmd.errors import PolicyDenied
from uvmd_policy_rego.envelopes import headers, load, receipts
from uvmd_policy_rego.envelopes.envelope import open_envelope
from uvmd_policy_rego.envelopes.errors import EnvelopeError, ReceiptError
from uvmd_policy_rego.envelopes.trust_lists import parse_trust_list

DATA = Path(__file__).parent / "data/cosesign1go"
OLD, HASHED, GRAFTED, TRUST_LIST = (
    (DATA / name).read_bytes()
    for name in (
        "esrp.test.cose",
        "esrp_transparent_hash_envelop.cose",
        "esrp_with_grafted_receipt.cose",
        "aci-cc-ttl.ttl.cose",
    )
)
LEDGER = "esrp-cts-db.confidential-ledger.azure.com"


def read(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")


class Noted:
    """Stands in for the enforcer."""

    def __init__(self) -> None:
        self.keys: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {}
        self.fragments: list[tuple[str, str, str, int | None, list[dict[str, Any]]]] = []

    def load_validated_fragment(
        self,
        issuer: str,
        feed: str,
        code: str,
        header_svn: int | None,
        receipts: Sequence[Mapping[str, Any]],
    ) -> None:
        self.fragments.append((issuer, feed, code, header_svn, [dict(one) for one in receipts]))

    def load_validated_trust_list(
        self, issuer: str, subject: str, svn: int, keys: Mapping[str, Mapping[str, str]]
    ) -> None:
        self.keys = {
            ledger: {kid: (key, (subject,)) for kid, key in of.items()} for ledger, of in keys.items()
        }

    def ledger_keys(self) -> dict[str, dict[str, tuple[str, tuple[str, ...]]]]:
        return self.keys


def test_an_envelope_of_the_old_style_opens() -> None:
    policy = Noted()
    load.load(policy, OLD, "")
    ((issuer, feed, code, svn, proven),) = policy.fragments
    assert issuer.startswith(
        "did:x509:0:sha256:T3wuOi7RTvgBsJ9df38hYzZTcuj-AECHzLeS-882ops::subject:CN:Gen%20P"
    )
    assert (feed, len(code), svn, proven) == ("KensHouseOfUVMImages", 30, None, [])
    opened = open_envelope(OLD)
    assert opened.algorithm == -35
    assert opened.content_type == "application/json"


def test_an_es384_signature_by_a_p256_key_opens() -> None:
    # What the hash follows is the algorithm; libraries that take it from the curve refuse this one.
    found = open_envelope(TRUST_LIST)
    assert (found.algorithm, found.chain[0].public_key.curve.name) == (-35, "secp256r1")
    assert len(found.message.signature) == 64


def test_a_hash_envelope_opens_and_its_receipt_proves_the_ledger() -> None:
    policy = Noted()
    load.load(policy, TRUST_LIST, load.TRUST_LIST)
    load.load(policy, HASHED, "")
    ((issuer, feed, code, svn, proven),) = policy.fragments
    assert issuer.endswith("::eku:1.3.6.1.4.1.311.76.59.1.2")
    assert (feed, svn) == ("ContainerPlat-AMD-UVM", 104)
    assert proven == [{"issuer": LEDGER, "ttl_subjects": ["acidevacr.azurecr.io/internal/aci/aci-cc-ttl"]}]
    protected = open_envelope(HASHED).message.protected
    assert (protected[headers.HASH_ALG], len(open_envelope(HASHED).payload)) == (-43, 48)
    assert protected[headers.PREIMAGE_TYPE] == "application/octet-stream"
    assert len(code) == 48


def test_a_receipt_counts_only_after_its_ledgers_keys_came() -> None:
    policy = Noted()
    load.load(policy, HASHED, "")
    assert policy.fragments[0][-1] == []


def test_a_grafted_receipt_proves_nothing_and_does_no_harm() -> None:
    policy = Noted()
    load.load(policy, TRUST_LIST, load.TRUST_LIST)
    load.load(policy, GRAFTED, "")
    assert policy.fragments[0][-1] == []
    envelope = open_envelope(GRAFTED)
    (receipt,) = envelope.receipts
    keys = {kid: key for kid, (key, _) in policy.keys[receipt.issuer].items()}
    with pytest.raises(ReceiptError, match=r"leaf data-hash .* does not match"):
        receipts.validate(receipt, keys, envelope.message.statement_hash())


def test_the_trust_list_holds_the_published_keys() -> None:
    published = json.loads((DATA / "aci-cc-ttl.ttl.json").read_text())
    found = parse_trust_list(open_envelope(TRUST_LIST).payload)
    assert found.keys() == published.keys()
    for ledger, entry in published.items():
        assert {one["kid"] for one in entry["keys"]} == found[ledger].keys()
        for one in entry["keys"]:
            key = load_der_public_key(base64.b64decode(found[ledger][one["kid"]]))
            assert isinstance(key, ec.EllipticCurvePublicKey)
            assert key.curve.name.replace("secp", "P-").removesuffix("r1") == one["crv"]
            numbers = key.public_numbers()
            assert (numbers.x, numbers.y) == (read(one["x"]), read(one["y"]))


@pytest.mark.parametrize("envelope", [OLD, HASHED, GRAFTED, TRUST_LIST], ids=len)
def test_a_changed_byte_of_a_real_envelope_is_never_taken_for_the_original(envelope: bytes) -> None:
    original = open_envelope(envelope)
    for place in range(0, len(envelope), 211):
        changed = envelope[:place] + bytes((envelope[place] ^ 0x10,)) + envelope[place + 1 :]
        try:
            found = open_envelope(changed)
        except EnvelopeError:
            continue
        # Only the unprotected map is nobody's: everything that was signed is the same.
        assert (found.message.content, found.payload) == (original.message.content, original.payload)


def test_reference_info_is_checked_and_not_offered() -> None:
    policy = Noted()
    for media_type in load.REFERENCE_INFO:
        load.load(policy, HASHED, media_type)
        with pytest.raises(PolicyDenied, match="InjectFragment failed COSE validation: "):
            load.load(policy, HASHED[:-1], media_type)
    assert policy.fragments == []
