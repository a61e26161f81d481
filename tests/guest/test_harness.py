"""The test bed itself: devices come and go, what hangs is killed, what is left is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from guest.harness import image
from guest.harness.guest import Guest
from guest.harness.snapshots import booted
from uvmd.api.testing.guest.accelerator import boots
from uvmd.api.testing.guest.errors import CommandFailed, GuestHung
from uvmd.api.testing.guest.leaks import assert_nothing_left, differences, holdings
from uvmd.api.testing.guest.profiles import PROFILES


def test_shell_and_functions_run_in_the_guest(guest: Guest) -> None:
    def add(one: int, other: int) -> int:
        return one + other

    assert guest.call(add, 2, 3) == 5
    assert guest.sh("echo $((2 + 3))") == "5\n"
    assert guest.read("/etc/hostname") == "uvm\n"
    with pytest.raises(CommandFailed, match="ended with 3:\nwhy"):
        guest.sh("echo why >&2; exit 3")
    with pytest.raises(CommandFailed, match=r"longer than 0\.2 s"):
        guest.sh("sleep 60", timeout_s=0.2)


def test_a_function_that_raises_shows_its_traceback(guest: Guest) -> None:
    def divide() -> float:
        return 1 / 0

    with pytest.raises(CommandFailed, match="ZeroDivisionError"):
        guest.call(divide)
    with pytest.raises(CommandFailed, match="ZeroDivisionError"):
        guest.call(divide, fork=True)


def test_what_a_forked_function_does_to_its_process_ends_with_it(guest: Guest) -> None:
    def change() -> str:
        import os

        os.chdir("/proc")
        return os.getcwd()

    def where() -> str:
        import os

        return os.getcwd()

    assert guest.call(change, fork=True) == "/proc"
    assert guest.call(where) == "/"


def test_a_large_answer_arrives_whole(guest: Guest) -> None:
    def letters(count: int) -> str:
        return "x" * count

    assert guest.call(letters, 1_000_000) == "x" * 1_000_000


def test_scsi_disks_are_found_by_their_address(guest: Guest) -> None:
    first = guest.add_disk(guest.image("one", 4), lun=1)
    other = guest.add_disk(guest.image("two", 8), controller=1, lun=3, read_only=True)
    assert guest.sh(f"blockdev --getsize64 --getro {first.wait()}").split() == [str(4 << 20), "0"]
    assert guest.sh(f"blockdev --getsize64 --getro {other.wait()}").split() == [str(8 << 20), "1"]
    for disk in (first, other):
        path = disk.wait()
        disk.remove()
        assert guest.sh(f"ls {path} 2>&1", check=False).startswith("ls: cannot access")


def test_a_removed_disk_may_come_back_at_the_same_address(guest: Guest) -> None:
    for size in (1, 2):
        disk = guest.add_disk(guest.image(f"disk{size}", size), lun=1)
        assert guest.sh(f"blockdev --getsize64 {disk.wait()}") == f"{size << 20}\n"
        disk.remove()


def test_persistent_memory_comes_and_goes(guest: Guest) -> None:
    memory = guest.add_pmem(guest.image("pmem", 16))
    device = memory.wait()
    guest.sh(f"mkfs.ext4 -q -b 4096 {device}; mkdir /run/pm; mount -o dax=always {device} /run/pm")
    assert "dax=always" in guest.sh("grep /run/pm /proc/mounts")
    guest.sh("umount /run/pm; rmdir /run/pm")


def test_a_pci_device_comes_and_goes(guest: Guest) -> None:
    device = guest.add_pci("edu", port="rp2")
    address = device.wait()
    assert guest.read(f"/sys/bus/pci/devices/{address}/vendor") == "0x1234\n"
    device.remove()
    assert guest.sh(f"ls /sys/bus/pci/devices/{address} 2>&1", check=False).startswith("ls: cannot access")


def test_a_9p_server_answers_where_the_host_would_be(guest: Guest) -> None:
    guest.sh("mkdir /run/share; mount -t tmpfs share /run/share; echo shared >/run/share/file")

    def mount(port: int) -> str:
        import ctypes
        import os
        import socket

        libc = ctypes.CDLL(None, use_errno=True)
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
            sock.connect((2, port))
            n = sock.fileno()
            options = f"trans=fd,rfdno={n},wfdno={n},version=9p2000.L,msize=65536,aname=/run/share,access=any"
            os.makedirs("/run/mounted", exist_ok=True)
            if libc.mount(b"9p", b"/run/mounted", b"9p", 0, f"{options},uname=root".encode()):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        with open("/run/mounted/file") as file:
            return file.read()

    assert guest.call(mount, guest.serve_9p("/run/share"), fork=True) == "shared\n"
    guest.sh("umount /run/mounted; rmdir /run/mounted; umount /run/share; rmdir /run/share")


def test_the_clock_is_right_and_random_numbers_differ(guest: Guest, fresh_guest: Guest) -> None:
    import time

    def facts() -> list[str]:
        import os
        import time

        return [str(time.time()), os.urandom(16).hex()]

    (now, one), (_, other) = guest.call(facts), fresh_guest.call(facts)
    assert abs(float(now) - time.time()) < 60
    assert one != other


def test_what_is_left_behind_is_seen(fresh_guest: Guest) -> None:
    before = fresh_guest.call(holdings)
    fresh_guest.sh("mkdir /run/left; mount -t tmpfs left /run/left; dmsetup create left --table '0 8 error'")
    lines = differences(before, fresh_guest.call(holdings))
    assert lines == ["block devices: + left", "mounts: + /run/left"]
    with pytest.raises(AssertionError, match="left behind"):
        assert_nothing_left(fresh_guest, before, timeout_s=0)


def test_a_warning_of_the_kernel_is_seen_once(fresh_guest: Guest) -> None:
    fresh_guest.assert_kernel_is_calm()
    fresh_guest.sh("echo '<4>WARNING: made up by a test' >/dev/kmsg")
    with pytest.raises(AssertionError, match="made up"):
        fresh_guest.assert_kernel_is_calm()
    fresh_guest.assert_kernel_is_calm()


def test_a_guest_that_hangs_is_killed_and_shows_its_console(fresh_guest: Guest) -> None:
    fresh_guest.sh("echo last words >/dev/ttyS0")
    fresh_guest.machine.qmp("stop")
    pid = fresh_guest.machine.pid

    def nothing() -> None:
        return None

    with pytest.raises(GuestHung, match=r"(?s)the guest was killed \(QEMU: paused\).*last words"):
        fresh_guest.call(nothing, timeout_s=0.5)
    assert not Path(f"/proc/{pid}").exists()


def test_a_guest_that_panics_is_told_from_one_that_is_slow(fresh_guest: Guest) -> None:
    with pytest.raises(GuestHung, match=r"(?s)QEMU is gone.*sysrq triggered crash"):
        fresh_guest.sh("sysctl -q kernel.printk=8; echo c >/proc/sysrq-trigger", timeout_s=10)


def test_nvdimms_are_for_a_profile_of_their_own(base_snapshot: object) -> None:
    del base_snapshot  # Asked for to be a guest test; uvmd need not run in this one.
    made = booted(PROFILES["nvdimm"]).restore()
    try:
        memory = made.add_pmem(made.image("pmem", 32))
        assert made.sh(f"blockdev --getsize64 {memory.wait()}") == f"{32 << 20}\n"
    finally:
        made.close()


def test_the_probe_of_an_accelerator_boots_and_is_bounded(base_snapshot: object) -> None:
    del base_snapshot  # Asked for to be a guest test.
    of = image.base()
    assert boots(of.kernel, of.initramfs, "tcg", 60)
    assert not boots(of.kernel, of.initramfs, "tcg", 0.1)


def test_two_guests_of_a_snapshot_do_not_share_their_memory(guest: Guest, fresh_guest: Guest) -> None:
    guest.sh("echo one >/run/whose")
    assert fresh_guest.sh("cat /run/whose 2>&1", check=False).startswith("cat:")
    guest.sh("rm /run/whose")
