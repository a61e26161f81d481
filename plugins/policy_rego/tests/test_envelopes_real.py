"""Envelopes that real signing services and a real ledger made, and made ones of their shapes.

The real ones are github.com/microsoft/cosesign1go's, and stay there: COSESIGN1GO names
the folder ``pkg/cosesign1`` of a checkout; without it they are looked for beside the repository.
"""

from __future__ import annotations

import base64
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import made_envelopes as made
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from uvmd.api import LedgerKeys
from uvmd.errors import Refused
from uvmd_policy_rego.envelopes import headers, receipts
from uvmd_policy_rego.envelopes.envelope import open_envelope
from uvmd_policy_rego.envelopes.errors import EnvelopeError, ReceiptError
from uvmd_policy_rego.envelopes.reader import Reader
from uvmd_policy_rego.envelopes.trust_lists import parse_trust_list
from uvmd_policy_rego.ledgers import Ledgers

VARIABLE = "COSESIGN1GO"
BESIDE = Path(__file__).parents[4] / "shared/data/cosesign1go"


def find_real() -> Path | None:
    """Return the folder of the real envelopes. One that is named must be there."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return BESIDE if BESIDE.is_dir() else None


REAL = find_real()


@dataclass(frozen=True)
class Samples:
    """Four envelopes, the keys in the last of them, and what is known of them."""

    old: bytes
    hashed: bytes
    grafted: bytes
    trust_list: bytes
    published: Mapping[str, Any]
    old_issuer: str
    old_feed: str
    old_length: int
    usage: str
    feed: str
    svn: int
    ledger: str
    subject: str

    def __iter__(self) -> Iterator[bytes]:
        return iter((self.old, self.hashed, self.grafted, self.trust_list))


@functools.cache
def real() -> Samples:
    assert REAL is not None
    return Samples(
        (REAL / "esrp.test.cose").read_bytes(),
        (REAL / "esrp_transparent_hash_envelop.cose").read_bytes(),
        (REAL / "esrp_with_grafted_receipt.cose").read_bytes(),
        (REAL / "aci-cc-ttl.ttl.cose").read_bytes(),
        json.loads((REAL / "aci-cc-ttl.ttl.json").read_text()),
        old_issuer="did:x509:0:sha256:T3wuOi7RTvgBsJ9df38hYzZTcuj-AECHzLeS-882ops::subject:CN:Gen%20P",
        old_feed="KensHouseOfUVMImages",
        old_length=30,
        usage="1.3.6.1.4.1.311.76.59.1.2",
        feed="ContainerPlat-AMD-UVM",
        svn=104,
        ledger="esrp-cts-db.confidential-ledger.azure.com",
        subject="acidevacr.azurecr.io/internal/aci/aci-cc-ttl",
    )


@functools.cache
def made_ones() -> Samples:
    return Samples(
        *made.all_of_them(),
        made.published(),
        old_issuer="did:x509:0:sha256:",
        old_feed=made.OLD_FEED,
        old_length=len(made.OLD_TEXT),
        usage=made.OUR_USAGE,
        feed=made.IMAGE,
        svn=made.SVN,
        ledger=made.LEDGER,
        subject=made.SUBJECT,
    )


@pytest.fixture(scope="module", autouse=True)
def _told(not_checked: Callable[[str], None]) -> None:
    if REAL is None:
        not_checked(f"with the envelopes of real signing services: {VARIABLE} is unset, {BESIDE} is missing")


@pytest.fixture(params=[made_ones, *([real] if REAL else [])], ids=lambda one: one.__name__)
def samples(request: pytest.FixtureRequest) -> Samples:
    found: Samples = request.param()
    return found


def read(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")


def known(samples: Samples) -> LedgerKeys:
    """The ledgers' keys, once the list has come."""
    ledgers = Ledgers()
    found = Reader().trust_list(samples.trust_list)
    ledgers.merge(found.subject, found.keys)
    return ledgers.keys


def test_an_envelope_of_the_old_style_opens(samples: Samples) -> None:
    issuer, feed, code, svn, proven = Reader().fragment(samples.old, {})
    assert issuer.startswith(samples.old_issuer)
    assert (feed, len(code), svn, proven) == (samples.old_feed, samples.old_length, None, [])
    opened = open_envelope(samples.old)
    assert opened.algorithm == -35
    assert opened.content_type == "application/json"


def test_an_es384_signature_by_a_p256_key_opens(samples: Samples) -> None:
    # What the hash follows is the algorithm; libraries that take it from the curve refuse this one.
    found = open_envelope(samples.trust_list)
    assert (found.algorithm, found.chain[0].public_key.curve.name) == (-35, "secp256r1")
    assert len(found.message.signature) == 64


def test_a_hash_envelope_opens_and_its_receipt_proves_the_ledger(samples: Samples) -> None:
    issuer, feed, code, svn, proven = Reader().fragment(samples.hashed, known(samples))
    assert issuer.endswith(f"::eku:{samples.usage}")
    assert (feed, svn) == (samples.feed, samples.svn)
    assert proven == [{"issuer": samples.ledger, "ttl_subjects": [samples.subject]}]
    found = open_envelope(samples.hashed)
    assert (found.message.protected[headers.HASH_ALG], len(found.payload)) == (-43, 48)
    assert found.message.protected[headers.PREIMAGE_TYPE] == "application/octet-stream"
    assert code.encode("utf-8", "surrogateescape") == found.payload


def test_a_receipt_counts_only_after_its_ledgers_keys_came(samples: Samples) -> None:
    assert Reader().fragment(samples.hashed, {}).receipts == []


def test_a_grafted_receipt_proves_nothing_and_does_no_harm(samples: Samples) -> None:
    ledgers = known(samples)
    assert Reader().fragment(samples.grafted, ledgers).receipts == []
    envelope = open_envelope(samples.grafted)
    (receipt,) = envelope.receipts
    keys = {kid: key for kid, (key, _) in ledgers[receipt.issuer].items()}
    with pytest.raises(ReceiptError, match=r"leaf data-hash .* does not match"):
        receipts.validate(receipt, keys, envelope.message.statement_hash())


def test_the_trust_list_holds_the_published_keys(samples: Samples) -> None:
    found = parse_trust_list(open_envelope(samples.trust_list).payload)
    assert found.keys() == samples.published.keys()
    for ledger, entry in samples.published.items():
        assert {one["kid"] for one in entry["keys"]} == found[ledger].keys()
        for one in entry["keys"]:
            key = load_der_public_key(base64.b64decode(found[ledger][one["kid"]]))
            assert isinstance(key, ec.EllipticCurvePublicKey)
            assert key.curve.name.replace("secp", "P-").removesuffix("r1") == one["crv"]
            numbers = key.public_numbers()
            assert (numbers.x, numbers.y) == (read(one["x"]), read(one["y"]))


def test_a_changed_byte_is_never_taken_for_the_original(samples: Samples) -> None:
    for envelope in samples:
        original = open_envelope(envelope)
        for place in range(0, len(envelope), 211):
            changed = envelope[:place] + bytes((envelope[place] ^ 0x10,)) + envelope[place + 1 :]
            try:
                found = open_envelope(changed)
            except EnvelopeError:
                continue
            # Only the unprotected map is nobody's: everything that was signed is the same.
            assert (found.message.content, found.payload) == (original.message.content, original.payload)


def test_of_reference_info_the_envelope_is_checked(samples: Samples) -> None:
    Reader().reference_info(samples.hashed)
    with pytest.raises(Refused, match="InjectFragment failed COSE validation: "):
        Reader().reference_info(samples.hashed[:-1])
