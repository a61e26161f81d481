"""SCSIDevice: the guest lets go of a disk, and the plugin as it is installed."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from typing import Any

import pytest

from uvmd.api.testing.faults import Faults
from uvmd.api.testing.kernel import FakeKernel
from uvmd.errors import ConfigError, Failed, InUse, Refused
from uvmd.plugin_manager import load_plugins
from uvmd.plugin_manager.inspection import resolve_all
from uvmd_storage_scsi import plugin

Cases = Mapping[str, Mapping[str, Any]]


def deleted(kernel: FakeKernel, host: int, lun: int) -> bool:
    return (kernel.scsi(host, lun) / "delete").read_text() == "1\n"


@pytest.mark.parametrize("strict", [False, True], ids=["loose", "strict"])
def test_a_disk_is_unplugged_without_a_question(bench: Any, kernel: FakeKernel, strict: bool) -> None:
    enforcer = bench.be_strict() if strict else None
    bench.unplug(Controller=1)
    assert deleted(kernel, 3, 0)
    assert enforcer is None or enforcer.asked == []


def test_empty_settings_are_the_first_disk(bench: Any, kernel: FakeKernel) -> None:
    bench.unplug()
    assert deleted(kernel, 2, 0)


def test_a_disk_or_controller_that_is_gone_is_unplugged_already(bench: Any) -> None:
    bench.unplug(Lun=9)
    bench.unplug(Controller=3)


@pytest.mark.parametrize("case", ["layer", "partition", "encrypted", "link"])
def test_a_strict_vm_does_not_unplug_under_a_mount(
    bench: Any, kernel: FakeKernel, cases: Cases, case: str
) -> None:
    bench.be_strict()
    bench.add_disk(**cases[case])
    where = {"Controller": cases[case].get("Controller", 0), "Lun": cases[case].get("Lun", 0)}
    with pytest.raises(InUse, match=f"is still mounted at {cases[case]['MountPath']}"):
        bench.unplug(**where)
    assert not deleted(kernel, where["Controller"] + 2, where["Lun"])
    assert bench.gate.inconsistent is None
    bench.remove_disk(**cases[case])
    bench.unplug(**where)
    assert deleted(kernel, where["Controller"] + 2, where["Lun"])


def test_elsewhere_it_is_done_and_noted(
    bench: Any, kernel: FakeKernel, cases: Cases, caplog: pytest.LogCaptureFixture
) -> None:
    bench.add_disk(**cases["layer"])
    bench.unplug()
    assert deleted(kernel, 2, 0)
    assert "unplugged while it is mounted, ignoring" in caplog.text


@pytest.mark.parametrize("strict", [False, True], ids=["loose", "strict"])
def test_whichever_step_of_it_fails_it_can_be_repeated(
    bench: Any, kernel: FakeKernel, faults: Faults, strict: bool
) -> None:
    if strict:
        bench.be_strict()
    with faults.installed():
        bench.unplug()
        steps = list(faults.steps)
        assert [step.partition(" ")[0] for step in steps] == ["open", "write", "before:", "after"]
        for number in range(len(steps) - 1):  # past the point of no return it would be marked
            (kernel.scsi(2, 0) / "delete").write_text("")
            with faults.failing_step(number), pytest.raises(Failed):
                bench.unplug()
            bench.unplug()
            assert deleted(kernel, 2, 0)
    assert (bench.gate.inconsistent, bench.gate.degraded) == (None, None)


def test_a_strict_vm_that_takes_no_other_change_still_unplugs(bench: Any, kernel: FakeKernel) -> None:
    bench.be_strict()
    bench.gate.mark("a test")
    bench.unplug()
    assert deleted(kernel, 2, 0)


def test_a_refused_write_changes_nothing_and_marks_nothing(bench: Any, kernel: FakeKernel) -> None:
    bench.be_strict()
    (kernel.scsi(2, 0) / "delete").unlink()
    (kernel.scsi(2, 0) / "delete").mkdir()
    with pytest.raises(Exception, match="is a directory"):
        bench.unplug()
    assert bench.gate.inconsistent is None


def test_a_disk_is_not_added_as_a_device(bench: Any) -> None:
    with pytest.raises(Refused, match='the RequestType "Add" is not supported'):
        bench.add("SCSIDevice", {})


# As it is installed


def test_it_is_installed_and_everything_that_it_declares_resolves() -> None:
    plugins = load_plugins(allow=["storage_scsi"], sections={"storage_scsi": {"device_timeout_s": 10.0}})
    assert {name: entry.third_party for name, entry in plugins.resource_types.items()} == {
        "MappedVirtualDisk": False,
        "SCSIDevice": False,
    }
    assert plugins.config("storage_scsi").device_timeout_s == 10
    assert len(resolve_all(plugins)) == 1


@pytest.mark.parametrize(
    "section", [{"device_timeout_s": 0.0}, {"tools_timeout_s": 500.0}, {"verity": "never"}, {"timeout": 1}]
)
def test_a_setting_that_makes_no_sense_stops_the_start(section: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"\[plugin\.storage_scsi\]"):
        load_plugins(allow=["storage_scsi"], sections={"storage_scsi": section}).config("storage_scsi")


def test_what_is_imported_at_every_start_brings_nothing_heavy() -> None:
    tree = ast.parse(inspect.getsource(plugin))
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imported == ["__future__", "collections.abc", "uvmd.api"]
