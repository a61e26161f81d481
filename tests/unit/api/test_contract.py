"""The contract with plugins: its names, its hooks, and what they promise."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pluggy
import pytest

import uvmd.api
from uvmd.api import containers, environment, hooks, names
from uvmd.api.resources import (
    Claim,
    Context,
    Found,
    Handler,
    Kind,
    Plan,
    Question,
    Registered,
    ResourceType,
    Verb,
    View,
)
from uvmd.api.settings import ConfigModel
from uvmd.api.testing import FakeContainers, fake_environment
from uvmd.errors import Refused
from uvmd.host.table import MountTable
from uvmd.plugin_manager.index import GROUP
from uvmd.plugin_manager.loading import EVENTS, NAMED
from uvmd.policy.stances import CLOSED

ROOT = Path(__file__).parents[3]
HOOKS = {
    name: function
    for name, function in vars(hooks).items()
    if inspect.isfunction(function) and hasattr(function, f"{hooks.GROUP}_spec")
}


def test_the_hooks_are_those_of_the_design() -> None:
    assert set(HOOKS) == {
        "config_model",
        "resource_types",
        "requirements",
        "enforcers",
        "envelope_readers",
        "container_shapers",
        "container_network",
        "host_data_sources",
        "services",
        "vm_properties",
        "cli_commands",
        "container_event",
        "span_ended",
    }
    assert set(HOOKS) == {"config_model", "resource_types", "requirements", *NAMED, *EVENTS}


def test_the_group_carries_the_contract_s_major_version() -> None:
    assert hooks.GROUP == GROUP == "uvmd.plugins.v1"


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_a_hook_collects_says_what_it_promises_and_stands_in_the_vendors_page(name: str) -> None:
    options = getattr(HOOKS[name], f"{hooks.GROUP}_spec")
    assert not options["firstresult"]
    assert not options["historic"]
    assert inspect.getdoc(HOOKS[name])
    parameters = inspect.signature(HOOKS[name]).parameters.values()
    assert all(parameter.default is parameter.empty for parameter in parameters)
    assert f"`{name}" in (ROOT / "docs" / "plugins.md").read_text()


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_a_hook_s_own_body_declares_nothing(name: str) -> None:
    arguments = [None] * len(inspect.signature(HOOKS[name]).parameters)
    assert not HOOKS[name](*arguments)


def test_the_specifications_are_accepted_by_pluggy() -> None:
    manager = pluggy.PluginManager(hooks.GROUP)
    manager.add_hookspecs(hooks)
    assert manager.get_hookcallers(object()) is None


def test_every_name_of_the_counter_can_be_had() -> None:
    for name in uvmd.api.__all__:
        assert getattr(uvmd.api, name) is not None
    assert set(uvmd.api.__all__) == set(uvmd.api._MODULE_OF)
    with pytest.raises(AttributeError, match="no_such_name"):
        uvmd.api.no_such_name


def test_only_two_modules_of_the_counter_import_pydantic() -> None:
    importing = set()
    for path in (ROOT / "core/src/uvmd/api").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)) and "pydantic" in ast.unparse(node):
                importing.add(path.stem)
    assert importing == {"wire", "settings"}


def test_the_closed_door_has_a_text_for_every_point_there_is() -> None:
    assert set(CLOSED) == names.POINTS


def test_every_exemption_gives_its_reason() -> None:
    assert all(len(reason.split()) > 5 for reason in names.EXEMPT.values())


@pytest.mark.parametrize(("name", "protocol"), [("SCSIDevice", True), ("example.com/Disk", False)])
def test_a_name_with_a_domain_is_not_the_protocol_s(name: str, protocol: bool) -> None:
    assert names.is_protocol_name(name) is protocol


def test_a_type_that_says_nothing_of_its_points_asks_the_one_for_all() -> None:
    type_ = ResourceType("example.com/T", "a:B", points={Verb.ADD: ("mount_device",)})
    assert type_.points_of(Verb.ADD) == ("mount_device",)
    assert type_.points_of(Verb.REMOVE) == ("modify_resource",)


def test_what_was_found_is_unpacked_as_it_was_put_in() -> None:
    disk, root_hash = Found("/dev/sda", "abc")
    assert (disk, root_hash) == ("/dev/sda", "abc")
    assert Found() == ()


def test_a_kept_descriptor_is_handed_back() -> None:
    kept: list[int] = []
    assert Context(1.0, True, kept.append).keep(7) == 7
    assert kept == [7]


class Minimal(Handler):
    def identity(self, settings: object) -> str:
        return "thing:1"


@pytest.mark.parametrize("verb", ["add", "remove", "update"])
def test_a_handler_refuses_what_it_does_not_override(verb: str) -> None:
    handler = Minimal(fake_environment())
    view = View(False, "", MountTable(), FakeContainers())
    with pytest.raises(Refused, match="Minimal does not support"):
        getattr(handler, verb)(None, Found(), view, None)
    assert (handler.keys(None, Found()), handler.find(None, Verb.ADD, Context(0, False, print))) == ((), ())
    with pytest.raises(Refused, match="does not say what"):
        Handler(fake_environment()).identity(None)


def test_the_plan_for_nothing_is_one_and_the_same() -> None:
    assert Plan.nothing() is Plan.nothing()
    assert Plan.nothing().apply(None, ()) is None  # type: ignore[arg-type]
    claim = Claim("/a", "b", Kind.OVERLAY)
    plan = Plan((Question("mount_device"),), lambda undo, answers: None, claims=(claim,))
    assert plan.releases == ()


def test_a_handler_is_made_once_and_an_error_is_not_kept() -> None:
    attempts: list[int] = []

    def make() -> Handler:
        attempts.append(1)
        if len(attempts) == 1:
            raise Refused("not yet")
        return Minimal(fake_environment())

    entry = Registered(ResourceType("example.com/T", "a:B"), "plugin", True, make)
    with pytest.raises(Refused):
        entry.handler()
    assert entry.handler() is entry.handler()
    assert len(attempts) == 2


def test_declarations_and_events_are_plain_values() -> None:
    event = containers.ContainerEvent("exited", "c", "s", 1.5, pid=7, status=-9)
    assert event == ("exited", "c", "s", 1.5, 7, -9)
    assert containers.Additions() == ((), (), {}, ())
    assert containers.Span("create", "a", "b", "", 1, 2).facts == {}
    assert environment.Environment._fields == ("config", "platform", "dial", "run", "state", "service")


def test_configuration_refuses_unknown_keys() -> None:
    class Section(ConfigModel):
        timeout_s: float = 5.0

    assert Section.model_validate({"timeout_s": 1}).timeout_s == 1.0
    with pytest.raises(ValueError, match="timeout"):
        Section.model_validate({"timeout": 1})
