"""MappedVirtualDisk on the fake kernel: what is mounted, what the policy is asked, what is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.disks import ext4, layer, root_digest
from uvmd.api.testing import Finished
from uvmd.api.testing.kernel import FakeKernel, FakeMount
from uvmd.errors import DeadlineExceeded, Failed, InUse, InvalidMessage, PolicyDenied, Refused

Cases = Mapping[str, Mapping[str, Any]]
DIGEST = root_digest(ext4(8, journal=True))
ALL = ["layer", "partition", "scratch", "xfs", "encrypted", "link", "read-only link"]


def read_and_write(mode: int) -> str:
    return oct(mode & 0o777)


@pytest.mark.parametrize("strict", [False, True], ids=["loose", "strict"])
@pytest.mark.parametrize("case", ALL)
def test_every_kind_of_disk_comes_and_leaves_nothing(
    bench: Any, kernel: FakeKernel, cases: Cases, case: str, strict: bool
) -> None:
    if strict:
        bench.be_strict()
    before = kernel.state()
    for _ in range(2):
        bench.add_disk(**cases[case])
        assert kernel.state() != before
        assert bench.mounted() == [cases[case]["MountPath"]]
        bench.remove_disk(**cases[case])
        assert kernel.state() == before
        assert bench.mounted() == []
        assert bench.records.get("MappedVirtualDisk", f"path:{cases[case]['MountPath']}") is None
        assert bench.environment.state.load() == {"begun": {}}
    assert (bench.gate.inconsistent, bench.gate.degraded) == (None, None)


def test_a_layer_is_mounted_read_only_without_its_journal(
    bench: Any, kernel: FakeKernel, cases: Cases
) -> None:
    bench.add_disk(**cases["layer"])
    mount = kernel.mounted(cases["layer"]["MountPath"])
    assert (mount.source, mount.fstype, mount.flags, mount.data) == (
        str(kernel.dev / "sdc"),
        "ext4",
        1,
        "noload",
    )
    assert read_and_write(Path(mount.target).stat().st_mode) == "0o700"
    assert read_and_write(Path(mount.target).parent.stat().st_mode) == "0o700"


def test_a_strict_vm_mounts_a_layer_through_dm_verity_by_the_translated_controller(
    bench: Any, kernel: FakeKernel, cases: Cases
) -> None:
    enforcer = bench.be_strict()
    bench.add_disk(**cases["layer"])
    name = f"dm-verity-scsi-contr2-lun0-p0-{DIGEST}"
    assert kernel.mounted(cases["layer"]["MountPath"]).source == str(kernel.mapper / name)
    assert enforcer.asked == [
        (
            "mount_device",
            {
                "target": cases["layer"]["MountPath"],
                "deviceHash": DIGEST,
                "mountPathRegex": "/run/mounts/scsi/m[0-9]+",
            },
        )
    ]
    assert bench.table.rows()[0]["source"] == str(kernel.dev / "sdc"), "the raw device, not what is over it"
    bench.remove_disk(**cases["layer"])
    assert enforcer.asked[1] == ("unmount_device", {"unmountTarget": cases["layer"]["MountPath"]})


def test_verity_can_be_asked_for_without_a_policy(
    another: Callable[..., Any], kernel: FakeKernel, cases: Cases
) -> None:
    bench = another(verity="always")
    bench.add_disk(**cases["layer"])
    assert list(kernel.dm.devices) == [f"dm-verity-scsi-contr2-lun0-p0-{DIGEST}"]
    with pytest.raises(Failed, match="not an ext4 file system"):
        bench.add_disk(MountPath="/run/x", Lun=1, ReadOnly=True)


def test_a_partition_is_mounted_by_its_own_node(bench: Any, kernel: FakeKernel, cases: Cases) -> None:
    bench.add_disk(**cases["partition"])
    assert kernel.mounted(cases["partition"]["MountPath"]).source == str(kernel.dev / "sdb2")


def test_a_scratch_is_formatted_once_and_keeps_what_is_on_it(
    bench: Any, kernel: FakeKernel, cases: Cases
) -> None:
    enforcer = bench.be_strict()
    for _ in range(2):
        bench.add_disk(**cases["scratch"])
        mount = kernel.mounted(cases["scratch"]["MountPath"])
        assert (mount.fstype, mount.flags, mount.data) == ("ext4", 0, "")
        bench.remove_disk(**cases["scratch"])
    assert [entry for entry in kernel.log if entry.startswith("mkfs")] == [f"mkfs.ext4 {kernel.dev / 'sda'}"]
    assert enforcer.asked[0] == (
        "rw_mount_device",
        {
            "target": cases["scratch"]["MountPath"],
            "encrypted": False,
            "ensureFilesystem": True,
            "filesystem": "ext4",
            "mountPathRegex": "/run/gcs/c/[0-9a-fA-F]{64}",
        },
    )
    assert enforcer.points[1] == "rw_unmount_device"


def test_another_file_system_is_replaced_unless_the_operator_says_no(
    bench: Any, another: Callable[..., Any], kernel: FakeKernel, cases: Cases
) -> None:
    bench.add_disk(**cases["scratch"])
    bench.remove_disk(**cases["scratch"])
    careful = another(reformat=False)
    with pytest.raises(Failed, match="sda has ext4, not xfs, and reformat is off"):
        careful.add_disk(**cases["xfs"])
    bench.add_disk(**cases["xfs"])
    assert kernel.mounted(cases["xfs"]["MountPath"]).fstype == "xfs"


def test_a_block_device_is_a_link_straight_to_its_node(bench: Any, kernel: FakeKernel, cases: Cases) -> None:
    enforcer = bench.be_strict()
    bench.add_disk(**cases["link"])
    link = Path(cases["link"]["MountPath"])
    assert link.readlink() == kernel.dev / "sda"
    with pytest.raises(Refused, match="already exists"):
        bench.add_disk(**cases["link"])
    bench.remove_disk(**cases["link"])
    assert enforcer.points == ["mount_blockdev", "mount_blockdev", "unmount_blockdev"]
    bench.add_disk(**cases["read-only link"])
    assert link.readlink() == kernel.mapper / f"dm-verity-scsi-contr2-lun0-p0-{DIGEST}"


def test_only_the_link_that_was_made_is_removed(bench: Any, kernel: FakeKernel, cases: Cases) -> None:
    bench.add_disk(**cases["link"])
    link = Path(cases["link"]["MountPath"])
    link.unlink()
    link.mkdir()
    (link / "file").touch()
    with pytest.raises(Refused, match="no longer the link that was made there"):
        bench.remove_disk(**cases["link"])
    assert (link / "file").exists()


@pytest.mark.parametrize("case", ["layer", "partition", "encrypted", "read-only link"])
def test_one_disk_at_two_paths_goes_with_the_second(
    bench: Any, kernel: FakeKernel, cases: Cases, case: str
) -> None:
    bench.be_strict()
    before = kernel.state()
    first, second = cases[case], {**cases[case], "MountPath": cases[case]["MountPath"] + "-again"}
    bench.add_disk(**first)
    devices = list(kernel.dm.devices)
    bench.add_disk(**second)
    assert list(kernel.dm.devices) == devices
    bench.remove_disk(**first)
    assert list(kernel.dm.devices) == devices, "still under the second mount"
    bench.remove_disk(**second)
    assert kernel.state() == before


@pytest.mark.parametrize(("first", "second"), [("encrypted", "xfs"), ("xfs", "encrypted")])
def test_one_disk_is_not_both_encrypted_and_plain(bench: Any, cases: Cases, first: str, second: str) -> None:
    bench.add_disk(**cases[first])
    again = {**cases[second], "MountPath": cases[second]["MountPath"] + "-again"}
    with pytest.raises(InUse, match=r"sda is in use at .*, where it is"):
        bench.add_disk(**again)


def test_propagation_words_are_the_only_options_that_do_something(
    bench: Any, kernel: FakeKernel, cases: Cases
) -> None:
    options = ["noatime", "rslave", "nosuid", "rshared", "data=ordered"]
    bench.add_disk(**{**cases["layer"], "Options": options})
    path = cases["layer"]["MountPath"]
    assert kernel.log[-3:] == [f"mount {path}", f"propagate 80000 {path}", f"propagate 100000 {path}"]


def test_a_request_without_a_path_only_waits_for_its_disk(bench: Any, kernel: FakeKernel) -> None:
    enforcer = bench.be_strict()
    bench.add_disk(Lun=1)
    bench.remove_disk(Lun=1)
    with pytest.raises(DeadlineExceeded):
        bench.add_disk(Lun=9)
    assert (enforcer.asked, kernel.log) == ([], [])


# What is refused


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"Controller": 256}, InvalidMessage, "Controller"),
        ({"Lun": -1}, InvalidMessage, "Lun"),
        ({"Lun": "1"}, InvalidMessage, "Lun"),
        ({"Partition": 256}, Refused, "Partition is not between 0 and 255"),
        ({"Controller": 3}, DeadlineExceeded, r"SCSI controller 3 did not come within 0\.0 s"),
        (
            {"Lun": 9},
            DeadlineExceeded,
            r"SCSI disk 2:0:0:9 did not come within .* there is LUN 0, 1 on SCSI host 2",
        ),
        (
            {"Controller": 1, "Partition": 3},
            DeadlineExceeded,
            "SCSI disk 3:0:0:0 partition 3 did not come .* there is sdb with sdb1, sdb2",
        ),
        ({"MountPath": "run/x"}, Refused, "not a clean absolute path"),
        ({"MountPath": "/run/../etc"}, Refused, "not a clean absolute path"),
        ({"MountPath": "/run//x"}, Refused, "not a clean absolute path"),
        ({"MountPath": "/"}, Refused, "not a clean absolute path"),
        ({"MountPath": "/run/x\0y"}, Refused, "not a clean absolute path"),
        ({"Filesystem": "ext4\0"}, Refused, "Filesystem is not a name"),
        ({"Filesystem": "fake", "EnsureFilesystem": True}, Refused, "unsupported filesystem fake requested"),
        ({"EnsureFilesystem": True}, Refused, "unsupported filesystem  requested for device"),
        ({"ReadOnly": True, "Encrypted": True}, Refused, "ReadOnly and Encrypted exclude each other"),
        (
            {"Encrypted": True, "EnsureFilesystem": True, "Filesystem": "ext4"},
            Refused,
            "Encrypted needs EnsureFilesystem and the Filesystem xfs",
        ),
        ({"Encrypted": True, "Filesystem": "xfs"}, Refused, "Encrypted needs EnsureFilesystem"),
        ({"Lun": 1}, Failed, "could not get device filesystem type of .*sda$"),
        ({"ReadOnly": True, "EnsureFilesystem": True, "Filesystem": "xfs"}, Failed, "not formatted"),
        ({"Lun": 1, "Filesystem": "ext4"}, Failed, "mounting: .*: invalid argument"),
    ],
)
def test_bad_settings_are_refused_with_the_reason_and_nothing_is_left(
    bench: Any,
    kernel: FakeKernel,
    tmp_path: Path,
    settings: dict[str, Any],
    error: type[Exception],
    text: str,
) -> None:
    before = kernel.state()
    with pytest.raises(error, match=text):
        bench.add_disk(**{"MountPath": str(tmp_path / "run" / "m0"), **settings})
    assert kernel.state() == before
    assert bench.mounted() == []
    assert bench.gate.degraded is None


@pytest.mark.parametrize(
    ("case", "changed", "text"),
    [
        (
            "layer",
            {"Options": []},
            r'with mount options "" denied by policy: expected "ro" \(mvd.ReadOnly=true\)',
        ),
        ("layer", {"Options": ["ro", "rshared"]}, 'with mount options "ro,rshared" denied'),
        (
            "scratch",
            {"Options": ["ro"]},
            r'options "ro" denied by policy: expected "" \(mvd.ReadOnly=false\)',
        ),
        ("link", {"Options": ["x"]}, "denied by policy"),
        ("layer", {"Filesystem": "xfs"}, "filesystem must be ext4 for read-only scsi mounts"),
        ("scratch", {"ReadOnly": True, "Options": ["ro"]}, "not an ext4 file system"),
    ],
)
def test_a_strict_vm_refuses_more_before_it_asks(
    bench: Any, kernel: FakeKernel, cases: Cases, case: str, changed: dict[str, Any], text: str
) -> None:
    enforcer, before = bench.be_strict(), kernel.state()
    with pytest.raises((Refused, Failed), match=text):
        bench.add_disk(**{**cases[case], **changed})
    assert enforcer.asked == []
    assert kernel.state() == before
    assert bench.gate.inconsistent is None


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("layer", "mounting scsi device controller 2 lun 0 onto {path} denied by policy: "),
        ("scratch", "mounting scsi device controller 2 lun 1 onto {path} denied by policy: "),
        ("link", r"creating blockdev symlink at {path} \(-> scsi controller 2 lun 1\) denied by policy: "),
    ],
)
def test_a_policy_that_says_no_ends_it_before_anything_is_made(
    bench: Any, kernel: FakeKernel, cases: Cases, case: str, text: str
) -> None:
    before = kernel.state()
    bench.be_strict(dict.fromkeys(("mount_device", "rw_mount_device", "mount_blockdev"), False))
    with pytest.raises(PolicyDenied, match="^" + text.format(path=cases[case]["MountPath"])):
        bench.add_disk(**cases[case])
    assert kernel.state() == before
    assert bench.mounted() == []


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("layer", "unmounting scsi device at {path} denied by policy: "),
        ("scratch", "unmounting scsi device at {path} denied by policy: "),
        ("link", r"removing blockdev symlink at {path} \(-> scsi controller 2 lun 1\) denied by policy: "),
    ],
)
def test_a_policy_may_keep_a_disk(bench: Any, kernel: FakeKernel, cases: Cases, case: str, text: str) -> None:
    bench.be_strict(dict.fromkeys(("unmount_device", "rw_unmount_device", "unmount_blockdev"), False))
    bench.add_disk(**cases[case])
    mounted = kernel.state()
    with pytest.raises(PolicyDenied, match="^" + text.format(path=cases[case]["MountPath"])):
        bench.remove_disk(**cases[case])
    assert kernel.state() == mounted


@pytest.mark.parametrize("planted", ["file", "symlink", "parent"])
def test_a_mount_point_that_is_something_else_is_refused_and_stays(
    bench: Any, kernel: FakeKernel, tmp_path: Path, planted: str
) -> None:
    (tmp_path / "real").mkdir()
    path = tmp_path / "run"
    if planted == "file":
        path.write_text("kept")
    else:
        path.symlink_to("real")
    before = kernel.state()
    where = path / "m0" if planted == "parent" else path
    with pytest.raises(Failed, match=r"mount point .*: (not a directory|too many levels of symbolic links)"):
        bench.add_disk(MountPath=str(where), ReadOnly=True)
    assert kernel.state() == before


def test_a_link_is_not_made_over_something(bench: Any, kernel: FakeKernel, tmp_path: Path) -> None:
    (tmp_path / "m0").write_text("kept")
    with pytest.raises(Failed, match=r"symlink .*: file exists"):
        bench.add_disk(MountPath=str(tmp_path / "m0"), BlockDev=True)
    assert (tmp_path / "m0").read_text() == "kept"


def test_a_corrupt_layer_is_refused_by_its_superblock(bench: Any, kernel: FakeKernel, cases: Cases) -> None:
    kernel.add_disk(2, 5, "sdd", layer(ext4(8), signature=b"veritas\0"))
    bench.be_strict()
    with pytest.raises(Failed, match="invalid dm-verity super-block signature"):
        bench.add_disk(**{**cases["layer"], "Lun": 5})


# Tools


@pytest.mark.parametrize(
    ("tool", "answer", "case", "text"),
    [
        ("mkfs.ext4", Finished(1, b"no space"), "scratch", "mkfs.ext4: no space: exit status 1"),
        ("mkfs.xfs", Finished(1, b"too small"), "xfs", "xfs format: mkfs.xfs failed with too small"),
        ("mkfs.xfs", Finished(1, b"too small"), "encrypted", "xfs format: mkfs.xfs failed with too small"),
        ("mkfs.xfs", Finished(-9, b"", True), "xfs", "killed after .* at its deadline"),
        (
            "cryptsetup luksFormat",
            Finished(1, b"no"),
            "encrypted",
            "failed to mount encrypted device .*: luksFormat failed: .*: no: exit status 1",
        ),
        ("cryptsetup luksOpen", Finished(1, b"bad"), "encrypted", "luksOpen failed: .*: bad: exit status 1"),
        (
            "cryptsetup luksOpen",
            Finished(-9, b"", True),
            "encrypted",
            "cryptsetup was killed at its deadline",
        ),
    ],
)
def test_a_tool_that_fails_is_quoted_and_leaves_nothing(
    bench: Any, kernel: FakeKernel, cases: Cases, tool: str, answer: Finished, case: str, text: str
) -> None:
    before = kernel.state()
    kernel.run.answers[tool] = answer
    with pytest.raises(Failed, match=text):
        bench.add_disk(**cases[case])
    assert kernel.state() == before
    kernel.run.answers.clear()
    bench.add_disk(**cases[case])


# Remove


def test_removing_what_was_never_added_is_fine_and_touches_nothing(
    bench: Any, kernel: FakeKernel, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    before = kernel.state()
    bench.remove_disk(MountPath=str(tmp_path / "run"), Lun=1)
    bench.remove_disk(MountPath=str(tmp_path / "gone"), Lun=1)
    assert kernel.state() == before


def test_a_strict_vm_says_after_the_policy_that_nothing_is_there(bench: Any, tmp_path: Path) -> None:
    enforcer = bench.be_strict()
    path = str(tmp_path / "gone")
    with pytest.raises(Failed, match=f"^unmounting scsi device at {path} failed: directory does not exist$"):
        bench.remove_disk(MountPath=path, ReadOnly=True)
    assert enforcer.points == ["unmount_device"]
    assert bench.gate.inconsistent is None


def test_a_disk_that_is_gone_can_still_be_removed(bench: Any, kernel: FakeKernel, cases: Cases) -> None:
    bench.be_strict()
    bench.add_disk(**cases["layer"])
    for name in ("block/sdc", "block", ""):
        folder = kernel.scsi(2, 0) / name
        for file in folder.glob("delete"):
            file.unlink()
        folder.rmdir()
    (kernel.dev / "sdc").unlink()
    bench.remove_disk(**cases["layer"])
    assert (kernel.mounts, kernel.dm.devices) == ([], {})


def test_another_disk_than_the_mounted_one_is_refused(bench: Any, kernel: FakeKernel, cases: Cases) -> None:
    bench.add_disk(**cases["layer"])
    with pytest.raises(Refused, match=r"wrong sourcePath scsi 2:0:0:1 partition 0, expected .*/sdc"):
        bench.remove_disk(**{**cases["layer"], "Lun": 1})
    assert bench.mounted() == [cases["layer"]["MountPath"]]


def test_the_other_kind_of_removal_is_refused_when_strict(bench: Any, cases: Cases) -> None:
    bench.be_strict()
    bench.add_disk(**cases["layer"])
    with pytest.raises(Refused, match="wrong device type RW, expected RO"):
        bench.remove_disk(**{**cases["layer"], "ReadOnly": False})
    with pytest.raises(Refused, match="wrong device type BlockDev, expected RO"):
        bench.remove_disk(**{**cases["layer"], "BlockDev": True})


@pytest.mark.parametrize("strict", [False, True])
def test_a_busy_unmount_is_an_error_that_marks_the_vm_and_loses_nothing(
    bench: Any, kernel: FakeKernel, cases: Cases, strict: bool
) -> None:
    if strict:
        bench.be_strict()
    path = cases["layer"]["MountPath"]
    bench.add_disk(**cases["layer"])
    kernel.busy.add(path)
    text = f"^unmounting scsi device at {path} failed: unmount failed: {path}: device or resource busy$"
    with pytest.raises(Failed, match=text):
        bench.remove_disk(**cases["layer"])
    assert bench.mounted() == [path]
    marked = bench.gate.inconsistent if strict else bench.gate.degraded
    assert f"unmount {path}" in marked
    kernel.busy.clear()
    if not strict:
        bench.remove_disk(**cases["layer"])
        assert kernel.mounts == []


@pytest.mark.parametrize("strict", [False, True])
def test_a_disk_with_mounts_below_it_is_in_use_and_nothing_is_marked(
    bench: Any, kernel: FakeKernel, cases: Cases, strict: bool
) -> None:
    if strict:
        bench.be_strict()
    path = cases["layer"]["MountPath"]
    bench.add_disk(**cases["layer"])
    for name in (f"{path}/sandboxMounts", f"{path}0"):
        kernel.mounts.append(FakeMount("tmpfs", name, "tmpfs", 0, "", (0, 99)))
    text = f"can't unmount: {path}/sandboxMounts is mounted below it"
    with pytest.raises(InUse, match=text):
        bench.remove_disk(**cases["layer"])
    assert bench.mounted() == [path]
    assert (bench.gate.inconsistent, bench.gate.degraded) == (None, None)
    del kernel.mounts[1]
    bench.remove_disk(**cases["layer"])
    assert bench.mounted() == []


def test_a_verity_device_that_is_in_use_is_left_to_the_kernel(
    bench: Any, kernel: FakeKernel, cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uvmd.linux import devmapper

    bench.be_strict()
    bench.add_disk(**cases["layer"])
    (name,) = kernel.dm.devices
    devmapper.create("above", [devmapper.linear(str(kernel.mapper / name), 0, 512)])
    monkeypatch.setattr(devmapper, "_PATIENCE_S", 0.0)
    bench.remove_disk(**cases["layer"])
    assert kernel.dm.devices[name].doomed
