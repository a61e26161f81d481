"""``uvmctl policy report``: from files, from the emulated machine, and where there is nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from emulated_drivers import Module, SnpDevice
from emulated_processors import Amd, Intel, certificate_table
from emulated_vm import Hardware

from uvmd.errors import Failed, NotFound, UvmdError
from uvmd_attestation import showing
from uvmd_attestation.cli_report import report
from uvmd_attestation.evidence import Roots

REAL = Path(__file__).parent / "vectors" / "snp-report-v3-genoa.bin"
POLICY = b'package policy\n\napi_version := "0.10.0"\n'
DIGEST = hashlib.sha256(POLICY).digest()


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(report, list(arguments), standalone_mode=False)
    if isinstance(result.exception, UvmdError):
        raise result.exception
    return result


def document(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("--json", *arguments).output)
    return found


def file(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "evidence"
    path.write_bytes(content)
    return str(path)


def test_a_real_report_is_readable() -> None:
    lines = run("--file", str(REAL)).output.splitlines()
    assert lines[0] == f"SEV-SNP report, version 3, from {REAL}"
    assert any(line.split() == ["host", "data", "00" * 32] for line in lines)
    assert any("family 0x19, model 0x11" in line for line in lines)
    assert lines[-1].startswith("The signature is not verified here")


def test_a_real_report_is_json_with_every_field_and_itself() -> None:
    found = document("--file", str(REAL))
    assert found["raw"] == REAL.read_bytes().hex()
    assert (found["kind"], found["form"], found["host_data"]) == ("sev", "report", "00" * 32)
    assert found["report"]["reported_tcb"]["microcode"] == 84
    assert found["report"]["processor"] == {"family": 0x19, "model": 0x11, "stepping": 1}


@pytest.mark.parametrize(
    ("content", "title", "host_data"),
    [
        (Amd(DIGEST).report(b""), "SEV-SNP report, version 2", DIGEST.hex()),
        (Intel(DIGEST + bytes(16)).report(bytes(64)), "TDREPORT, version 0", DIGEST.hex() + "00" * 16),
        (Intel(DIGEST + bytes(16)).quote(bytes(64)), "TDX quote, version 4", DIGEST.hex() + "00" * 16),
        (Intel(DIGEST + bytes(16)).quote(bytes(64), 5), "TDX quote, version 5", DIGEST.hex() + "00" * 16),
    ],
)
@pytest.mark.parametrize("as_hex", [False, True])
def test_a_file_is_recognised_and_compared_with_a_policy(
    tmp_path: Path, content: bytes, title: str, host_data: str, as_hex: bool
) -> None:
    evidence = file(tmp_path, content.hex().encode() + b"\n" if as_hex else content)
    assert run("--file", evidence).output.startswith(title)
    assert document("--file", evidence)["host_data"] == host_data
    assert run("--file", evidence, "--raw").output.strip() == content.hex()
    for text, fits in ((POLICY, True), (base64.b64encode(POLICY) + b"\n", True), (POLICY + b"\n", False)):
        policy = tmp_path / "policy"
        policy.write_bytes(text)
        result = run("--file", evidence, "--policy", str(policy))
        assert result.return_value == (0 if fits else 1)
        assert ("launched for this policy" in result.output) is fits
        assert document("--file", evidence, "--policy", str(policy))["policy_matches"] is fits


def test_a_guest_that_may_be_debugged_is_pointed_out(tmp_path: Path) -> None:
    debugged = Amd(changes={0x0A: b"\x0b"}).report(b"")
    assert "the evidence proves nothing" in run("--file", file(tmp_path, debugged)).output


@pytest.mark.parametrize(
    "content", [b"", b"report", bytes(1184), bytes(1024), b"\5\0\2\0\x81\0\0\0", b"00" * 99]
)
def test_what_is_no_evidence_is_said(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Failed):
        run("--file", file(tmp_path, content))


@pytest.mark.parametrize(
    "arguments",
    [["--report-data", "xyz"], ["--report-data", "00" * 65], ["--report-data", "00", "--file", str(REAL)]],
)
def test_data_that_cannot_be_carried_are_a_wrong_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(report, arguments).exit_code == 2


def test_without_hardware_it_says_what_it_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "ROOTS", Roots(f"{tmp_path}/sys", f"{tmp_path}/dev"))
    with pytest.raises(
        NotFound, match=f"no confidential hardware here: there is none of {tmp_path}/dev/sev-guest"
    ):
        run()


@pytest.mark.root
def test_the_machines_own_report_carries_the_callers_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = certificate_table(("63da758d-e664-4564-adc5-f4b93be8accd", b"leaf"))
    module = Module("sev_guest", Amd(DIGEST).report, certificates=table, manifest=b"services")
    hardware = Hardware(tmp_path / "hardware", {"sev-guest": SnpDevice(Amd(DIGEST))}, module)
    try:
        monkeypatch.setattr(showing, "ROOTS", Roots(hardware.sys, hardware.dev))
        shown = run("--report-data", "c0ffee").output
        found = document("--report-data", "c0ffee")
    finally:
        hardware.close()
    assert "The host hands certificates along: VCEK (4 bytes)." in shown
    assert "The host hands a manifest along: 8 bytes." in shown
    assert found["report"]["report_data"] == "c0ffee" + "00" * 61
    assert found["certificates"] == [{"name": "VCEK", "content": b"leaf".hex()}]


@pytest.mark.root
def test_a_device_that_refuses_is_an_error_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware = Hardware(tmp_path / "hardware", {"sev-guest": SnpDevice(Amd(), refuse=5)})
    try:
        monkeypatch.setattr(showing, "ROOTS", Roots(hardware.sys, hardware.dev))
        with pytest.raises(Failed, match="sev-guest: Input/output error"):
            run()
    finally:
        hardware.close()


@pytest.mark.root
@pytest.mark.system
def test_the_verb_stands_below_the_group_of_the_policy_tools() -> None:
    uvmctl = Path(sys.executable).parent / "uvmctl"
    argv = [str(uvmctl), "--json", "policy", "report", "--file", str(REAL)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=dict(os.environ), timeout=60)
    assert json.loads(done.stdout)["kind"] == "sev"
