"""SCSI addresses to devices, on a constructed tree."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from uvmd.api.testing.kernel import FakeKernel
from uvmd.errors import Failed
from uvmd.linux import block, scsi_ids


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    made = FakeKernel(tmp_path)
    made.install(monkeypatch)
    return made


def opened(kernel: FakeKernel, host: int, lun: int, partition: int = 0) -> str:
    fd, path = scsi_ids.open_disk(host, lun, partition, str(kernel.sys), str(kernel.dev))
    os.close(fd)
    return os.path.relpath(path, kernel.dev)


def test_a_disk_is_found_by_host_and_lun_whatever_its_letter(kernel: FakeKernel) -> None:
    kernel.add_disk(2, 0, "sdc")
    kernel.add_disk(3, 0, "sda", partitions=[1, 2])
    kernel.add_disk(2, 11, "sdb")
    assert opened(kernel, 2, 0) == "sdc"
    assert opened(kernel, 3, 0) == "sda"
    assert opened(kernel, 3, 0, 2) == "sda2"
    assert opened(kernel, 2, 11) == "sdb"


@pytest.mark.parametrize("missing", ["device", "block", "name", "node", "partition", "partition node"])
def test_each_thing_that_is_not_there_yet_is_enoent(kernel: FakeKernel, missing: str) -> None:
    if missing != "device":
        folder = kernel.scsi(2, 1)
        folder.mkdir()
        if missing != "block":
            (folder / "block").mkdir()
            if missing != "name":
                (folder / "block" / "sda").mkdir()
                if missing.startswith("partition"):
                    kernel.add_device("sda")
                    if missing == "partition node":
                        (folder / "block" / "sda" / "sda1").mkdir()
    with pytest.raises(FileNotFoundError):
        opened(kernel, 2, 1, 1 if missing.startswith("partition") else 0)


def test_two_disks_of_one_address_are_refused(kernel: FakeKernel) -> None:
    kernel.add_disk(2, 1, "sda")
    (kernel.scsi(2, 1) / "block" / "sdb").mkdir()
    with pytest.raises(Failed, match='more than one block device could match SCSI ID "2:0:0:1"'):
        opened(kernel, 2, 1)


def test_a_node_that_is_no_device_is_no_disk(kernel: FakeKernel) -> None:
    kernel.add_disk(2, 1, "sda")
    kernel.numbers.clear()
    with pytest.raises(OSError) as caught:
        opened(kernel, 2, 1)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOTBLK, str(kernel.dev / "sda"))


def test_all_devices_of_a_lun_are_named(kernel: FakeKernel) -> None:
    kernel.add_disk(2, 1, "sda", partitions=[2, 1])
    (kernel.scsi(2, 1) / "block" / "sda" / "queue").mkdir()
    found = scsi_ids.paths_of(2, 1, str(kernel.sys), str(kernel.dev))
    assert [os.path.relpath(path, kernel.dev) for path in found] == ["sda", "sda1", "sda2"]
    assert scsi_ids.paths_of(2, 2, str(kernel.sys), str(kernel.dev)) == []


def test_what_is_there_instead_is_said(kernel: FakeKernel) -> None:
    assert scsi_ids.seen(2, 0, str(kernel.sys)) == "no LUN on SCSI host 2"
    kernel.add_disk(2, 11, "sda")
    kernel.add_disk(2, 2, "sdb", partitions=[1])
    kernel.add_disk(12, 3, "sdc")
    assert scsi_ids.seen(2, 0, str(kernel.sys)) == "LUN 2, 11 on SCSI host 2"
    assert scsi_ids.seen(2, 2, str(kernel.sys)) == "sdb with sdb1"
    assert scsi_ids.seen(2, 11, str(kernel.sys)) == "sda with no partitions"


def test_unplugging_writes_to_delete_and_twice_is_fine(kernel: FakeKernel) -> None:
    kernel.add_disk(2, 1, "sda")
    assert scsi_ids.unplug(2, 1, str(kernel.sys))
    assert (kernel.scsi(2, 1) / "delete").read_text() == "1\n"
    assert not scsi_ids.unplug(2, 2, str(kernel.sys))


def test_partitions_of_disks_that_end_with_a_digit_have_a_p() -> None:
    assert block.partition_name("sda", 0) == "sda"
    assert block.partition_name("sda", 12) == "sda12"
    assert block.partition_name("nvme0n1", 2) == "nvme0n1p2"


def test_a_device_s_size_is_where_it_ends(kernel: FakeKernel) -> None:
    kernel.add_device("sda", size=12288)
    fd = block.open_device(str(kernel.dev / "sda"))
    assert block.size_bytes(fd) == 12288
    os.close(fd)


@pytest.mark.root
def test_real_devices_have_numbers_and_other_files_have_none(tmp_path: Path) -> None:
    os.mknod(tmp_path / "loop", 0o600 | 0o060000, os.makedev(7, 3))
    assert block.device_number(str(tmp_path / "loop")) == (7, 3)
    for other in (tmp_path, Path("/dev/null")):
        with pytest.raises(OSError) as caught:
            block.device_number(str(other))
        assert caught.value.errno == errno.ENOTBLK
