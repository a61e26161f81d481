"""The image as it is delivered: it boots to a uvmd that answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from guest.harness.guest import Guest
from guest.harness.snapshots import boot_product
from guest.harness.timeline import Boot, negotiate
from uvmd.api.testing.guest.profiles import PROFILES

if TYPE_CHECKING:
    from guestimage.layers import Image

#: Ten seconds on a quiet machine under emulation; the bound is for a busy one.
BOOT_S = 60


@pytest.fixture(scope="module")
def booted(uvm_image: Image) -> Iterator[tuple[Guest, Boot]]:
    made = boot_product(PROFILES["v2"])
    try:
        yield made, negotiate(made)
    finally:
        made.close()


def test_it_boots_to_a_negotiated_bridge(
    booted: tuple[Guest, Boot], capsys: pytest.CaptureFixture[str]
) -> None:
    _, boot = booted
    with capsys.disabled():
        print("\n" + "\n".join(f"    {line}" for line in boot.lines()))
    assert boot.negotiated < BOOT_S


def test_uvmd_is_its_service_and_nothing_has_failed(booted: tuple[Guest, Boot]) -> None:
    made, _ = booted
    assert made.daemon.state["ActiveState"] == "active"
    assert made.sh("systemctl list-units --failed --no-legend --plain") == ""
    made.assert_kernel_is_calm()


def test_its_commands_are_there(booted: tuple[Guest, Boot], uvm_image: Image) -> None:
    made, _ = booted
    assert made.sh("uvmd --version && uvmd check", timeout_s=120).endswith("ok\n")
    # As the Debian package, whose files are as it brought them.
    assert made.sh("dpkg-query -W -f '${Status}' uvmd") == "install ok installed"
    changed = made.sh("dpkg --verify uvmd", check=False).splitlines()
    assert [line.split()[-1] for line in changed if "/usr/share/" not in line] == ["/etc/uvmd/uvmd.toml"]
    assert "vm.agent" in made.sh("uvmd config | grep etc/uvmd")
    assert uvm_image.root.stat().st_size < 150 << 20


def test_it_runs_what_it_was_built_from(booted: tuple[Guest, Boot]) -> None:
    made, _ = booted
    path = made.sh("/opt/uvmd/bin/python -I -c 'import uvmd; print(uvmd.__file__)'")
    assert path.startswith("/opt/uvmd/lib/python3"), path
    # A root that is never written to: what changes is in memory.
    assert "lowerdir=/lower" in made.sh("findmnt -no OPTIONS /")
