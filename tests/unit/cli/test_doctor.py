"""uvmd doctor: what it says of a machine that lacks something."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from uvmd.api import Requirement
from uvmd.cli import doctor
from uvmd.cli.commands import uvmd
from uvmd.daemon import time_sync
from uvmd.daemon.options import load
from uvmd.linux import abilities
from uvmd.oci import runtime


def findings(*flags: str) -> dict[str, doctor.Finding]:
    return {one.what: one for one in doctor.examine(load(list(flags), {}).config)}


def test_a_machine_that_runs_the_tests_has_a_runtime_cgroups_and_a_kernel() -> None:
    seen = findings("--transport", "unix:/x")
    for what in (
        "user",
        "kernel",
        "namespaces",
        "control groups",
        "platform",
        "OCI runtime",
        "transport",
        "plugins",
    ):
        assert seen[what].state == doctor.OK, seen[what]


def test_a_runtime_that_is_named_and_not_there_is_missing() -> None:
    seen = findings("--runtime-name", "/nowhere/crun")["OCI runtime"]
    assert (seen.state, seen.found) == (doctor.MISSING, "no /nowhere/crun")


def test_the_filter_is_counted_or_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = findings("--transport", "unix:/x")["system call filter"]
    assert (seen.state, seen.found.partition(" ")[2]) == (doctor.OK, "calls are refused to the daemon")
    with_power = findings("--transport", "unix:/x", "--vm-agent")["system call filter"]
    assert int(seen.found.split()[0]) == int(with_power.found.split()[0]) + 1
    monkeypatch.setattr(abilities, "has_seccomp", lambda: False)
    seen = findings("--transport", "unix:/x")["system call filter"]
    assert (seen.state, seen.found) == (doctor.NOTE, "not in this kernel")


def test_folders_that_cannot_be_written_to_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--transport", "unix:/x", "--paths-run-dir", str(tmp_path), "--paths-bundle-roots")
    seen = findings(*flags, f"{tmp_path}/a/b")
    assert seen[f"folder {tmp_path}"].state == doctor.OK
    assert seen[f"folder {tmp_path}/a/b"].found.endswith("will be made")
    real, odd = os.statvfs(tmp_path), {"f_flag": os.ST_RDONLY, "f_bavail": 0, "f_favail": 0}
    for field, words in zip(odd, ("read-only", "full", "full"), strict=True):
        facts = {name: getattr(real, name) for name in dir(real) if name.startswith("f_")}
        answer = SimpleNamespace(**{**facts, "f_files": 1, field: odd[field]})
        monkeypatch.setattr(os, "statvfs", lambda path, answer=answer: answer)
        found = findings(*flags, str(tmp_path))[f"folder {tmp_path}"]
        assert (found.state, found.found.rpartition(" ")[2]) == (doctor.MISSING, words)


def test_a_kernel_without_a_kind_of_namespaces_runs_no_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abilities, "missing_namespaces", lambda: ["pid", "net"])
    seen = findings("--transport", "unix:/x")["namespaces"]
    assert (seen.state, seen.found) == (doctor.MISSING, "no pid, net")
    needed = [Requirement("feature", "net", "adapters"), Requirement("feature", "mnt", "mounts")]
    assert [one.state for one in doctor._required("lamp", needed)] == [doctor.MISSING, doctor.OK]


def test_vsock_is_needed_only_by_a_transport_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abilities, "has_vsock", lambda: False)
    assert findings("--transport", "vsock")["transport"].state == doctor.MISSING
    assert findings("--transport", "stdio")["transport"].state == doctor.MISSING
    assert findings("--transport", "stdio:unix:/x")["transport"].state == doctor.OK


def test_a_clock_is_looked_for_where_the_time_is_to_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "clock" not in findings("--transport", "unix:/x")
    monkeypatch.setattr(time_sync, "find_clock", lambda: "ptp3")
    monkeypatch.setattr(runtime, "find_program", lambda name, path: f"/sbin/{name}")
    seen = findings("--transport", "unix:/x", "--vm-time-sync", "auto")["clock"]
    assert (seen.state, seen.found) == (doctor.OK, "ptp3, /sbin/chronyd")
    monkeypatch.setattr(time_sync, "find_clock", lambda: None)
    monkeypatch.setattr(runtime, "find_program", lambda name, path: None)
    seen = findings("--transport", "unix:/x", "--vm-time-sync", "auto")["clock"]
    assert (seen.state, seen.found) == (doctor.NOTE, "no PTP device of a hypervisor, no chronyd")


def test_a_plugin_s_needs_are_looked_for_under_its_name() -> None:
    needs = [
        Requirement("program", "no-such-a|sh", "speaking"),
        Requirement("program", "no-such-b", "singing"),
        Requirement("filesystem", "no-such-fs", "reading", optional=True),
    ]
    either, program, filesystem = doctor._required("lamp", needs)
    assert (either.what, either.state) == ("program no-such-a or sh", doctor.OK)
    assert program == doctor.Finding("program no-such-b", doctor.MISSING, "not here", "lamp: singing")
    assert filesystem.state == doctor.NOTE


def test_the_status_tells_a_script_whether_something_is_missing(tmp_path: Path) -> None:
    config = tmp_path / "uvmd.toml"
    config.write_text("transport = 'unix:/x'\n[plugins]\nallow = []\n")
    fine = CliRunner().invoke(uvmd, ["doctor", "--config", str(config)])
    assert (fine.exit_code, fine.output.splitlines()[-1]) == (0, "uvmd doctor: ok")
    config.write_text("transport = 'unix:/x'\n[plugins]\nallow = []\n[runtime]\nname = '/nowhere/crun'\n")
    lacking = CliRunner().invoke(uvmd, ["doctor", "--json", "--config", str(config)])
    assert lacking.exit_code == 1
    assert [one["what"] for one in json.loads(lacking.output) if one["state"] == "missing"] == ["OCI runtime"]
