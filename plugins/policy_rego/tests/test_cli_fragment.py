"""``uvmctl policy fragment`` and ``uvmctl policy did``: on files, for people and for programs."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import made_envelopes as made
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from ledgers import LEDGER, attach, cose_key, receipt, trust_list
from policies import policy
from signers import CODE, FEED, key_of, signer

from uvmd_policy_rego.cli import policy as command
from uvmd_policy_rego.envelopes.describe import describe
from uvmd_policy_rego.envelopes.envelope import open_envelope
from uvmd_policy_rego.envelopes.signing import write


@pytest.fixture
def files(tmp_path: Path) -> Path:
    one = signer()
    (tmp_path / "key.pem").write_bytes(one.key_pem)
    (tmp_path / "chain.pem").write_bytes(one.pem)
    (tmp_path / "extra.rego").write_text(CODE)
    return tmp_path


def run(*arguments: str | Path, status: int = 0, input: bytes | None = None) -> Result:
    result = CliRunner().invoke(command, [str(one) for one in arguments], input=input)
    assert result.exit_code == status, (result.output, result.stderr, result.exception)
    return result


def sign(files: Path, *more: str, status: int = 0, output: str = "extra.cose") -> Result:
    usual = ["--key", str(files / "key.pem"), "--chain", str(files / "chain.pem"), "--feed", FEED]
    return run("fragment", "sign", files / "extra.rego", *usual, "-o", files / output, *more, status=status)


def saw(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.output)
    return found


def test_what_is_signed_verifies_and_is_shown(files: Path) -> None:
    assert "wrote" in sign(files, "--svn", "1").output
    seen = saw(run("fragment", "verify", files / "extra.cose", "--json"))
    assert seen["ok"] is True
    assert (seen["issuer"], seen["feed"], seen["svn"], seen["text"]) == (signer().did, FEED, 1, CODE)
    shown = run("fragment", "verify", files / "extra.cose").output
    assert shown.startswith("valid fragment; no policy was asked\n")
    assert CODE in shown
    assert list(files.glob("*.unfinished")) == []


@pytest.mark.parametrize("style", [(), ("--old-style",), ("--algorithm", "ES384"), ("--format", "base64")])
def test_every_style_verifies(files: Path, style: tuple[str, ...]) -> None:
    assert saw(sign(files, *style, "--json"))["issuer"] == signer().did
    seen = saw(run("fragment", "verify", files / "extra.cose", "--json"))
    assert seen["svn"] is None
    data = (files / "extra.cose").read_bytes()
    if "base64" in style:
        data = base64.b64decode(data)
    assert open_envelope(data).feed == FEED


def test_a_request_for_uvmctl_modify_is_written(files: Path) -> None:
    sign(files, "--format", "request", output="extra.json")
    request = json.loads((files / "extra.json").read_text())
    assert request["ResourceType"] == "SecurityPolicyFragment"
    assert request["Settings"]["MediaType"] == "application/cose-x509+rego"
    assert open_envelope(base64.b64decode(request["Settings"]["Fragment"])).feed == FEED


def test_an_envelope_goes_to_and_comes_from_pipes(files: Path) -> None:
    usual = ["--key", files / "key.pem", "--chain", files / "chain.pem", "--feed", FEED, "-o", "-"]
    envelope = run("fragment", "sign", "-", *usual, input=CODE.encode()).stdout_bytes
    assert open_envelope(envelope).payload == CODE.encode()
    assert saw(run("fragment", "verify", "-", "--json", input=envelope))["text"] == CODE


def test_a_key_with_a_password_signs(files: Path) -> None:
    encryption = BestAvailableEncryption(b"s3cret")
    locked = signer().key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    (files / "key.pem").write_bytes(locked)
    (files / "password").write_text("s3cret\n")
    assert "the private key cannot be read" in sign(files, status=1).stderr
    sign(files, "--key-password-file", str(files / "password"))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--issuer", "did:x509:0:sha256:x::subject:CN:Leaf"), "unexpected certificate fingerprint"),
        (("--algorithm", "RS256"), "unknown algorithm RS256"),
        (("--old-style", "--svn", "1"), "no place for an SVN"),
        (("--svn", str(1 << 63)), "does not fit into 64 bits"),
    ],
)
def test_what_no_daemon_would_take_is_not_signed(files: Path, more: tuple[str, ...], reason: str) -> None:
    refusal = saw(sign(files, *more, "--json", status=1))
    assert refusal["ok"] is False
    assert re.search(reason, refusal["error"])
    assert not (files / "extra.cose").exists()


def test_a_payload_that_is_no_fragment_is_not_signed_as_one(files: Path) -> None:
    for wrong in (b"", b"# comment\npackage extra\n", b"package policy\n", b"\xff"):
        (files / "extra.rego").write_bytes(wrong)
        assert "refused: " in sign(files, status=1).stderr
    sign(files, "--content-type", "application/octet-stream")


def test_verify_says_what_the_daemon_would_say(files: Path) -> None:
    sign(files, "--svn", "1")
    envelope = (files / "extra.cose").read_bytes()
    (files / "broken.cose").write_bytes(envelope[:-1])
    refusal = run("fragment", "verify", files / "broken.cose", status=1)
    assert refusal.stderr.startswith("refused: InjectFragment failed COSE validation: cbor: ")
    (files / "changed.cose").write_bytes(envelope[:-1] + bytes((envelope[-1] ^ 1,)))
    assert "verification error" in run("fragment", "verify", files / "changed.cose", status=1).stderr
    assert "the feed is" in run("fragment", "verify", files / "extra.cose", "--feed", "x", status=1).stderr
    assert (
        "the issuer is" in run("fragment", "verify", files / "extra.cose", "--issuer", "x", status=1).stderr
    )
    run("fragment", "verify", files / "extra.cose", "--feed", FEED, "--issuer", signer().did)


def test_a_policy_can_be_asked(files: Path) -> None:
    sign(files, "--svn", "1")
    imports = {"issuer": signer().did, "feed": FEED, "minimum_svn": "1", "includes": ["containers"]}
    (files / "yes.rego").write_text(policy(fragments=[imports]))
    (files / "no.b64").write_bytes(base64.b64encode(policy(fragments=[imports | {"feed": "x"}]).encode()))
    (files / "broken.rego").write_text("package policy\n!")
    yes = run("fragment", "verify", files / "extra.cose", "--policy", files / "yes.rego")
    assert yes.output.startswith("valid fragment; the policy takes it")
    no = run("fragment", "verify", files / "extra.cose", "--policy", files / "no.b64", status=1)
    assert "invalid fragment feed" in no.stderr
    assert "policyDecision" not in no.stderr
    broken = run("fragment", "verify", files / "extra.cose", "--policy", files / "broken.rego", status=1)
    assert "the policy cannot be loaded" in broken.stderr


def test_receipts_count_with_the_trust_lists_that_came_before(files: Path) -> None:
    one = signer()
    listed = {LEDGER.replace(".", "_"): [cose_key(key_of("ledger"))]}
    (files / "lists.cose").write_bytes(one.sign(trust_list(**listed), svn=1, feed="lists"))
    envelope = one.sign(svn=1)
    (files / "extra.cose").write_bytes(attach(envelope, [receipt(envelope)]))
    alone = saw(run("fragment", "verify", files / "extra.cose", "--json"))
    assert alone["receipts"] == []
    both = run("fragment", "verify", files / "extra.cose", "--json", "--trust-list", files / "lists.cose")
    assert saw(both)["receipts"] == [{"issuer": LEDGER, "ttl_subjects": ["lists"]}]
    shown = run("fragment", "verify", files / "lists.cose", "--kind", "trust-list").output
    assert f"ledger  {LEDGER}, 1 keys" in shown


def test_reference_info_is_verified_as_what_it_is(tmp_path: Path) -> None:
    info, lists, grafted = (tmp_path / name for name in ("info.cose", "lists.cose", "grafted.cose"))
    info.write_bytes(made.hashed())
    lists.write_bytes(made.lists())
    grafted.write_bytes(made.grafted())
    usual = ("--kind", "tcb-info", "--json", "--trust-list", lists)
    seen = saw(run("fragment", "verify", info, *usual))
    proven = [{"issuer": made.LEDGER, "ttl_subjects": [made.SUBJECT]}]
    assert (seen["feed"], seen["did"], seen["receipts"]) == (made.IMAGE, "holds", proven)
    assert saw(run("fragment", "verify", grafted, *usual))["receipts"] == []
    assert "unable to load fragment" in run("fragment", "verify", info, status=1).stderr


def test_inspect_shows_what_services_sign(tmp_path: Path) -> None:
    info, lists = tmp_path / "info.cose", tmp_path / "lists.cose"
    info.write_bytes(made.hashed())
    lists.write_bytes(made.lists())
    shown = run("fragment", "inspect", info).output
    size = f"valid, {len(made.hashed())} bytes"
    for part in (size, "PS384", "SHA-384", "CN=Service", "RSA 3072", "receipt "):
        assert part in shown
    found = saw(run("fragment", "inspect", lists, "--json"))
    assert [one["ca"] for one in found["chain"]] == [False, True, True]
    assert {name: len(keys) for name, keys in found["payload"]["ledgers"].items()} == {
        name: len(keys) for name, keys in made.LEDGERS.items()
    }


def test_inspect_is_readable_wherever_an_envelope_ends() -> None:
    envelope = made.old()
    for end in (*range(0, 60), *range(60, len(envelope), 509)):
        found = describe(envelope[:end])
        assert found["valid"] is False
        assert found["problems"]
        json.dumps(found)
    half = describe(envelope[:3000])
    assert half["algorithm"] == "ES384"
    assert [one["key"] for one in half["chain"]] == ["EC secp384r1"] * 3
    assert half["payload"]["note"] == "cut off"


def test_inspect_names_what_is_odd() -> None:
    one = signer()
    odd = write(
        {
            1: -257,
            33: [b"x", 1],
            15: {1: "not a did", 2: "f", "svn": "x"},
            258: -43,
            3: 7,
            "deep": [{"a": b"x"}],
        },
        {394: [1, b"x"], "note": b"x" * 99},
        None,
        one.key,
        "ES256",
        detached=b"x",
    )
    found = describe(odd)
    assert found["problems"]
    assert [one["problem"] for one in found["chain"]]
    assert [one["problem"] for one in found["receipts"]]
    assert found["payload"]["note"] == "detached"
    assert found["unprotected"]["'note'"].endswith("(99 bytes)")


def test_what_a_stranger_wrote_does_not_move_the_cursor(files: Path) -> None:
    (files / "extra.rego").write_text(CODE + "# \x1b[2J\u202e evil\n")
    sign(files)
    for verb in ("verify", "inspect"):
        shown = run("fragment", verb, files / "extra.cose").output
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert "\\x1b[2J" in shown


def test_a_long_payload_is_cut_unless_asked_for(files: Path) -> None:
    (files / "extra.rego").write_text(CODE + "# line\n" * 40)
    sign(files)
    assert "31 more lines" in run("fragment", "inspect", files / "extra.cose").output
    assert run("fragment", "inspect", files / "extra.cose", "--payload").output.count("# line") == 40


def test_dids_are_made_and_resolved(files: Path) -> None:
    chain = files / "chain.pem"
    made = run("did", "make", "--chain", chain).output.strip()
    assert made == signer().did
    assert saw(run("did", "make", "--chain", chain, "--json")) == {
        "ok": True,
        "did": made,
        "pinned": "Between",
    }
    assert run("did", "make", "--chain", chain, "--policy", "eku", "-i", "2").output.startswith("did:x509:0:")
    document = json.loads(run("did", "resolve", made, "--chain", chain).output)
    assert document["id"] == made
    assert saw(run("did", "resolve", made, "--chain", chain, "--json"))["document"] == document


def test_a_did_that_does_not_hold_says_why(files: Path) -> None:
    chain = files / "chain.pem"
    no = run("did", "resolve", signer().did + "x", "--chain", chain, status=1)
    assert no.stderr.startswith("refused: DID verification failed: invalid subject value")
    no = run("did", "make", "--chain", chain, "-i", "7", "--json", status=1)
    assert saw(no) == {"ok": False, "error": "signer index out of bounds"}
    (files / "chain.pem").write_text("nothing")
    assert "chain must not be empty" in run("did", "make", "--chain", chain, status=1).stderr


@pytest.mark.parametrize(
    "verb",
    [
        ("fragment", "sign"),
        ("fragment", "verify"),
        ("fragment", "inspect"),
        ("did", "make"),
        ("did", "resolve"),
    ],
)
def test_help_has_an_example_that_can_be_typed(verb: tuple[str, str]) -> None:
    assert f"uvmctl policy {' '.join(verb)} " in run(*verb, "--help").output


def test_help_imports_no_cryptography() -> None:
    check = (
        "import sys; from click.testing import CliRunner; from uvmd_policy_rego.cli import policy; "
        "r = CliRunner().invoke(policy, ['--help']); assert r.exit_code == 0, r.output; "
        "assert 'fragment' in r.output; print([m for m in sys.modules if m.startswith('cryptography')])"
    )
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
