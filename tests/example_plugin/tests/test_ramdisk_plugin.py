"""The example plugin without mounting anything: what it declares, plans and refuses."""

from __future__ import annotations

from typing import Any

import pytest

from uvmd.api import ContainerEvent, Found, Plan, Record, View
from uvmd.api.testing import Workbench, fake_environment
from uvmd.errors import InvalidMessage, PolicyDenied, Refused
from uvmd.plugin_manager import load_plugins
from uvmd.plugin_manager.inspection import resolve_all
from uvmd_example_ramdisk import plugin
from uvmd_example_ramdisk.config import RamdiskConfig
from uvmd_example_ramdisk.ramdisk import Ramdisk


def bench(handler: type[Ramdisk] = Ramdisk) -> Workbench:
    environment = fake_environment(RamdiskConfig(max_mib=64))
    return Workbench(plugin.resource_types(), handlers={plugin.NAME: handler(environment)})


SETTINGS = {"MountPath": "/run/ramdisk/a", "SizeMiB": 1}


def test_it_is_installed_and_everything_that_it_declares_resolves() -> None:
    plugins = load_plugins(allow=["ramdisk"], sections={"ramdisk": {"max_mib": 8}})
    assert plugins.resource_types[plugin.NAME].third_party
    assert plugins.config("ramdisk").max_mib == 8
    assert len(resolve_all(plugins)) == 1


def test_it_counts_what_happens_to_containers() -> None:
    plugin.seen.clear()
    observers = load_plugins(allow=["ramdisk"]).container_events
    for kind in ("created", "started", "exited", "created"):
        observers.tell(ContainerEvent(kind, "c", "s", 0.0))
    observers.stop(5)
    assert plugin.seen == {"created": 2, "started": 1, "exited": 1}


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        (None, InvalidMessage, "Settings: is missing"),
        ({"MountPath": "/run/a", "SizeMiB": "1"}, InvalidMessage, "SizeMiB: should be an integer"),
        ({"MountPath": "/run/a", "SizeMiB": -1}, InvalidMessage, "SizeMiB"),
        ({"MountPath": "/run/a", "SizeMiB": 1.5}, InvalidMessage, "SizeMiB: should be an integer"),
        ({"MountPath": ["/run/a"], "SizeMiB": 1}, InvalidMessage, "MountPath: should be a string"),
        ({"MountPath": "/run/a"}, Refused, "SizeMiB is not between 1 and 64"),
        ({"MountPath": "/run/a", "SizeMiB": 65}, Refused, "SizeMiB is not between 1 and 64"),
        ({"SizeMiB": 1}, Refused, "not a clean absolute path"),
        ({"MountPath": "run/a", "SizeMiB": 1}, Refused, "not a clean absolute path"),
        ({"MountPath": "/", "SizeMiB": 1}, Refused, "not a clean absolute path"),
        ({"MountPath": "/run/../etc", "SizeMiB": 1}, Refused, "not a clean absolute path"),
        ({"MountPath": "/run/a\0", "SizeMiB": 1}, Refused, "not a clean absolute path"),
    ],
)
def test_bad_settings_are_refused_with_the_field_and_the_reason(
    settings: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        bench().add(plugin.NAME, settings)


class Silent(Ramdisk):
    """A vendor who forgot to ask."""

    def add(self, settings: Any, found: Found, view: View, record: Record | None) -> Plan:
        return super().add(settings, found, view, record)._replace(questions=())


@pytest.mark.parametrize("strict", [True, False])
def test_a_plan_without_its_point_is_refused_before_anything_is_mounted(strict: bool) -> None:
    workbench = bench(Silent)
    if strict:
        workbench.be_strict()
    with pytest.raises(Refused, match=r"example.com/Ramdisk Add: its plan does not ask modify_resource"):
        workbench.add(plugin.NAME, SETTINGS)
    assert workbench.mounted() == []


def test_the_policy_sees_the_settings_and_a_policy_without_the_rule_says_no() -> None:
    workbench = bench()
    enforcer = workbench.be_strict({"modify_resource": False})
    with pytest.raises(PolicyDenied, match=r"example.com/Ramdisk denied by policy"):
        workbench.add(plugin.NAME, SETTINGS)
    ((point, asked),) = enforcer.asked
    assert point == "modify_resource"
    assert (asked["resource_type"], asked["request_type"]) == (plugin.NAME, "Add")
    assert asked["settings"] == {"MountPath": "/run/ramdisk/a", "SizeMiB": 1}


def test_removing_what_was_never_added_does_nothing() -> None:
    workbench = bench()
    enforcer = workbench.be_strict()
    workbench.remove(plugin.NAME, {"MountPath": "/run"})
    assert enforcer.asked == []


def test_an_unknown_request_type_is_refused() -> None:
    with pytest.raises(Refused, match="Update"):
        bench().request("Update", plugin.NAME, SETTINGS)
