"""``uvmctl policy fragment trust-list`` and ``attach``: lists and proofs that a daemon takes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from ledgers import KID, LEDGER, receipt
from signers import FEED, key_of, signer
from test_cli_fragment import files, run, sign

from uvmd_policy_rego.envelopes import making
from uvmd_policy_rego.envelopes.envelope import open_envelope
from uvmd_policy_rego.envelopes.errors import EnvelopeError
from uvmd_policy_rego.envelopes.trust_lists import parse_trust_list

__all__ = ["files"]
LISTS = "application/vnd.transparency-trust-list.v1+cose"


def pem_of(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def signed_list(files: Path, *keys: str) -> Path:
    run("fragment", "trust-list", *keys, "-o", files / "lists.cbor")
    usual = ["--key", files / "key.pem", "--chain", files / "chain.pem", "--feed", "lists", "--svn", "1"]
    run("fragment", "sign", files / "lists.cbor", *usual, "--content-type", LISTS, "-o", files / "lists.cose")
    return files / "lists.cose"


def test_a_list_that_was_made_proves_a_receipt_that_was_attached(files: Path) -> None:
    (files / "ledger.pem").write_bytes(pem_of(key_of("ledger")))
    lists = signed_list(files, f"{LEDGER}:{KID}={files / 'ledger.pem'}")
    sign(files, "--svn", "1")
    envelope = (files / "extra.cose").read_bytes()
    for name, more in (("good", {}), ("forged", {"key": key_of("forger")})):
        (files / name).write_bytes(receipt(envelope, **more))
    run("fragment", "attach", files / "extra.cose", files / "good", "-o", files / "once.cose")
    run("fragment", "attach", files / "once.cose", files / "forged", "-o", files / "twice.cose")
    seen = run("fragment", "verify", files / "twice.cose", "--trust-list", lists, "--json")
    assert json.loads(seen.output)["receipts"] == [{"issuer": LEDGER, "ttl_subjects": ["lists"]}]
    opened = open_envelope((files / "twice.cose").read_bytes())
    assert len(opened.receipts) == 2
    assert opened.message.elements == open_envelope(envelope).message.elements, "what was signed is as it was"


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "Ed25519"])
def test_keys_of_every_kind_come_back_under_the_id_that_ccf_gives_them(files: Path, kind: str) -> None:
    key = key_of("a ledger", kind)
    (files / "ledger.pem").write_bytes(pem_of(key))
    found = run("fragment", "trust-list", f"{LEDGER}={files / 'ledger.pem'}", "-o", files / "l", "--json")
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    kid = hashlib.sha256(der).hexdigest()
    assert json.loads(found.output)["ledgers"] == {LEDGER: [kid]}
    assert list(parse_trust_list((files / "l").read_bytes())[LEDGER]) == [kid]


def test_a_certificate_will_do_for_a_key() -> None:
    one = signer()
    assert making.parse_public_key(one.pem) == one.key.public_key()


@pytest.mark.parametrize("argument", ["ledger", "=x", "ledger=", ":kid=x"])
def test_what_names_no_key_is_a_mistake_in_the_command(tmp_path: Path, argument: str) -> None:
    assert "is not LEDGER" in run("fragment", "trust-list", argument, "-o", tmp_path / "l", status=2).stderr


@pytest.mark.parametrize("pem", [b"", b"no key", pem_of(key_of("r", "RSA2048"))], ids=["none", "text", "rsa"])
def test_a_ledger_s_key_is_one_that_signs_receipts(pem: bytes) -> None:
    with pytest.raises(EnvelopeError, match="ledger's key"):
        making.parse_public_key(pem)


def test_two_keys_under_one_id_are_refused(files: Path) -> None:
    for name in ("one", "two"):
        (files / name).write_bytes(pem_of(key_of(name)))
    keys = [f"{LEDGER}:k={files / name}" for name in ("one", "two")]
    answer = run("fragment", "trust-list", *keys, "-o", files / "l", status=1)
    assert "have one id" in answer.stderr
    assert not (files / "l").exists()


def test_what_is_no_receipt_and_what_is_no_envelope_are_refused(files: Path) -> None:
    sign(files, "--svn", "1")
    (files / "no").write_bytes(b"x")
    for envelope, one, why in (("extra.cose", "no", "parsing receipts"), ("no", "extra.cose", "COSE_Sign1")):
        answer = run("fragment", "attach", files / envelope, files / one, "-o", files / "out", status=1)
        assert why in answer.stderr
    assert not (files / "out").exists()
    assert FEED in run("fragment", "verify", files / "extra.cose").output
