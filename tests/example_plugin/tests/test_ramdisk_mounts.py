"""The example plugin with real mounts (root): added, removed, failed, two at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from uvmd.api.testing import Workbench, fake_environment
from uvmd.errors import Failed, Inconsistent, Refused
from uvmd.linux import syscalls
from uvmd_example_ramdisk import plugin
from uvmd_example_ramdisk.config import RamdiskConfig

pytestmark = pytest.mark.root


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    left = [path for path in mounts() if path.startswith(f"{tmp_path}/")]
    for path in reversed(left):
        syscalls.umount(path, syscalls.MNT_DETACH)
    assert not left, "a test left mounts behind"


@pytest.fixture(params=[False, True], ids=["loose", "strict"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Workbench:
    workbench = Workbench(
        plugin.resource_types(),
        fake_environment(RamdiskConfig()),
        records=str(tmp_path / "devices.json"),
    )
    if request.param:
        workbench.be_strict()
    return workbench


def mounts() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        return [line.split()[4] for line in lines]


def settings(path: Path, size_mib: int = 1) -> dict[str, object]:
    return {"MountPath": str(path), "SizeMiB": size_mib}


def test_a_ramdisk_of_the_size_is_mounted_and_gone_again(bench: Workbench, folder: Path) -> None:
    path = folder / "deep" / "disk"
    bench.add(plugin.NAME, settings(path, 2))
    about = os.statvfs(path)
    assert about.f_blocks * about.f_frsize == 2 << 20
    assert bench.record(plugin.NAME, f"path:{path}") == {"v": 1, "made": [str(path.parent), str(path)]}
    bench.remove(plugin.NAME, {"MountPath": str(path)})
    assert str(path) not in mounts()
    assert not path.parent.exists(), "the directories that add made are gone"
    assert bench.record(plugin.NAME, f"path:{path}") is None
    assert bench.mounted() == []


def test_a_directory_that_was_there_stays(bench: Workbench, folder: Path) -> None:
    path = folder / "disk"
    path.mkdir()
    (path / "kept").touch()
    bench.add(plugin.NAME, settings(path))
    assert list(path.iterdir()) == []
    bench.remove(plugin.NAME, settings(path))
    assert [entry.name for entry in path.iterdir()] == ["kept"]


def test_a_second_one_at_the_same_path_is_refused(bench: Workbench, folder: Path) -> None:
    path = folder / "disk"
    bench.add(plugin.NAME, settings(path))
    with pytest.raises(Refused, match="already exists"):
        bench.add(plugin.NAME, settings(path))
    assert mounts().count(str(path)) == 1
    bench.remove(plugin.NAME, settings(path))


def test_a_planted_symlink_is_not_followed(bench: Workbench, folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")
    with pytest.raises(Failed, match=r"Add example.com/Ramdisk"):
        bench.add(plugin.NAME, settings(folder / "link" / "disk"))
    assert list((folder / "real").iterdir()) == []
    assert bench.mounted() == []


def test_a_failure_in_the_middle_leaves_nothing_behind(bench: Workbench, folder: Path) -> None:
    path = folder / "deep" / "disk"
    commit = bench.records.commit

    def fail(*arguments: object) -> None:
        assert str(path) in mounts()
        raise Failed("no space to record it")

    bench.records.commit = fail  # type: ignore[method-assign,assignment]
    with pytest.raises(Failed, match="no space to record it"):
        bench.add(plugin.NAME, settings(path))
    assert str(path) not in mounts()
    assert not path.parent.exists()
    assert bench.mounted() == []
    assert (bench.gate.inconsistent, bench.gate.degraded) == (None, None)
    bench.records.commit = commit  # type: ignore[method-assign]
    bench.add(plugin.NAME, settings(path))
    bench.remove(plugin.NAME, settings(path))


def test_an_unmount_that_fails_marks_the_vm_and_keeps_what_is_known(bench: Workbench, folder: Path) -> None:
    path = folder / "disk"
    bench.add(plugin.NAME, settings(path))
    with open(path / "busy", "wb"), pytest.raises(Failed, match="resource busy"):
        bench.remove(plugin.NAME, settings(path))
    assert bench.mounted() == [str(path)]
    assert bench.record(plugin.NAME, f"path:{path}") is not None
    if bench.gate.strict:
        assert f"unmount {path}" in (bench.gate.inconsistent or "")
        with pytest.raises(Inconsistent):
            bench.remove(plugin.NAME, settings(path))
        syscalls.umount(str(path))
    else:
        assert f"unmount {path}" in (bench.gate.degraded or "")
        bench.remove(plugin.NAME, settings(path))
        assert not path.exists()


def test_many_at_once_all_end_as_they_should(bench: Workbench, folder: Path) -> None:
    errors: list[Exception] = []

    def come_and_go(path: Path) -> None:
        try:
            bench.add(plugin.NAME, settings(path))
            bench.remove(plugin.NAME, settings(path))
        except Refused:
            return  # another one was at the same path
        except Exception as error:
            errors.append(error)

    paths = [folder / "a", folder / "b", folder / "shared", folder / "shared"] * 2
    threads = [threading.Thread(target=come_and_go, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert errors == []
    assert bench.mounted() == []
    assert bench.lock.table() == ()
    assert bench.gate.inconsistent is None


def test_a_restarted_daemon_removes_what_an_earlier_one_added(bench: Workbench, folder: Path) -> None:
    path = folder / "disk"
    bench.add(plugin.NAME, settings(path))
    after = Workbench(
        plugin.resource_types(), fake_environment(RamdiskConfig()), records=str(folder / "devices.json")
    )
    after.modifier.resume()
    after.remove(plugin.NAME, settings(path))
    assert not path.exists()
