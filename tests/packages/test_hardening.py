"""The units as systemd's own audit sees them: the score is a number, in the docs and here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.machine import ROOT

UNITS = ROOT / "packaging" / "systemd"
PAGE = ROOT / "docs" / "hardening.md"
#: What `systemd-analyze security` of systemd 252 says; a worse one needs a reason in docs/hardening.md.
SCORE, TIGHTER = "9.8", "7.9"
#: Each would give the service a mount namespace of its own.
PRIVATE_MOUNTS = (
    "PrivateTmp", "PrivateDevices", "PrivateMounts", "ProtectSystem", "ProtectHome", "ProtectProc",
    "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups",
    "ProcSubset", "ReadOnlyPaths", "ReadWritePaths", "InaccessiblePaths", "TemporaryFileSystem",
    "BindPaths", "BindReadOnlyPaths", "RootDirectory", "RootImage", "DynamicUser", "PrivateIPC",
    "LogNamespace", "MountFlags", "LoadCredential", "NoExecPaths", "ExecPaths",
)  # fmt: skip
#: Each is handed down to containers.
HANDED_DOWN = (
    "NoNewPrivileges", "SystemCallFilter", "SystemCallArchitectures", "CapabilityBoundingSet",
    "AmbientCapabilities", "RestrictNamespaces", "RestrictAddressFamilies", "RestrictSUIDSGID",
    "RestrictRealtime", "LockPersonality", "MemoryDenyWriteExecute", "ProtectHostname", "ProtectClock",
    "SecureBits", "PrivateUsers", "PrivateNetwork",
)  # fmt: skip


def settings(unit: Path) -> dict[str, str]:
    found = re.findall(r"(?m)^([A-Za-z]+)=(.*)$", unit.read_text())
    return dict(found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The unit with a program that is there, so that nothing but the unit is judged."""
    text = (UNITS / "uvmd.service").read_text()
    (tmp_path / "uvmd.service").write_text(text.replace("/opt/uvmd/bin/uvmd ", "/bin/true "))
    return tmp_path


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is not installed: .ci/system-packages packages"
    return subprocess.run([program, *words], capture_output=True, text=True, env={"LC_ALL": "C.UTF-8"})


def audit(unit: Path) -> tuple[str, list[str]]:
    """Return the score, and the names of the lines that are open."""
    done = analyze("security", "--offline=true", "--no-pager", unit)
    score = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert score, done.stdout + done.stderr
    return score[1], re.findall(r"(?m)^✗ (\S+)", done.stdout)


def with_drop_in(folder: Path) -> Path:
    drop_ins = folder / "uvmd.service.d"
    drop_ins.mkdir()
    shutil.copy(UNITS / "tighter.conf", drop_ins)
    return folder / "uvmd.service"


def test_systemd_takes_the_unit_and_has_nothing_to_say(folder: Path) -> None:
    done = analyze("verify", "--man=no", "--generators=no", folder / "uvmd.service")
    assert (done.returncode, [line for line in done.stderr.splitlines() if "uvmd" in line]) == (0, [])


def test_the_audits_score_is_the_one_in_the_docs(folder: Path) -> None:
    assert audit(folder / "uvmd.service")[0] == SCORE
    assert f"**{SCORE}**" in PAGE.read_text()


def test_the_tighter_units_score_is_the_one_in_the_docs(folder: Path) -> None:
    assert audit(with_drop_in(folder))[0] == TIGHTER
    assert f"**{TIGHTER}**" in PAGE.read_text()


def test_every_line_that_stays_open_has_its_reason_in_the_docs(folder: Path) -> None:
    _, lines = audit(folder / "uvmd.service")
    rows = " ".join(re.findall(r"(?m)^\| (`.*?) \|", PAGE.read_text()))
    assert lines
    # CapabilityBoundingSet and the filters have one row each: one reason for all of their lines.
    missing = {line.partition("=")[0] for line in lines} - set(re.findall(r"`([A-Za-z]+)=", rows))
    assert not missing


def test_the_unit_has_no_option_that_hides_mounts_or_binds_containers() -> None:
    found = set(settings(UNITS / "uvmd.service")) & {*PRIVATE_MOUNTS, *HANDED_DOWN}
    assert not found
    assert not set(settings(UNITS / "tighter.conf")) & set(PRIVATE_MOUNTS)


def test_the_images_unit_has_none_either() -> None:
    image = ROOT / "packaging" / "guest-image" / "root" / "etc" / "systemd" / "system" / "uvmd.service"
    assert not set(settings(image)) & {*PRIVATE_MOUNTS, *HANDED_DOWN}


def test_the_tighter_unit_leaves_what_ordinary_containers_and_the_daemon_need() -> None:
    text = (UNITS / "tighter.conf").read_text()
    dropped = set(re.findall(r"CAP_[A-Z_]+", "".join(re.findall(r"(?m)^CapabilityBoundingSet=.*", text))))
    by_default = (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE "
        "SYS_CHROOT KILL AUDIT_WRITE"
    )
    needed = "SYS_ADMIN NET_ADMIN SYS_PTRACE SYS_RESOURCE DAC_READ_SEARCH IPC_LOCK SYS_BOOT SYSLOG SYS_NICE"
    assert not dropped & {f"CAP_{name}" for name in f"{by_default} {needed}".split()}
