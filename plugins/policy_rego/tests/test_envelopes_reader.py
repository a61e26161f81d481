"""From an envelope to a rule in force: what gate and enforcer take, and that a refusal changes nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import enforcers
import policies
import pytest
from enforcers import inject
from ledgers import KID, LEDGER, attach, cose_key, receipt, trust_list
from policies import container, policy
from signers import FEED, Signer, certificate, key_of, leaf, signer

from uvmd.errors import Refused
from uvmd_policy_rego.enforcer import RegoEnforcer
from uvmd_policy_rego.envelopes.signing import write

FRAGMENTS = ("", "application/cose-x509+rego")
TRUST_LIST = "application/vnd.transparency-trust-list.v1+cose"
TCB, PLATFORM = (f"application/vnd.{kind}-reference-info.v1+cose" for kind in ("tcb", "platform"))
COSE_FAILED = "^InjectFragment failed COSE validation: "


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    enforcers.close_all()


def fragment(svn: str | None = None, more: str = "", **lists: Any) -> str:
    lists = {"containers": [container(layers=["extra"])]} | lists
    text = 'package extra\nframework_version := "0.5.0"\n'
    text += "" if svn is None else f"svn := {svn}\n"
    return text + "".join(f"{name} := {json.dumps(value)}\n" for name, value in lists.items()) + more


def importing(*changes: dict[str, Any], **more: Any) -> RegoEnforcer:
    usual = {"issuer": signer().did, "feed": FEED, "minimum_svn": "2", "includes": ["containers"]}
    return enforcers.enforcer(policy(fragments=[usual | one for one in changes or ({},)], **more))


def knows_extra(enforcer: RegoEnforcer) -> bool:
    return enforcer.decide("mount_device", policies.device("extra", 5)).allowed


def refused(enforcer: RegoEnforcer, blob: bytes, reason: str, media_type: str = "") -> None:
    """The artefact is refused for this reason, and the enforcer is as it was."""
    before, keys = enforcer.dump_state(), enforcer.ledger_keys()
    with pytest.raises(Refused, match=reason):
        inject(enforcer, blob, media_type)
    assert (enforcer.dump_state(), enforcer.ledger_keys()) == (before, keys)


@pytest.mark.parametrize("media_type", FRAGMENTS)
@pytest.mark.parametrize("kind", ["P-256", "RSA2048", "Ed25519"])
def test_a_signed_fragment_adds_its_containers(media_type: str, kind: str) -> None:
    enforcer = importing({"issuer": signer(kind).did})
    assert not knows_extra(enforcer)
    inject(enforcer, signer(kind).sign(fragment(), svn=2), media_type)
    assert knows_extra(enforcer)


def test_an_envelope_of_the_old_style_has_its_svn_in_the_text() -> None:
    enforcer = importing()
    refused(
        enforcer, signer().sign(fragment("1"), old_style=True), "fragment svn is below the specified minimum"
    )
    inject(enforcer, signer().sign(fragment("2"), old_style=True))
    assert knows_extra(enforcer)


def test_the_svn_of_the_header_decides_before_the_text_is_read() -> None:
    enforcer = importing()
    refused(enforcer, signer().sign("no rego at all", svn=1), "package definition required|svn is below")
    refused(enforcer, signer().sign("package extra\nno rego at all", svn=1), "does not allow load_fragment")
    refused(enforcer, signer().sign(fragment("3"), svn=2), "not the same|svn")
    refused(enforcer, signer().sign(fragment(), svn=None), "svn|defined")


def test_another_issuer_or_feed_is_denied_without_reading_the_text() -> None:
    enforcer = importing()
    garbage = "package extra\n!! not rego"
    other = Signer(key_of("other"), (leaf(key_of("other"), name="Other"), *signer().chain[1:]))
    refused(enforcer, other.sign(garbage, svn=2), "invalid fragment issuer")
    refused(enforcer, signer().sign(garbage, svn=2, feed="another"), "invalid fragment feed")
    refused(enforcer, signer().sign(garbage, svn=2), "rego compilation failed|error")


def test_text_that_is_no_text_is_refused_after_the_issuer_was_judged() -> None:
    enforcer = importing()
    binary = b"package extra\n# \xff\xfe\nsvn := 2\n"
    refused(enforcer, signer().sign(binary, svn=2, feed="another"), "invalid fragment feed")
    refused(enforcer, signer().sign(binary, svn=2), "utf-8|UTF-8|compilation")


def test_the_issuer_must_hold_for_the_chain() -> None:
    one = signer()
    enforcer = importing()
    claims = {1: one.did.replace("CN:Leaf", "CN:Other"), 2: FEED, "svn": 2}
    header = {1: -7, 33: [cert.der for cert in one.chain], 15: claims}
    wrong = write(header, {}, fragment().encode(), one.key, "ES256")
    refused(
        enforcer, wrong, "^failed to resolve DID: DID verification failed: invalid subject value: CN=Other"
    )
    claims[1] = "example.com"
    refused(
        enforcer,
        write(header, {}, fragment().encode(), one.key, "ES256"),
        "^failed to resolve DID: DID verification failed: invalid DID string",
    )


def test_a_reason_is_not_as_long_as_a_stranger_wants() -> None:
    one = signer()
    claims = {1: one.did.replace("CN:Leaf", "CN:" + "x" * 1_000_000), 2: FEED}
    blob = write({1: -7, 33: [cert.der for cert in one.chain], 15: claims}, {}, b"x", one.key, "ES256")
    with pytest.raises(Refused, match="failed to resolve DID: ") as caught:
        inject(importing(), blob)
    assert len(str(caught.value)) < 1100


@pytest.mark.parametrize(
    "claims", [{}, {1: "x"}, {2: FEED}, {1: "", 2: FEED}, {1: "x", 2: 5}, {1: b"x", 2: FEED}]
)
def test_issuer_and_feed_are_both_needed(claims: dict[Any, Any]) -> None:
    one = signer()
    header = {1: -7, 33: [cert.der for cert in one.chain], 15: claims, "iss": one.did, "feed": FEED}
    blob = write(header, {}, fragment().encode(), one.key, "ES256")
    refused(
        importing(), blob, "^either issuer and feed must both be provided in the COSE_Sign1 protected header"
    )


def test_a_broken_envelope_is_refused_under_every_media_type() -> None:
    enforcer = importing()
    good = signer().sign(fragment(), svn=2)
    for media_type in (*FRAGMENTS, TRUST_LIST, TCB, PLATFORM):
        refused(enforcer, good[:-1], COSE_FAILED + "cbor: ", media_type)
        refused(enforcer, good[:-1] + b"\x00", COSE_FAILED + "verification error", media_type)
        refused(enforcer, b"", COSE_FAILED + "cbor: invalid COSE_Sign1_Tagged object", media_type)


def test_an_svn_of_another_type_is_refused() -> None:
    one = signer()
    header = {1: -7, 33: [cert.der for cert in one.chain], 15: {1: one.did, 2: FEED, "svn": "2"}}
    blob = write(header, {}, fragment().encode(), one.key, "ES256")
    refused(importing(), blob, "^SVN present in CWT claims, but failed to convert it to int64")


def test_a_single_certificate_is_refused_and_not_a_crash() -> None:
    alone = certificate("Leaf", key_of("leaf"))
    header = {1: -7, 33: alone.der, 15: {1: signer().did, 2: FEED, "svn": 2}}
    blob = write(header, {}, fragment().encode(), key_of("leaf"), "ES256")
    refused(importing(), blob, "failed to resolve DID: .*certificate chain too short")


def test_unknown_media_types_are_refused_by_name() -> None:
    blob = signer().sign(fragment(), svn=2)
    refused(importing(), blob, 'unsupported media type "text/plain"', "text/plain")


def test_reference_info_needs_no_issuer_and_asks_nobody() -> None:
    enforcer = importing()
    before = enforcer.dump_state()
    nobody = write({1: -7, 33: [cert.der for cert in signer().chain]}, {}, b"x", signer().key, "ES256")
    for media_type in (TCB, PLATFORM):
        inject(enforcer, nobody, media_type)
    assert enforcer.dump_state() == before


# Receipts and trust lists

LISTS = {"issuer": signer().did, "subject": "lists", "minimum_svn": "1", "allowed_ledgers": [LEDGER]}


def trusting(**import_changes: Any) -> RegoEnforcer:
    return importing(import_changes, transparency_trust_lists=[LISTS])


def signed_list(svn: int | None = 1, subject: str = "lists", payload: bytes | None = None) -> bytes:
    ledgers = {
        LEDGER.replace(".", "_"): [cose_key(key_of("ledger"))],
        "other_example": [cose_key(key_of("o"))],
    }
    return signer().sign(trust_list(**ledgers) if payload is None else payload, svn=svn, feed=subject)


def with_receipt(**fields: Any) -> bytes:
    envelope = signer().sign(fragment(), svn=2)
    return attach(envelope, [receipt(envelope, **fields)])


def test_a_required_receipt_lets_a_fragment_in_once_the_ledgers_keys_are_known() -> None:
    enforcer = trusting(required_receipts=[LEDGER, "TTL:lists", "*"])
    refused(enforcer, with_receipt(), "receipt")
    inject(enforcer, signed_list(), TRUST_LIST)
    keys = enforcer.ledger_keys()
    assert list(keys) == [LEDGER], "the other ledger is not allowed to this list"
    assert list(keys[LEDGER]) == [KID]
    assert keys[LEDGER][KID][1] == ("lists",)
    refused(enforcer, signer().sign(fragment(), svn=2), "receipt")
    inject(enforcer, with_receipt())
    assert knows_extra(enforcer)


@pytest.mark.parametrize(
    "fields", [{"key": key_of("forger")}, {"issuer": "other.example"}, {"kid": b"other"}, {"root": bytes(32)}]
)
def test_a_receipt_that_proves_nothing_counts_for_nothing(
    fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    enforcer = trusting(required_receipts=[LEDGER])
    inject(enforcer, signed_list(), TRUST_LIST)
    with caplog.at_level(logging.WARNING):
        refused(enforcer, with_receipt(**fields), "receipt")
    # Where none is required it does no harm.
    lax = trusting()
    inject(lax, signed_list(), TRUST_LIST)
    inject(lax, with_receipt(**fields))
    assert knows_extra(lax)


def test_a_receipt_that_is_not_well_formed_spoils_the_fragment() -> None:
    envelope = signer().sign(fragment(), svn=2)
    blob = attach(envelope, [b"x"])
    refused(trusting(), blob, f"{COSE_FAILED}parsing receipts: receipt 0: parsing COSE_Sign1: ")


def test_a_trust_list_is_judged_by_the_policy() -> None:
    enforcer = trusting()
    refused(
        enforcer,
        signed_list(svn=None),
        "^transparency trust list is missing an SVN in its CWT claims",
        TRUST_LIST,
    )
    refused(enforcer, signed_list(svn=0), "transparency_trust_list|trust list|svn", TRUST_LIST)
    refused(enforcer, signed_list(subject="others"), "trust", TRUST_LIST)
    failed = "^failed to parse transparency trust list payload: "
    refused(enforcer, signed_list(payload=b"\xa0"), f"{failed}empty TTL payload", TRUST_LIST)
    refused(enforcer, signer().sign(fragment(), svn=2), failed, TRUST_LIST)
    other = trust_list(other_example=[cose_key(key_of("o"))])
    refused(enforcer, signed_list(payload=other), "trust|ledger", TRUST_LIST)


def test_keys_that_came_are_gone_with_a_rollback() -> None:
    enforcer = trusting(required_receipts=["*"])
    before = enforcer.snapshot()
    inject(enforcer, signed_list(), TRUST_LIST)
    enforcer.restore(before)
    assert enforcer.ledger_keys() == {}
    refused(enforcer, with_receipt(), "receipt")


def test_a_refused_reload_takes_a_namespace_out_of_the_record_too() -> None:
    enforcer = importing({"includes": ["namespace"]})
    inject(enforcer, signer().sign(fragment(), svn=2))
    assert [name for _, _, name, _ in enforcer._memory.modules] == ["extra"]
    assert enforcer.dump_state()["namespaces"] == ["extra"]
    with pytest.raises(Refused):
        inject(enforcer, signer().sign(fragment(svn="7"), svn=2))
    kept = [name for _, _, name, _ in enforcer._memory.modules]
    assert kept == enforcer.dump_state()["namespaces"]
