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
DAEMON, MONITOR, TIGHTER = "5.6", "9.6", "7.6"
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


def settings(*units: Path) -> dict[str, str]:
    return dict(found for unit in units for found in re.findall(r"(?m)^([A-Za-z]+)=(.*)$", unit.read_text()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The units with programs that are there, so that nothing but the units is judged."""
    for unit in UNITS.glob("uvmd*"):
        (tmp_path / unit.name).write_text(re.sub(r"/opt/uvmd/bin/\w+", "/bin/true", unit.read_text()))
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


def section(title: str) -> str:
    """The part of the page below a heading."""
    return re.split(rf"(?m)^## {re.escape(title)}$", PAGE.read_text())[1].partition("\n## ")[0]


@pytest.mark.parametrize("name", ["uvmd.service", "uvmd-monitor.service", "uvmd.slice"])
def test_systemd_takes_the_unit_and_has_nothing_to_say(folder: Path, name: str) -> None:
    done = analyze("verify", "--man=no", "--generators=no", folder / name)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "uvmd" in line]) == (0, [])


@pytest.mark.parametrize(
    ("name", "score", "title"),
    [("uvmd", DAEMON, "The daemon"), ("uvmd-monitor", MONITOR, "The monitor")],
)
def test_the_audits_score_and_the_reason_of_each_open_line_are_in_the_docs(
    folder: Path, name: str, score: str, title: str
) -> None:
    found, lines = audit(folder / f"{name}.service")
    assert found == score
    assert f"**{score}**" in section(title)
    rows = " ".join(re.findall(r"(?m)^\| (`.*?) \|", section(title)))
    assert lines
    # CapabilityBoundingSet and the filters have one row each: one reason for all of their lines.
    missing = {line.partition("=")[0] for line in lines} - set(re.findall(r"`([A-Za-z]+)=", rows))
    assert not missing


def test_the_tighter_monitors_score_is_the_one_in_the_docs(folder: Path) -> None:
    drop_ins = folder / "uvmd-monitor.service.d"
    drop_ins.mkdir()
    shutil.copy(UNITS / "tighter.conf", drop_ins)
    assert audit(folder / "uvmd-monitor.service")[0] == TIGHTER
    assert f"**{TIGHTER}**" in section("Tighter")


def test_no_unit_has_an_option_that_hides_mounts() -> None:
    image = ROOT / "packaging" / "guest-image" / "root" / "etc" / "systemd" / "system"
    units = [*UNITS.glob("*.service"), UNITS / "tighter.conf", *image.glob("uvmd*/*.conf")]
    assert len(units) == 5
    assert not set(settings(*units)) & set(PRIVATE_MOUNTS)


def test_the_monitor_has_no_option_that_binds_containers() -> None:
    assert not set(settings(UNITS / "uvmd-monitor.service")) & set(HANDED_DOWN)


def test_the_daemons_unit_refuses_no_call_that_the_daemon_allows_itself() -> None:
    from uvmd.daemon.confinement import denied
    from uvmd.linux import seccomp

    groups = settings(UNITS / "uvmd.service")["SystemCallFilter"].removeprefix("~").split()
    assert groups
    for group in groups:
        listed = analyze("syscall-filter", group).stdout.split()
        refused = set(listed) & set(seccomp._NUMBERS)
        assert refused <= set(denied(powers_off=True)), group


def test_the_tighter_unit_leaves_what_ordinary_containers_need() -> None:
    text = (UNITS / "tighter.conf").read_text()
    dropped = set(re.findall(r"CAP_[A-Z_]+", "".join(re.findall(r"(?m)^CapabilityBoundingSet=.*", text))))
    by_default = (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE "
        "SYS_CHROOT KILL AUDIT_WRITE"
    )
    needed = "SYS_ADMIN NET_ADMIN SYS_PTRACE SYS_RESOURCE DAC_READ_SEARCH IPC_LOCK SYS_NICE"
    assert not dropped & {f"CAP_{name}" for name in f"{by_default} {needed}".split()}
