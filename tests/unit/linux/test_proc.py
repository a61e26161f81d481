"""Lines of /proc, and what the kernel says directly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.linux import devices, proc, syscalls

STAT = b"1234 (a b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20 21\n"


def test_the_start_time_is_field_22_whatever_the_command() -> None:
    assert proc.parse_start_time(STAT) == 987654
    with pytest.raises(ValueError, match="short"):
        proc.parse_start_time(b"1 (x) S 1")
    assert proc.start_time(os.getpid()) > 0
    assert proc.start_time(2**22 + 5) == 0


def test_this_process_shares_its_own_namespaces() -> None:
    assert proc.shares_namespace(os.getpid(), "net")
    with pytest.raises(FileNotFoundError):
        proc.shares_namespace(2**22 + 5, "net")


@given(st.binary(max_size=80))
def test_a_line_that_is_none_is_a_value_error(line: bytes) -> None:
    try:
        proc.parse_start_time(line)
    except ValueError:
        pass


MOUNTINFO = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard
60 27 0:9 / /run/a\\040b\\134c rw - tmpfs none rw
61 27 0:9 / /run/a rw - tmpfs none
garbage
"""


def test_mounts_are_read_with_their_escapes() -> None:
    found = list(proc.parse_mountinfo(MOUNTINFO))
    assert [mount.target for mount in found] == ["/proc", "/", "/run/a b\\c", "/run/a"]
    assert found[1] == proc.Mount("/", "ext4", "/dev/vda", "rw,relatime,rw,discard")
    assert not proc.root_is_initramfs(found)
    assert proc.root_is_initramfs([proc.Mount("/", "rootfs", "rootfs", "rw")])
    assert not proc.root_is_initramfs([])


@given(st.text(max_size=200))
def test_any_text_is_taken_for_a_mount_table(text: str) -> None:
    list(proc.parse_mountinfo(text))


def test_this_machine_s_own_mounts_are_found() -> None:
    assert any(mount.target == "/proc" and mount.fstype == "proc" for mount in proc.mounts())
    assert "/proc" in proc.mounts_at_or_below("/proc")
    assert "/proc" in proc.mounts_at_or_below("/")
    assert proc.mounts_at_or_below("/pro") == []
    assert proc.mounts_at_or_below("/nowhere/at/all") == []
    assert proc.total_memory_bytes() > 1 << 20


def test_devices_are_found_sorted_and_only_devices(tmp_path: Path) -> None:
    found = list(devices.find_devices())
    paths = [node.path for node in found]
    assert "/dev/null" in paths
    assert "/dev/console" not in paths
    assert not any(path.startswith(("/dev/pts/", "/dev/shm/")) for path in paths)
    null = next(node for node in found if node.path == "/dev/null")
    assert (null.type, null.major, null.minor) == ("c", 1, 3)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "pts").mkdir()
    assert list(devices.find_devices(str(tmp_path))) == []


def test_system_calls_report_their_errno(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        syscalls.mount("none", str(tmp_path / "nowhere"), "tmpfs")
    fd = os.open(tmp_path, os.O_PATH)
    with pytest.raises(FileNotFoundError):
        syscalls.openat2(fd, "nowhere", os.O_RDONLY, resolve=syscalls.RESOLVE_BENEATH)
    os.close(fd)
