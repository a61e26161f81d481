"""Signed fragments from outside: signed and sent by uvmctl, judged by the real daemon (root)."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_envelopes as made
import policies
import pytest
from ledgers import LEDGER, attach, cose_key, receipt, trust_list
from signers import FEED, key_of, signer

from support import leaks, machine
from support.daemon import ENVIRONMENT, Daemon, running
from support.host import MODIFY, NULL_ID, ZERO_GUID, Connection, code
from uvmd_policy_rego.enforcer import encode
from uvmd_policy_rego.envelopes.signing import write

pytestmark = [pytest.mark.root, pytest.mark.system]

TRUST_LIST = "application/vnd.transparency-trust-list.v1+cose"
TCB = "application/vnd.tcb-reference-info.v1+cose"
HELLO = {
    "command": ["/bin/echo", "hello"],
    "env_rules": [policies.rule("PATH=.*", "re2"), policies.rule("TERM=.*", "re2")],
    "working_dir": "/",
    "allow_stdio_access": True,
}
#: What the daemon must not load before a fragment comes.
LIBRARY = "cryptography"


def fragment(*processes: dict[str, Any]) -> str:
    lists = f"external_processes := {json.dumps(list(processes))}\n"
    return f'package extra\nsvn := 3\nframework_version := "0.5.0"\n{lists}'


def importing(**changes: Any) -> str:
    usual = {"issuer": signer().did, "feed": FEED, "minimum_svn": "2", "includes": ["external_processes"]}
    lists = {"issuer": signer().did, "subject": "lists", "minimum_svn": "1", "allowed_ledgers": [LEDGER]}
    return policies.policy(
        fragments=[usual | changes], transparency_trust_lists=[lists], allow_runtime_logging=True
    )


class Host:
    """The commands of a person who is the daemon's host."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        daemon.host.refuse()  # uvmctl listens in its place
        self._environment = {**ENVIRONMENT, "UVMD_HOST": daemon.host.address, "TERM": "dumb"}
        self.daemon, self.folder = daemon, folder
        (folder / "key.pem").write_bytes(signer().key_pem)
        (folder / "chain.pem").write_bytes(signer().pem)

    def uvmctl(self, *arguments: str | Path, status: int = 0) -> str:
        ended = subprocess.run(
            [str(machine.BIN / "uvmctl"), *map(str, arguments)],
            env=self._environment,
            capture_output=True,
            timeout=60,
            text=True,
            check=False,
        )
        assert ended.returncode == status, f"{ended}\n{self.daemon.describe()}"
        return ended.stdout + ended.stderr

    def send(self, resource: str, status: int = 0, **settings: str) -> str:
        path = self.folder / "request.json"
        path.write_text(json.dumps({"ResourceType": resource, "Settings": settings}))
        return self.uvmctl("modify", "-f", path, status=status)

    def sign(self, text: str, *more: str) -> Path:
        source, signed = self.folder / "extra.rego", self.folder / "extra.json"
        source.write_text(text)
        keys = ["--key", self.folder / "key.pem", "--chain", self.folder / "chain.pem", "--feed", FEED]
        self.uvmctl("policy", "fragment", "sign", source, *keys, "--format", "request", "-o", signed, *more)
        return signed


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running(options={"plugins-require": "policy_rego", "paths-bundle-roots": "/run/gcs"}) as one:
        yield one


@pytest.fixture
def host(daemon: Daemon, tmp_path: Path) -> Host:
    return Host(daemon, tmp_path)


def test_a_signed_fragment_allows_what_was_denied_before(host: Host) -> None:
    host.send("SecurityPolicy", EncodedSecurityPolicy=encode(importing()))
    hello = ("exec", "--vm", "-w", "/", "/bin/echo", "hello")
    denied = host.uvmctl(*hello, status=1)
    assert "exec is denied due to policy" in denied
    request = host.sign(fragment(HELLO), "--svn", "3")
    host.uvmctl("modify", "-f", request)
    assert host.uvmctl(*hello) == "hello\n"
    host.daemon.kill_daemon()
    assert host.uvmctl(*hello) == "hello\n", "what a fragment has brought outlives the daemon"


def test_what_was_tampered_with_is_refused_with_its_reason(host: Host) -> None:
    host.send("SecurityPolicy", EncodedSecurityPolicy=encode(importing()))
    request = host.sign(fragment(HELLO), "--svn", "3")
    settings = json.loads(request.read_text())["Settings"]
    envelope = base64.b64decode(settings["Fragment"])

    def refused(blob: bytes, reason: str, by_policy: bool = False) -> None:
        answer = host.send("SecurityPolicyFragment", status=1, Fragment=base64.b64encode(blob).decode())
        assert reason in answer, answer
        assert by_policy is ("error loading security policy fragment: " in answer)

    refused(envelope[:-1] + bytes((envelope[-1] ^ 1,)), "COSE validation: verification error")
    refused(envelope.replace(b"hello", b"EVIL!"), "COSE validation: verification error")
    refused(envelope[:-1], "COSE validation: cbor: ")
    refused(signer().sign(fragment(HELLO), svn=3, feed="another"), "invalid fragment feed", True)
    refused(signer().sign(fragment(HELLO), svn=1), "The security policy does not allow load_fragment", True)
    hello = ("exec", "--vm", "-w", "/", "/bin/echo", "hello")
    assert "exec is denied due to policy" in host.uvmctl(*hello, status=1)


def inject(bridge: Connection, blob: bytes, media_type: str = "") -> dict[str, Any]:
    settings = {"Fragment": base64.b64encode(blob).decode(), "MediaType": media_type}
    inner = {"RequestType": "Add", "ResourceType": "SecurityPolicyFragment", "Settings": settings}
    answer: dict[str, Any] = bridge.ask(
        MODIFY, {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID, "Request": inner}
    )
    return answer


def test_a_required_receipt_needs_its_trust_list_and_outlives_a_restart(daemon: Daemon) -> None:
    bridge = daemon.connect()
    policy = importing(required_receipts=["TTL:lists"])
    bridge.modify(NULL_ID, "SecurityPolicy", settings={"EncodedSecurityPolicy": encode(policy)})
    envelope = signer().sign(fragment(HELLO), svn=3)
    proven = attach(envelope, [receipt(envelope)])
    assert "error loading security policy fragment: " in inject(bridge, proven)["ErrorMessage"]
    listed = trust_list(**{LEDGER.replace(".", "_"): [cose_key(key_of("ledger"))]})
    lists = signer().sign(listed, svn=1, feed="lists")
    assert code(inject(bridge, lists, TRUST_LIST)) == "S_OK"
    # The daemon dies: the ledgers' keys are what it has been told, and must be kept.
    daemon.kill_daemon()
    bridge = daemon.connect()
    assert code(inject(bridge, envelope)) == "E_FAIL"
    assert code(inject(bridge, proven)) == "S_OK"
    bridge.close()


def test_reference_info_is_taken_without_an_issuer_and_refused_when_broken(daemon: Daemon) -> None:
    bridge = daemon.connect()
    bridge.modify(NULL_ID, "SecurityPolicy", settings={"EncodedSecurityPolicy": encode(importing())})
    # All kinds of keys, RSA up to the root among them, on the small stack of a daemon's thread.
    kinds = [signer(kind).sign(b"x") for kind in ("P-521", "Ed25519", "RSA4096")]
    info = signer().sign(b"measurements", feed="tcb")
    for one in (*made.all_of_them(), *kinds, info):
        assert code(inject(bridge, one, TCB)) == "S_OK"
    broken = inject(bridge, info[:-1], TCB)
    assert broken["ErrorMessage"].startswith("InjectFragment failed COSE validation: cbor: "), broken
    bridge.close()


@pytest.mark.parametrize("stance", ["allow", "deny"])
def test_without_a_policy_an_envelope_is_judged_all_the_same(stance: str) -> None:
    signed = signer().sign(fragment(HELLO), svn=3)
    one = signer()
    claims = {1: one.did.replace("CN:Leaf", "CN:Other"), 2: FEED, "svn": 3}
    header = {1: -7, 33: [certificate.der for certificate in one.chain], 15: claims}
    stranger = write(header, {}, fragment(HELLO).encode(), one.key, "ES256")
    listed = trust_list(**{LEDGER.replace(".", "_"): [cose_key(key_of("ledger"))]})
    with running(options={"vm-stance": stance}) as daemon:
        bridge = daemon.connect()

        def said(blob: bytes, media_type: str = "") -> str:
            answer = inject(bridge, blob, media_type)
            return "" if code(answer) == "S_OK" else str(answer["ErrorMessage"])

        for media_type in ("", TRUST_LIST, TCB):
            for blob in (signed[:-1], b""):
                assert said(blob, media_type).startswith("InjectFragment failed COSE validation: cbor: ")
        for media_type in ("", TRUST_LIST):
            assert said(stranger, media_type).startswith("failed to resolve DID: ")
        assert said(signed, TRUST_LIST).startswith("failed to parse transparency trust list payload: ")
        # What is valid is reference info to anybody, and for the rest it is the door's turn.
        closed = {
            "": "error loading security policy fragment: loading fragments is denied by policy",
            TRUST_LIST: "error loading transparency trust list: "
            "loading transparency trust lists is denied by policy",
        }
        assert said(signed, TCB) == ""
        assert said(signed).startswith(closed[""] if stance == "deny" else "")
        assert bool(said(signed)) is (stance == "deny")
        offered = said(signer().sign(listed, svn=1, feed="lists"), TRUST_LIST)
        assert offered.startswith(closed[TRUST_LIST] if stance == "deny" else "")
        assert bool(offered) is (stance == "deny")
        bridge.close()


def test_a_daemon_that_cannot_read_envelopes_takes_none() -> None:
    with running(options={"plugins-deny": "policy_rego"}) as daemon:
        bridge = daemon.connect()
        for media_type in ("", TRUST_LIST, TCB):
            answer = inject(bridge, signer().sign(fragment(HELLO), svn=3), media_type)
            assert answer["ErrorMessage"].startswith("no plugin reads signed envelopes (cose-x509)"), answer
        bridge.close()


def test_the_library_is_loaded_when_the_first_fragment_comes(daemon: Daemon) -> None:
    bridge = daemon.connect()
    bridge.modify(NULL_ID, "SecurityPolicy", settings={"EncodedSecurityPolicy": encode(importing())})
    maps = Path(f"/proc/{daemon.daemon_pid}/maps")
    assert LIBRARY not in maps.read_text()
    before = leaks.rss_kib(daemon.daemon_pid)
    assert code(inject(bridge, signer().sign(fragment(HELLO), svn=3))) == "S_OK"
    assert LIBRARY in maps.read_text()
    grown = (leaks.rss_kib(daemon.daemon_pid) - before) / 1024
    print(f"the daemon grew by {grown:.1f} MiB, from {before / 1024:.1f}")
    assert grown < 30
    bridge.close()
