"""What is on a device by its first bytes, and making a file system."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.disks import ext4
from uvmd.api.testing import FakeRun, Finished
from uvmd.api.testing.kernel import FakeKernel
from uvmd.errors import DeadlineExceeded, Failed
from uvmd.linux import filesystems
from uvmd.linux.filesystems import Content, parse_head


def at(position: int, text: bytes) -> bytes:
    return (bytes(position) + text).ljust(0x11000, b"\0")


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"", Content("")),
        (bytes(0x11000), Content("")),
        (ext4(), Content("ext4")),
        (ext4(journal=True), Content("ext4", journal=True)),
        (ext4()[:1090], Content("ext4")),
        (b"XFSB", Content("xfs")),
        (b"LUKS\xba\xbe\0\2", Content("LUKS")),
        (at(0x10040, b"_BHRfS_M"), Content("btrfs")),
        (at(512, b"EFI PART"), Content("a partition table")),
        (at(510, b"\x55\xaa"), Content("a partition table or FAT")),
        (at(4086, b"SWAPSPACE2"), Content("swap")),
    ],
)
def test_what_is_on_a_device_is_told_by_its_first_bytes(head: bytes, found: Content) -> None:
    assert parse_head(head) == found


def test_only_what_is_mounted_here_is_a_file_system() -> None:
    assert [Content(name).filesystem for name in ("ext4", "xfs", "btrfs", "")] == ["ext4", "xfs", "", ""]


@given(st.binary(max_size=4096))
def test_any_bytes_are_something_or_nothing(head: bytes) -> None:
    assert parse_head(head).filesystem in ("", *filesystems.MOUNTABLE)


def test_a_read_only_mount_never_replays_a_journal() -> None:
    options = filesystems.read_only_options
    assert options(Content("ext4", journal=True), "ext4") == "noload"
    assert options(Content("ext4"), "ext4") == ""
    assert options(Content("xfs"), "xfs") == "norecovery"
    assert options(Content(""), "erofs") == ""


def test_a_device_is_probed_by_path_or_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = FakeKernel(tmp_path)
    kernel.install(monkeypatch)
    path = kernel.add_device("sda", ext4(journal=True))
    assert filesystems.probe(str(path)) == "ext4"
    fd = os.open(path, os.O_RDONLY)
    assert filesystems.content(fd).journal
    os.close(fd)
    with pytest.raises(FileNotFoundError):
        filesystems.probe(str(kernel.dev / "sdb"))


def test_the_distribution_s_tools_make_file_systems() -> None:
    run = FakeRun()
    filesystems.format(run, "/dev/sda", "ext4", 0)
    filesystems.format(run, "/dev/mapper/crypt", "xfs", 0)
    assert run.calls == [("mkfs.ext4", "/dev/sda"), ("mkfs.xfs", "-f", "/dev/mapper/crypt")]


def test_a_tool_s_own_words_are_in_the_error() -> None:
    def refuse(argv: Sequence[str]) -> Finished:
        return Finished(1, b"mke2fs 1.47\n\n/dev/sda is apparently in use\n")

    with pytest.raises(Failed) as caught:
        filesystems.format(FakeRun(refuse), "/dev/sda", "ext4", 0)
    assert str(caught.value) == (
        "ext4 format: mkfs.ext4 failed to format /dev/sda: failed to execute mkfs.ext4: "
        "mke2fs 1.47; /dev/sda is apparently in use: exit status 1"
    )
    with pytest.raises(Failed, match=r"^xfs format: mkfs\.xfs failed with mke2fs"):
        filesystems.format(FakeRun(refuse), "/dev/sda", "xfs", 0)


def test_a_tool_that_is_not_there_or_too_slow_is_said_so() -> None:
    def missing(argv: Sequence[str]) -> Finished:
        raise FileNotFoundError(2, "No such file or directory", "mkfs.xfs")

    with pytest.raises(Failed, match=r"mkfs\.xfs: no such file or directory"):
        filesystems.format(FakeRun(missing), "/dev/sda", "xfs", 0)
    with pytest.raises(DeadlineExceeded, match=r"mkfs\.ext4: killed after 0.0 s, at its deadline"):
        filesystems.format(FakeRun(lambda argv: Finished(-9, timed_out=True)), "/dev/sda", "ext4", 0)


@pytest.mark.parametrize("fstype", ["", "fake", "btrfs", "ext4 -n"])
def test_other_file_systems_are_not_made(fstype: str) -> None:
    run = FakeRun()
    with pytest.raises(Failed, match=f"unsupported filesystem {fstype} requested for device"):
        filesystems.format(run, "/dev/sda", fstype, 0)
    assert run.calls == []


@given(st.binary(max_size=3000))
def test_the_last_words_are_one_short_line(output: bytes) -> None:
    text = filesystems.last_words(output)
    assert len(text) <= 1003
    assert "\n" not in text


def test_a_tool_s_usage_is_not_among_its_last_words() -> None:
    said = b"Filesystem must be larger than 300MB.\nUsage: mkfs.xfs\n/* blocksize */\t\t[-b size=num]\n"
    assert filesystems.last_words(said) == "Filesystem must be larger than 300MB."
