"""VPMemDevice on the fake kernel: mounted, asked about, refused, failing at each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.disks import ext4, layer, root_digest
from support.storage import Storm
from uvmd.api.testing import Workbench, fake_environment
from uvmd.api.testing.faults import Faults
from uvmd.api.testing.kernel import FakeKernel
from uvmd.errors import ConfigError, DeadlineExceeded, Failed, InvalidMessage, PolicyDenied, Refused
from uvmd.linux import devmapper
from uvmd.plugin_manager import load_plugins
from uvmd.plugin_manager.inspection import resolve_all
from uvmd_storage_pmem import plugin
from uvmd_storage_pmem.config import StoragePmemConfig
from uvmd_storage_pmem.vpmem import VPMem

PMEM = "VPMemDevice"
DATA = ext4(8, journal=True)
DIGEST = root_digest(DATA)
OFFSET = 65536
MAPPING = {"DeviceOffsetInBytes": OFFSET, "DeviceSizeInBytes": 131072}


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    """pmem0 is a layer, pmem1 has one at an offset, pmem2 is blank."""
    made = FakeKernel(tmp_path)
    made.install(monkeypatch)
    made.add_device("pmem0", layer(DATA))
    made.add_device("pmem1", bytes(OFFSET) + layer(DATA))
    made.add_device("pmem2")
    return made


@pytest.fixture
def faults(kernel: FakeKernel) -> Faults:
    return Faults(kernel.state)


@pytest.fixture
def another(kernel: FakeKernel, faults: Faults) -> Callable[..., Workbench]:
    """Make a VM on the kernel: its settings, and what an earlier daemon left."""

    def make(state: Any = None, records: str = "", **config: Any) -> Workbench:
        environment = fake_environment(
            StoragePmemConfig(**{"device_timeout_s": 0.01, "mount_timeout_s": 0.01, **config}),
            platform=kernel.platform(),
            **({} if state is None else {"state": state}),
        )
        handlers = {PMEM: faults.watch(VPMem(environment))}
        return Workbench(plugin.resource_types(), environment, handlers=handlers, records=records)

    return make


@pytest.fixture
def bench(another: Callable[..., Workbench]) -> Workbench:
    return another()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "layers" / "p0")


def test_a_layer_is_mounted_read_only_and_leaves_nothing(
    bench: Workbench, kernel: FakeKernel, path: str
) -> None:
    before = kernel.state()
    bench.add(PMEM, {"MountPath": path})
    mount = kernel.mounted(path)
    assert (mount.source, mount.fstype, mount.flags, mount.data) == (
        str(kernel.dev / "pmem0"),
        "ext4",
        1,
        "noload",
    )
    assert Path(path).stat().st_mode & 0o777 == 0o700
    assert bench.mounted() == [path]
    bench.remove(PMEM, {"MountPath": path})
    assert kernel.state() == before
    assert bench.mounted() == []


def test_a_strict_vm_asks_with_the_digest_and_mounts_through_dm_verity(
    bench: Workbench, kernel: FakeKernel, path: str
) -> None:
    enforcer, before = bench.be_strict(), kernel.state()
    bench.add(PMEM, {"MountPath": path})
    assert kernel.mounted(path).source == str(kernel.mapper / f"dm-verity-pmem0-{DIGEST}")
    bench.remove(PMEM, {"MountPath": path})
    assert enforcer.asked == [
        (
            "mount_device",
            {"target": path, "deviceHash": DIGEST, "mountPathRegex": "/run/mounts/scsi/m[0-9]+"},
        ),
        ("unmount_device", {"unmountTarget": path}),
    ]
    assert kernel.state() == before


def test_a_part_of_a_device_is_mapped_first_and_removed_last(
    another: Callable[..., Workbench], kernel: FakeKernel, path: str
) -> None:
    before, bench = kernel.state(), another(verity="always")
    settings = {"DeviceNumber": 1, "MountPath": path, "MappingInfo": MAPPING}
    bench.add(PMEM, settings)
    linear, verity = f"dm-linear-pmem1-{OFFSET}-131072", f"dm-verity-pmem1-{DIGEST}"
    number = kernel.numbers[str(kernel.mapper / linear)]
    assert kernel.dm.devices[linear].active == [(0, 256, "linear", f"8:16 {OFFSET // 512}")]
    assert kernel.dm.devices[verity].below == number
    assert kernel.mounted(path).source == str(kernel.mapper / verity)
    assert bench.table.rows()[0]["source"] == str(kernel.mapper / linear)
    kernel.log.clear()
    bench.remove(PMEM, settings)
    assert kernel.log == [f"umount {path}", f"dm 4 {verity}", f"dm 4 {linear}"]
    assert kernel.state() == before


def test_several_layers_of_one_device_come_and_go_in_any_order(
    bench: Workbench, kernel: FakeKernel, path: str
) -> None:
    kernel.add_device("pmem3", ext4(8) + ext4(8))
    before = kernel.state()
    halves = [
        {
            "DeviceNumber": 3,
            "MountPath": f"{path}-{offset}",
            "MappingInfo": {"DeviceOffsetInBytes": offset, "DeviceSizeInBytes": 32768},
        }
        for offset in (0, 32768)
    ]
    twice = {**halves[0], "MountPath": f"{path}-again"}
    for settings in (*halves, twice):
        bench.add(PMEM, settings)
    assert len(kernel.dm.devices) == 2
    for settings in (halves[0], halves[1], twice):
        assert kernel.dm.devices
        bench.remove(PMEM, settings)
    assert kernel.state() == before


def test_files_can_be_mapped_from_the_device(
    another: Callable[..., Workbench], kernel: FakeKernel, path: str
) -> None:
    another(dax=True).add(PMEM, {"MountPath": path})
    assert kernel.mounted(path).data == "noload,dax"


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"MountPath": ""}, Refused, "not a clean absolute path"),
        ({"MountPath": "/run/../x"}, Refused, "not a clean absolute path"),
        ({"DeviceNumber": -1}, InvalidMessage, "DeviceNumber"),
        ({"DeviceNumber": 9}, DeadlineExceeded, r"pmem9 did not come within .* there is pmem0, pmem1, pmem2"),
        (
            {"DeviceNumber": 2},
            Failed,
            "failed to mount .*pmem2 onto .*: invalid argument; there is no file system",
        ),
        ({"MappingInfo": {}}, Refused, "no multiples of 512, or the size is 0"),
        ({"MappingInfo": {**MAPPING, "DeviceSizeInBytes": 1000}}, Refused, "no multiples of 512"),
        ({"MappingInfo": {**MAPPING, "DeviceOffsetInBytes": 1}}, Refused, "no multiples of 512"),
        ({"MappingInfo": {**MAPPING, "DeviceOffsetInBytes": 1 << 63}}, Refused, "ends behind the device's"),
        ({"MappingInfo": {**MAPPING, "DeviceSizeInBytes": 1 << 64}}, InvalidMessage, "DeviceSizeInBytes"),
    ],
)
def test_bad_settings_are_refused_with_the_reason_and_nothing_is_left(
    bench: Workbench,
    kernel: FakeKernel,
    path: str,
    settings: dict[str, Any],
    error: type[Exception],
    text: str,
) -> None:
    before = kernel.state()
    with pytest.raises(error, match=text):
        bench.add(PMEM, {"MountPath": path, **settings})
    assert kernel.state() == before
    assert bench.mounted() == []


def test_a_strict_vm_maps_no_parts_and_mounts_nothing_without_a_tree(bench: Workbench, path: str) -> None:
    enforcer = bench.be_strict()
    for request in (bench.add, bench.remove):
        with pytest.raises(Refused, match="multi mapping is not supported with verity"):
            request(PMEM, {"DeviceNumber": 1, "MountPath": path, "MappingInfo": MAPPING})
    with pytest.raises(Failed, match="not an ext4 file system"):
        bench.add(PMEM, {"DeviceNumber": 2, "MountPath": path})
    assert enforcer.asked == []


def test_a_policy_that_says_no_ends_it(bench: Workbench, kernel: FakeKernel, path: str) -> None:
    enforcer, before = bench.be_strict({"mount_device": False}), kernel.state()
    with pytest.raises(PolicyDenied, match=f"^mounting pmem device 0 onto {path} denied by policy: "):
        bench.add(PMEM, {"MountPath": path})
    assert kernel.state() == before
    enforcer.script = {"unmount_device": False}
    bench.add(PMEM, {"MountPath": path})
    with pytest.raises(PolicyDenied, match=f"^unmounting pmem device from {path} denied by policy: "):
        bench.remove(PMEM, {"MountPath": path})
    assert bench.mounted() == [path]


def test_removing_what_is_not_there_is_fine_except_in_a_strict_vm(bench: Workbench, path: str) -> None:
    bench.remove(PMEM, {"MountPath": path})
    bench.be_strict()
    with pytest.raises(Failed, match=f"^unmounting pmem device at {path} failed: directory does not exist$"):
        bench.remove(PMEM, {"MountPath": path})
    assert bench.gate.inconsistent is None


def test_a_device_that_is_gone_can_be_removed_and_another_one_is_not(
    bench: Workbench, kernel: FakeKernel, path: str
) -> None:
    bench.add(PMEM, {"MountPath": path})
    (kernel.dev / "pmem0").unlink()
    with pytest.raises(Refused, match=r"wrong sourcePath .*/pmem1, expected .*/pmem0"):
        bench.remove(PMEM, {"DeviceNumber": 1, "MountPath": path})
    bench.remove(PMEM, {"MountPath": path})
    assert kernel.mounts == []


def test_a_busy_unmount_marks_the_vm_and_loses_nothing(
    bench: Workbench, kernel: FakeKernel, path: str
) -> None:
    bench.be_strict()
    bench.add(PMEM, {"MountPath": path})
    kernel.busy.add(path)
    with pytest.raises(
        Failed, match=f"^unmounting pmem device at {path} failed: .*: device or resource busy$"
    ):
        bench.remove(PMEM, {"MountPath": path})
    assert bench.mounted() == [path]
    assert f"unmount {path}" in (bench.gate.inconsistent or "")


# Faults


@pytest.fixture(params=["whole", "part"])
def storm(
    request: pytest.FixtureRequest,
    another: Callable[..., Workbench],
    kernel: FakeKernel,
    faults: Faults,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Storm]:
    monkeypatch.setattr(devmapper, "_PATIENCE_S", 0.0)
    settings: dict[str, Any] = {"MountPath": path}
    if request.param == "part":
        settings |= {"DeviceNumber": 1, "MappingInfo": MAPPING}
    with faults.installed():
        yield Storm(
            kernel,
            faults,
            lambda *left: another(*left, verity="always"),
            lambda vm: vm.add(PMEM, settings),
            lambda vm: vm.remove(PMEM, settings),
        )


def test_an_add_that_fails_at_any_step_leaves_the_guest_as_it_was(storm: Storm) -> None:
    told = " ".join(storm.fail_each_step_of_an_add(strict=False))
    assert all(step in told for step in ("ioctl", "mknod", "mkdir", "mount ", "after registering: unmount"))


def test_a_remove_that_fails_at_any_step_can_be_repeated(storm: Storm) -> None:
    assert len(storm.fail_each_step_of_a_remove()) >= 5


def test_an_undo_that_fails_marks_the_vm_and_says_which(storm: Storm) -> None:
    assert len(storm.fail_each_undo(strict=False)) >= 4


def test_the_next_daemon_takes_away_what_a_killed_one_left_at_any_step(
    storm: Storm, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert storm.kill_in_each_step_of_an_add(monkeypatch) >= 10


def test_a_remove_whose_daemon_was_killed_at_any_step_is_finished_by_the_next(
    storm: Storm, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert storm.kill_in_each_step_of_a_remove(monkeypatch, tmp_path_factory.mktemp("run")) >= 5


# As it is installed


def test_it_is_installed_and_everything_that_it_declares_resolves() -> None:
    plugins = load_plugins(allow=["storage_pmem"], sections={"storage_pmem": {"verity": "always"}})
    assert not plugins.resource_types[PMEM].third_party
    assert plugins.config("storage_pmem").verity == "always"
    assert len(resolve_all(plugins)) == 1
    with pytest.raises(ConfigError, match=r"\[plugin\.storage_pmem\]"):
        load_plugins(allow=["storage_pmem"], sections={"storage_pmem": {"dax": 1}}).config("storage_pmem")
