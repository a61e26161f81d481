"""Loaded plugins: handlers, environments, sections, and what people are told of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.plugins import Site
from uvmd import plugin_manager
from uvmd.api.testing import FakePlatform, FakeRun, FakeServices, MemoryState
from uvmd.api.wire import Field, WireModel
from uvmd.errors import ConfigError
from uvmd.host.core_types import core_types
from uvmd.plugin_manager import Plugins
from uvmd.plugin_manager.inspection import describe, resolve_all, schemas
from uvmd.plugin_manager.plugins import load_plugins
from uvmd.policy.gate import Gate

THING = """
class ThingConfig(ConfigModel):
    timeout_s: float = 5.0
    names: list[str] = []

class ThingSettings(WireModel):
    path: str = Field("", alias="Path")

class Thing(Handler):
    settings = ThingSettings
    def identity(self, settings): return settings.path
    def add(self, settings, found, view, record): return Plan.nothing()
    def remove(self, settings, found, view, record): return Plan.nothing()

def make_enforcer(env, text): return (env, text)

@hookimpl
def resource_types(): return [ResourceType("example.com/Thing", "HERE:Thing")]
@hookimpl
def config_model(): return "HERE:ThingConfig"
@hookimpl
def enforcers(): return [Named("mine", "HERE:make_enforcer")]
@hookimpl
def container_event(event): heard.append(event)
heard = []
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def connected(plugins: Plugins) -> tuple[Plugins, list[str]]:
    distributions: list[str] = []

    def state(distribution: str) -> MemoryState:
        distributions.append(distribution)
        return MemoryState()

    def dial(port: int, deadline: float) -> int:
        raise ConnectionRefusedError

    plugins.connect(FakePlatform(), dial, FakeRun(), state, lambda distribution: FakeServices())
    return plugins, distributions


def test_a_handler_is_made_on_first_use_once_with_the_plugin_s_environment(site: Site) -> None:
    site.install("thing", THING)
    plugins, distributions = connected(site.load(sections={"thing": {"timeout_s": 2}}))
    entry = plugins.resource_types["example.com/Thing"]
    handler = entry.handler()
    assert entry.handler() is handler
    assert handler.env.config.timeout_s == 2.0
    assert handler.env is plugins.environment("thing")
    assert distributions == ["dist-thing"]


def test_without_a_section_a_plugin_has_the_defaults_of_its_model(site: Site) -> None:
    site.install("thing", THING)
    plugins, _ = connected(site.load())
    assert plugins.environment("thing").config.timeout_s == 5.0


def test_an_enforcer_is_called_with_the_environment_and_the_policy(site: Site) -> None:
    site.install("thing", THING)
    plugins, _ = connected(site.load())
    environment, text = plugins.factories("enforcers")["mine"]("cG9saWN5")
    assert (environment, text) == (plugins.environment("thing"), "cG9saWN5")


def test_a_plugin_used_before_the_daemon_is_set_up_is_an_error(site: Site) -> None:
    site.install("thing", THING)
    with pytest.raises(ConfigError, match="before the daemon is set up"):
        site.load().resource_types["example.com/Thing"].handler()


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ({"timeout": 5}, r"\[plugin.thing\]: unknown key timeout \(did you mean timeout_s\?\)"),
        ({"timeout_s": "5"}, r"\[plugin.thing\] timeout_s: "),
        ({"names": ["a", 1]}, r"\[plugin.thing\] names.1: "),
    ],
)
def test_a_section_that_the_model_does_not_take_stops_the_start(
    site: Site, section: dict[str, object], text: str
) -> None:
    site.install("thing", THING)
    with pytest.raises(ConfigError, match=text):
        site.load(sections={"thing": section})


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("int", "int is not a subclass of api.ConfigModel"),
        ("WireModel", "WireModel is not a subclass of api.ConfigModel"),
        ("Missing", "cannot import"),
        ("Lax", "must refuse unknown keys"),
    ],
)
def test_a_model_of_another_kind_stops_the_start(site: Site, model: str, text: str) -> None:
    code = f"""
    class Lax(ConfigModel):
        model_config = dict(extra="ignore")
    Int = int
    @hookimpl
    def config_model(): return "HERE:{"Int" if model == "int" else model}"
    """
    site.install("thing", code)
    with pytest.raises(ConfigError, match=text.replace("int is", "Int is")):
        site.load(sections={"thing": {}})


def test_a_section_of_a_plugin_that_takes_none_stops_the_start(site: Site) -> None:
    site.install("plain", "@hookimpl\ndef services(): return []")
    with pytest.raises(ConfigError, match=r"\[plugin.plain\]: plugin plain .* takes no configuration"):
        site.load(sections={"plain": {}})
    assert site.load().count == 1


def test_a_section_of_a_denied_plugin_is_left_alone(site: Site) -> None:
    site.install("thing", THING)
    assert site.load(deny=["thing"], sections={"thing": {"typo": 1}}).count == 0


HANDLERS = {
    "object": "object is not a subclass of api.Handler",
    "Handler(None)": "is not a subclass of api.Handler",
    "type('T', (Handler,), {})": "settings is not a subclass of api.WireModel",
    "type('T', (Handler,), {'settings': dict})": "settings is not a subclass of api.WireModel",
    "type('T', (Handler,), {'settings': WireModel})": r"has no identity\(\)",
    "type('T', (Handler,), {'settings': WireModel, 'identity': 1, 'add': 1})": r"has no remove\(\)",
}


@pytest.mark.parametrize(("expression", "text"), sorted(HANDLERS.items()))
def test_a_handler_that_cannot_serve_its_type_is_found_by_check_and_refused_in_use(
    site: Site, expression: str, text: str
) -> None:
    declared = "ResourceType('example.com/T', 'HERE:T')"
    site.install("bad", f"T = {expression}\n@hookimpl\ndef resource_types(): return [{declared}]")
    plugins, _ = connected(site.load())
    with pytest.raises(ConfigError, match=text.replace("object is", "T is")):
        resolve_all(plugins)
    with pytest.raises(ConfigError, match=text.replace("object is", "T is")):
        plugins.resource_types["example.com/T"].handler()


def test_check_tells_everything_that_is_wrong_at_once(site: Site) -> None:
    site.install("good", THING)
    site.install("bad", "@hookimpl\ndef enforcers(): return [Named('a', 'HERE:no'), Named('b', 'sys:path')]")
    with pytest.raises(ConfigError) as caught:
        resolve_all(site.load())
    first, second = str(caught.value).splitlines()
    assert first.startswith("plugin bad (dist-bad 1.0): enforcer a: cannot import")
    assert second == "plugin bad (dist-bad 1.0): enforcer b: sys:path is nothing that can be called"
    assert resolve_all(site.load(deny=["bad"])) == ["plugin good (dist-good 1.0): 3 declarations resolved"]


def test_people_are_told_what_each_plugin_adds_or_why_it_is_not_loaded(site: Site) -> None:
    site.install("thing", THING)
    site.install("other", THING.replace("example.com/Thing", "example.com/X").replace('"mine"', '"x"'))
    thing, other = sorted(describe(site.load(deny=["other"])), key=lambda row: not row["loaded"])
    assert thing["adds"] == [
        "example.com/Thing (Add: modify_resource; Remove: modify_resource)",
        "enforcer mine",
        "hears container_event",
    ]
    assert thing["resource_types"] == [
        {
            "name": "example.com/Thing",
            "target": "vm",
            "points": {"Add": ["modify_resource"], "Remove": ["modify_resource"]},
            "latched": True,
        }
    ]
    assert (thing["version"], thing["state"]) == ("1.0", "loaded")
    assert (other["state"], other["adds"]) == ("not loaded: denied by plugins.deny", [])


class Message(WireModel):
    container_id: str = Field("", alias="ContainerId")


def test_schemas_are_by_wire_name_of_messages_types_and_sections(site: Site) -> None:
    site.install("thing", THING)
    host: Any = None
    found = schemas(site.load(), {"Start": Message}, core_types(Gate(), host))
    assert set(found) >= {"message.Start", "plugin.thing", "resource.SecurityPolicy"}
    assert list(found["message.Start"]["properties"]) == ["ContainerId"]
    assert list(found["resource.example.com/Thing"]["properties"]) == ["Path"]
    assert found["plugin.thing"]["additionalProperties"] is False
    assert found["resource.PodCgroupMemoryLimit"] == {}


def test_the_functions_for_the_command_line_take_the_configuration(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("thing", THING)
    monkeypatch.setattr("sys.path", [str(site.folder), *__import__("sys").path])
    lists = SimpleNamespace(allow=("thing",), deny=(), require=("thing",))
    config = SimpleNamespace(plugins=lists, plugin={"thing": {"timeout_s": 1.0}})
    assert plugin_manager.load(config).config("thing").timeout_s == 1.0
    assert [row["name"] for row in plugin_manager.describe(config) if row["loaded"]] == ["thing"]
    assert plugin_manager.resolve_all(config)
    assert "plugin.thing" in plugin_manager.schemas(config)


def test_the_scripted_enforcer_of_the_tests_is_declared_by_nobody_here() -> None:
    assert "scripted" not in load_plugins().names("enforcers")


def test_an_observer_is_reached_through_the_tables(site: Site) -> None:
    module = __import__(site.install("thing", THING))
    plugins = site.load()
    assert plugins.container_events
    plugins.container_events.tell("event")
    plugins.container_events.stop(5)
    assert module.heard == ["event"]
    assert plugins.container_events.dropped() == {"thing": 0}
