"""CombinedLayers on the guest's older kernel: by numbers of descriptors, on real disks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from guest.harness.guest import Guest
from support import containers, specs
from support.host import NULL_ID, Refused

DISK = "/run/mounts/scsi/m0"


@pytest.fixture
def vm(guest: Guest) -> Iterator[Guest]:
    """A guest with a scratch disk, and as many directories for layers as one overlay takes.

    The guest's own check finds what is left of the rest.
    """
    drive = guest.add_disk(guest.image("scratch", 64), lun=1)
    guest.sh(f"mkfs.ext4 -q {drive.wait()}; mkdir -p {DISK}; mount {drive.wait()} {DISK}")
    guest.sh("mkdir /run/l && mount -t tmpfs layers /run/l && cd /run/l && mkdir $(seq 0 499) && touch 0/new")
    yield guest
    guest.sh(f"umount {DISK} /run/l; rm -r /run/mounts/scsi /run/l")
    drive.remove()


def settings(name: str, layers: int, **changes: Any) -> dict[str, Any]:
    return {
        "ContainerID": name,
        "ContainerRootPath": f"/run/gcs/c/{name}/rootfs",
        "Layers": [{"Path": f"/run/l/{number}"} for number in range(layers)],
        "ScratchPath": f"{DISK}/scratch/{name}",
        **changes,
    }


@pytest.mark.parametrize("count", [20, 500])
def test_as_many_layers_as_the_kernel_stacks_fit(vm: Guest, count: int) -> None:
    vm.bridge.modify(NULL_ID, "CombinedLayers", settings=settings("many", count))
    vm.sh("test -e /run/gcs/c/many/rootfs/new && touch /run/gcs/c/many/rootfs/written")
    assert vm.sh(f"ls {DISK}/scratch/many/upper") == "written\n"
    vm.bridge.modify(NULL_ID, "CombinedLayers", "Remove", settings("many", count))
    vm.sh(f"rm -r {DISK}/scratch/many")


def test_a_container_lives_on_the_disk_and_takes_its_bundle_with_it(vm: Guest) -> None:
    container = containers.new_id()
    request = settings(container, 0, Layers=[{"Path": "/run/l/0"}, {"Path": "/opt/uvmd/code/rootfs"}])
    vm.bridge.modify(NULL_ID, "CombinedLayers", settings=request)
    spec = specs.container(*containers.shell("cp /bin/busybox /copy"), root=None, readonly=False)
    spec["root"]["path"] = request["ContainerRootPath"]
    vm.bridge.create(container, spec, ScratchDirPath=request["ScratchPath"])
    vm.bridge.start(container)
    assert vm.bridge.execute(container).wait() == 0
    vm.bridge.wait_for_notification(container)
    assert vm.sh(f"ls {request['ScratchPath']}").split() == ["bundle", "upper", "work"]
    vm.bridge.modify(NULL_ID, "CombinedLayers", "Remove", {"ContainerRootPath": request["ContainerRootPath"]})
    vm.bridge.delete(container)
    assert vm.sh(f"ls {DISK}/scratch") == ""


def test_a_full_disk_is_said_and_leaves_nothing(vm: Guest) -> None:
    vm.sh(f"mkdir -p {DISK}/scratch/full; head -c 100M /dev/zero > {DISK}/fill", check=False)
    vm.sh(f"i=0; while mkdir {DISK}/d$i 2>/dev/null; do i=$((i+1)); done", check=False, timeout_s=120)
    with pytest.raises(Refused, match=r"failed to create upper directory in scratch space .*no space left"):
        vm.bridge.modify(NULL_ID, "CombinedLayers", settings=settings("full", 2))
    vm.sh(f"rm -r {DISK}/fill {DISK}/d* {DISK}/scratch/full", timeout_s=120)


def _with_capabilities(lower: str, merged: str) -> list[bool]:
    """Give a file of a layer a capability, and one in the overlay; say whether they have it there."""
    import os
    import struct

    name = "security.capability"
    net_raw = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # linux/capability.h, revision 2
    os.setxattr(f"{lower}/new", name, net_raw)
    os.chmod(f"{merged}/new", 0o755)  # copies it up; a write would take the capability away
    with open(f"{merged}/other", "wb") as file:
        file.write(b"of its own")
    os.setxattr(f"{merged}/other", name, net_raw)
    return [os.getxattr(f"{merged}/{file}", name)[:8] == net_raw[:8] for file in ("new", "other")]


def test_what_containers_do_to_files_is_not_what_the_daemon_may_not(vm: Guest) -> None:
    # An overlay acts with the rights of who mounted it, and the daemon's unit has few.
    merged = "/run/gcs/c/marked/rootfs"
    vm.bridge.modify(NULL_ID, "CombinedLayers", settings=settings("marked", 2))
    assert vm.call(_with_capabilities, "/run/l/0", merged) == [True, True]
    vm.sh(f"cd {merged} && mknod node c 1 3 && chown 7:7 other && chattr +i other && ! rm other 2>/dev/null")
    vm.sh(f"cd {merged} && chattr -i other && rm other")
    vm.bridge.modify(NULL_ID, "CombinedLayers", "Remove", settings("marked", 2))
    vm.sh(f"rm -r {DISK}/scratch/marked")
