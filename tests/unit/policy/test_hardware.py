"""What counts as a confidential VM."""

from __future__ import annotations

from pathlib import Path

import pytest

from uvmd.policy.hardware import SEV, TDX, find_hardware

GUEST = "processor : 0\nflags\t\t: fpu vme hypervisor lahf_lm\nbugs : hypervisor\n"
BARE = "processor : 0\nflags\t\t: fpu vme lahf_lm\nbugs : hypervisor\n"


def make(root: Path, devices: list[str], cpuinfo: str | None = GUEST) -> str:
    for path in ["dev", "proc"]:
        (root / path).mkdir()
    for device in devices:
        (root / "dev" / device).touch()
    if cpuinfo is not None:
        (root / "proc/cpuinfo").write_text(cpuinfo)
    return str(root)


@pytest.mark.parametrize(
    ("devices", "kinds"),
    [
        ([], set()),
        (["null"], set()),
        (["sev"], {SEV}),
        (["sev-guest"], {SEV}),
        (["sev", "sev-guest"], {SEV}),
        (["tdx_guest"], {TDX}),
        (["tdx_guest", "sev-guest"], {SEV, TDX}),
    ],
)
def test_a_guest_with_one_of_the_devices_is_confidential(
    tmp_path: Path, devices: list[str], kinds: set[str]
) -> None:
    assert find_hardware(make(tmp_path, devices)) == kinds


def test_the_host_of_confidential_vms_is_not_one(tmp_path: Path) -> None:
    assert find_hardware(make(tmp_path, ["sev"], BARE)) == frozenset()


@pytest.mark.parametrize(("device", "kind"), [("sev-guest", SEV), ("tdx_guest", TDX)])
def test_a_hypervisor_that_denies_itself_changes_nothing(tmp_path: Path, device: str, kind: str) -> None:
    # CPUID's bit is not measured, and the host's to set.
    assert find_hardware(make(tmp_path, ["sev", device], BARE)) == {kind}


@pytest.mark.parametrize("cpuinfo", [None, "processor : 0\nFeatures : fp asimd\n", ""])
def test_in_doubt_there_is_a_hypervisor(tmp_path: Path, cpuinfo: str | None) -> None:
    assert find_hardware(make(tmp_path, ["sev-guest"], cpuinfo)) == {SEV}


def test_a_device_that_cannot_be_looked_at_exists(tmp_path: Path) -> None:
    root = make(tmp_path, [])
    (tmp_path / "dev").rmdir()
    (tmp_path / "dev").write_text("")  # stat below a file: ENOTDIR, not ENOENT
    assert find_hardware(root) == {SEV, TDX}
