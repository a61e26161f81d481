"""`uvmctl attach`, `layers`, `mounts`, `detach` and `image` as an operator types them, on real devices."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guest.harness.guest import Guest
from support import machine
from support.daemon import ENVIRONMENT
from uvmd.api.testing.guest.leaks import assert_nothing_left, holdings

LAYER, SCRATCH, MEMORY = "/run/mounts/scsi/m0", "/run/mounts/scsi/m1", "/run/layers/p0"
ROOT, SHARED = "/run/gcs/c/web/rootfs", "/run/shared"
PAGE = 2 << 20


class Operator:
    """Types commands of `uvmctl`, which is the guest's host then."""

    def __init__(self, guest: Guest) -> None:
        self._address = f"unix:{guest.host.path}"

    def __call__(self, *words: str, status: int = 0) -> str:
        """Return what a command printed; of one that fails as expected, its error."""
        ended = subprocess.run(
            [str(machine.BIN / "uvmctl"), *words],
            env={**ENVIRONMENT, "UVMD_HOST": self._address},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == status, f"{words}: {ended.stdout}{ended.stderr}"
        return ended.stderr if status else ended.stdout

    def mounts(self) -> dict[str, dict[str, Any]]:
        return {row["target"]: row for row in json.loads(self("mounts", "--json"))}


@pytest.fixture
def guest_before(fresh_guest: Guest) -> Iterator[Guest]:
    """A guest whose host is nobody but `uvmctl`, and that holds nothing more in the end."""
    assert fresh_guest.bridge
    fresh_guest.hang_up()
    fresh_guest.host.refuse()
    before = fresh_guest.call(holdings)
    yield fresh_guest
    assert_nothing_left(fresh_guest, before)
    fresh_guest.assert_kernel_is_calm()


@pytest.fixture
def uvmctl(guest_before: Guest) -> Operator:
    return Operator(guest_before)


@pytest.fixture
def layer(uvmctl: Operator, tmp_path: Path) -> Path:
    """An image that `uvmctl image` made of a folder."""
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "root" / "etc" / "name").write_text("in the layer\n")
    made = json.loads(uvmctl("image", "build", str(tmp_path / "root"), "-o", f"{tmp_path}/l.img", "--json"))
    assert uvmctl("image", "verify", f"{tmp_path}/l.img", "--root-hash", made["images"][0]["root_hash"])
    return tmp_path / "l.img"


def test_layers_on_disks_come_are_shown_and_go(guest_before: Guest, uvmctl: Operator, layer: Path) -> None:
    guest = guest_before
    disks = [guest.add_disk(layer, lun=1, read_only=True), guest.add_disk(guest.image("scratch", 32), lun=2)]
    uvmctl("attach", "scsi", "--read-only", "0:1", LAYER)
    uvmctl("attach", "scsi", "--format", "ext4", "2", SCRATCH)
    guest.sh("mkdir /run/over")
    uvmctl("layers", "--scratch", f"{SCRATCH}/web", ROOT, LAYER, "/run/over")
    assert guest.sh(f"cat {ROOT}/etc/name; touch {ROOT}/new; ls {SCRATCH}/web/upper") == "in the layer\nnew\n"
    rows = uvmctl.mounts()
    assert {path: row["kind"] for path, row in rows.items() if path in (LAYER, SCRATCH, ROOT)} == {
        LAYER: "RO",
        SCRATCH: "RW",
        ROOT: "Overlay",
    }
    assert rows[LAYER]["source"] == disks[0].wait()
    assert rows[LAYER]["used_by"] == [ROOT]
    shown = uvmctl("mounts").splitlines()
    assert shown[0].split()[:4] == ["TARGET", "SOURCE", "KIND", "ENCRYPTED"]
    assert len(shown) == 1 + len(rows)
    uvmctl("detach", SCRATCH, LAYER, ROOT)
    assert uvmctl("mounts") == "no mounts\n"
    for lun, disk in ((1, disks[0]), (2, disks[1])):
        node = disk.wait()
        uvmctl("detach", "--scsi", f"0:{lun}")
        assert "No such file" in guest.sh(f"ls {node} 2>&1", check=False)
        disk.remove()
    guest.sh("rmdir /run/over")


def test_a_part_of_persistent_memory_comes_and_goes(
    guest_before: Guest, uvmctl: Operator, layer: Path, tmp_path: Path
) -> None:
    memory = tmp_path / "memory.img"
    size = layer.stat().st_size
    content = bytes(PAGE) + layer.read_bytes()
    memory.write_bytes(content.ljust(-(-len(content) // PAGE) * PAGE, b"\0"))
    number = guest_before.add_pmem(memory).wait().removeprefix("/dev/pmem")
    said = uvmctl("attach", "pmem", number, "--offset", str(PAGE), MEMORY, status=2)
    assert "--offset and --size go together" in said
    uvmctl("attach", "pmem", number, "--offset", str(PAGE), "--size", str(size), MEMORY)
    assert guest_before.read(f"{MEMORY}/etc/name") == "in the layer\n"
    assert f"dm-linear-pmem{number}-{PAGE}-{size}" in guest_before.sh("dmsetup ls")
    uvmctl("detach", MEMORY)
    assert "No devices" in guest_before.sh("dmsetup ls")


def test_a_shared_folder_comes_and_goes(guest_before: Guest, uvmctl: Operator) -> None:
    guest = guest_before
    guest.sh(f"mkdir {SHARED}; mount -t tmpfs shared {SHARED}; echo from the host > {SHARED}/file")
    port = guest.serve_9p(SHARED)
    path = "/run/gcs/c/web/mounts/m0"
    uvmctl("attach", "9p", "--port", str(port), "--share", SHARED, "--read-only", path)
    assert guest.read(f"{path}/file") == "from the host\n"
    assert uvmctl.mounts()[path]["kind"] == "RO"
    uvmctl("detach", path)
    guest.sh(f"umount {SHARED}; rmdir {SHARED}; pkill diod", check=False)


def test_what_is_wrong_is_said_and_leaves_nothing(guest_before: Guest, uvmctl: Operator, layer: Path) -> None:
    disk = guest_before.add_disk(layer, lun=1, read_only=True)
    node = disk.wait()
    for words, text in (
        (("attach", "scsi", "9", LAYER), "SCSI disk 0:0:0:9 did not come within"),
        (("attach", "scsi", "4:0", LAYER), "SCSI controller 4: there are 0 to 3"),
        (
            ("attach", "scsi", "--filesystem", "xfs", "--ro", "1", LAYER),
            f"mounting: {node} at {LAYER} as xfs:",
        ),
        (("attach", "scsi", "--ro", "1", "/run/../etc/x"), "not a clean absolute path"),
        (("attach", "pmem", "77", MEMORY), "/dev/pmem77 did not come within"),
        (("detach", LAYER), f"nothing that a request has mounted is at {LAYER}"),
    ):
        assert text in uvmctl(*words, status=1)
    uvmctl("attach", "scsi", "--ro", "--block-device", "1", "/run/disks/data")
    assert guest_before.sh("readlink /run/disks/data") == f"{node}\n"
    assert "already exists" in uvmctl("attach", "scsi", "--ro", "1", "/run/disks/data", status=1)
    uvmctl("detach", "--scsi", "1", "/run/disks/data")
    disk.remove()
