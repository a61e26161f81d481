"""A scratch disk that only this VM can read: its key, its header, and what the host may do to both."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest

from uvmd.api.testing import Finished
from uvmd.api.testing.kernel import FakeKernel
from uvmd.errors import Failed, Refused
from uvmd_storage_scsi import crypt

Cases = Mapping[str, Mapping[str, Any]]


def test_an_encrypted_scratch_is_xfs_over_dm_crypt_with_integrity(
    bench: Any, kernel: FakeKernel, cases: Cases
) -> None:
    enforcer = bench.be_strict()
    bench.add_disk(**cases["encrypted"])
    name = "dm-crypt-scsi-contr2-lun1-p0"
    assert kernel.mounted(cases["encrypted"]["MountPath"]).source == str(kernel.mapper / name)
    assert [entry for entry in kernel.log if entry.startswith(("cryptsetup", "mkfs"))] == [
        f"cryptsetup luksFormat {kernel.dev / 'sda'}",
        f"cryptsetup luksOpen {kernel.dev / 'sda'}",
        f"mkfs.xfs {kernel.mapper / name}",
    ]
    assert enforcer.asked[0][1]["encrypted"] is True
    assert bench.table.is_encrypted(f"{cases['encrypted']['MountPath']}/scratch/abc")


def test_a_header_that_the_host_puts_on_an_encrypted_disk_is_not_read(
    bench: Any, kernel: FakeKernel, cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, real = kernel.dev / "sda", kernel.run.cryptsetup
    found: list[bytes] = []

    def hostile(argv: Any, fds: Any) -> Finished:
        if argv[1] == "luksOpen":
            found.append(disk.read_bytes())
            with disk.open("r+b") as file:
                file.write(b"LUKS\xba\xbecipher_null-ecb".ljust(64, b"\0"))
        return real(argv, fds)

    monkeypatch.setattr(kernel.run, "cryptsetup", hostile)
    bench.add_disk(**cases["encrypted"])
    (opened,) = kernel.dm.devices.values()
    assert opened.active
    assert opened.active[0].params.startswith("aes-xts-plain64 ")
    assert b"LUKS" not in found[0], "ours was never there"


def test_a_host_that_does_not_repeat_encrypted_still_has_the_key_forgotten(
    bench: Any, kernel: FakeKernel, cases: Cases
) -> None:
    bench.be_strict()
    before = kernel.state()
    bench.add_disk(**cases["encrypted"])
    bench.remove_disk(**{**cases["encrypted"], "Encrypted": False})
    assert kernel.state() == before


def test_encrypted_said_of_a_disk_that_is_not_is_refused(
    bench: Any, kernel: FakeKernel, cases: Cases
) -> None:
    bench.add_disk(**cases["xfs"])
    with pytest.raises(Refused, match="encrypted flag wrong, provided true, expected false"):
        bench.remove_disk(**cases["encrypted"])
    assert bench.mounted() == [cases["xfs"]["MountPath"]]


def test_a_crypt_device_that_is_busy_for_a_moment_is_tried_once_more(
    bench: Any, kernel: FakeKernel, cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def pause(seconds: float) -> None:
        slept.append(seconds)
        kernel.run.answers.clear()

    monkeypatch.setattr(crypt.time, "sleep", pause)
    kernel.run.answers["cryptsetup luksOpen"] = Finished(5, b"Device is busy.")
    bench.add_disk(**cases["encrypted"])
    assert slept == [0.5]


def test_a_key_is_never_the_same_and_gone_afterwards(
    bench: Any, kernel: FakeKernel, cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[bytes] = []
    kept: list[int] = []
    real = kernel.run.cryptsetup

    def look(argv: Any, fds: Any) -> Finished:
        if argv[1] == "luksFormat":
            keys.append(os.pread(fds[0], 4096, 0))
            kept.append(os.dup(fds[0]))
        return real(argv, fds)

    monkeypatch.setattr(kernel.run, "cryptsetup", look)
    for _ in range(2):
        bench.add_disk(**cases["encrypted"])
        bench.remove_disk(**cases["encrypted"])
    assert len(set(keys)) == 2
    assert all(len(set(key)) > 200 for key in keys)
    for fd in kept:
        assert os.pread(fd, 4096, 0) == bytes(1024), "wiped, for whoever still has the descriptor"
        os.close(fd)


def test_a_crypt_device_that_cannot_be_closed_is_said_and_the_next_remove_goes_on(
    bench: Any, kernel: FakeKernel, cases: Cases
) -> None:
    before = kernel.state()
    bench.add_disk(**cases["encrypted"])
    kernel.run.answers["cryptsetup luksClose"] = Finished(5, b"still in use")
    with pytest.raises(
        Failed, match=r"failed to cleanup dm-crypt target dm-crypt-scsi-contr2-lun1-p0: .*use"
    ):
        bench.remove_disk(**cases["encrypted"])
    kernel.run.answers.clear()
    bench.remove_disk(**cases["encrypted"])
    assert kernel.state() == before
