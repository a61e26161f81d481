"""Loading plugins: what they may declare, and that every doubt stops the start."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from support.plugins import Site
from uvmd.errors import ConfigError
from uvmd.plugin_manager.references import check_reference, resolve


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def types(*declared: str) -> str:
    return f"""
    @hookimpl
    def resource_types():
        return [{", ".join(f"ResourceType({one})" for one in declared)}]
    """


def named(hook: str, *entries: str) -> str:
    return f"""
    @hookimpl
    def {hook}():
        return [{", ".join(f"Named({one})" for one in entries)}]
    """


THING = '"example.com/Thing", "HERE:Thing"'


def test_without_plugins_there_are_no_tables_and_nothing_is_imported(site: Site) -> None:
    plugins = site.load()
    assert (plugins.count, plugins.resource_types, plugins.names("enforcers")) == (0, {}, ())
    assert not plugins.container_events
    assert plugins.commands() == {}
    with pytest.raises(ConfigError, match="no plugin declares rego"):
        plugins.make("enforcers", "rego")


def test_what_plugins_declare_is_found_in_tables(site: Site) -> None:
    site.install("a", types(THING) + named("enforcers", '"rego", "HERE:make"'))
    sources = named("host_data_sources", '"sev", "HERE:read"')
    site.install("b", sources + named("cli_commands", '"top", "HERE:top"'))
    plugins = site.load()
    assert plugins.count == 2
    entry = plugins.resource_types["example.com/Thing"]
    assert (entry.plugin, entry.third_party) == ("a", True)
    assert plugins.names("enforcers") == ("rego",)
    assert set(plugins.factories("host_data_sources")) == {"sev"}
    assert set(plugins.commands()) == {"top"}


def test_a_type_of_the_protocol_comes_from_its_distribution(site: Site) -> None:
    declared = '"SCSIDevice", "HERE:Disk", verbs=(Verb.REMOVE,), points={Verb.REMOVE: ()}, latched=False'
    site.install("storage_scsi", types(declared), distribution="uvmd-storage-scsi")
    entry = site.load().resource_types["SCSIDevice"]
    assert entry.third_party is False


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        ('"SCSIDevice", "HERE:T"', "SCSIDevice: the name belongs to the distribution uvmd-storage"),
        ('"SecurityPolicy", "HERE:T"', "SecurityPolicy: the name belongs to the distribution uvmd"),
        ('"Thing", "HERE:T"', "begins with its domain: example.com/Thing"),
        ('"example/Thing", "HERE:T"', "a domain, a slash and a word"),
        ('"Example.com/Thing", "HERE:T"', "a domain, a slash and a word"),
        ('"example.com/", "HERE:T"', "a domain, a slash and a word"),
        ('"example.com/a b", "HERE:T"', "a domain, a slash and a word"),
        ('"example.com/T\\n", "HERE:T"', "a domain, a slash and a word"),
        ('7, "HERE:T"', "a name is a text"),
        ('"example.com/T", "HERE"', "not of the form package.module:attribute"),
        ('"example.com/T", "HERE:"', "not of the form package.module:attribute"),
        ('"example.com/T", "1x:T"', "not of the form package.module:attribute"),
        ('"example.com/T", Handler', "not of the form package.module:attribute"),
        ('"example.com/T", "HERE:T", "vm"', "the target is not one of"),
        ('"example.com/T", "HERE:T", verbs=()', "the verbs are some of"),
        ('"example.com/T", "HERE:T", verbs=("Add",)', "the verbs are some of"),
        ('"example.com/T", "HERE:T", verbs=([],)', "the verbs are some of"),
        ('"example.com/T", "HERE:T", verbs=(Verb.ADD, Verb.ADD)', "the verbs are some of"),
        ('"example.com/T", "HERE:T", points=("modify_resource",)', "points is a mapping"),
        ('"example.com/T", "HERE:T", points={Verb.UPDATE: ()}', "which it does not serve"),
        ('"example.com/T", "HERE:T", points={Verb.ADD: ()}', "Add declares no point; a type of one's own"),
        (
            '"example.com/T", "HERE:T", points={Verb.ADD: ("mount_device",)}',
            "asks modify_resource and nothing else",
        ),
        (
            '"example.com/T", "HERE:T", points={Verb.ADD: ("modify_resource", "mount_device")}',
            "asks modify_resource and nothing else",
        ),
        (
            '"example.com/T", "HERE:T", points={Verb.REMOVE: ("modify_ressource",)}',
            "there is no enforcement point modify_ressource",
        ),
    ],
)
def test_a_type_that_may_not_be_declared_stops_the_start(site: Site, declared: str, text: str) -> None:
    site.install("bad", types(declared))
    with pytest.raises(ConfigError, match=text) as caught:
        site.load()
    assert "plugin bad (dist-bad 1.0)" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (types(THING), "resource type example.com/Thing"),
        (named("enforcers", '"rego", "HERE:a"'), "the enforcer rego"),
        (named("envelope_readers", '"cose-x509", "HERE:a"'), "the envelope reader cose-x509"),
        (named("container_shapers", '"gpu", "HERE:a"'), "the container shaper gpu"),
        (named("host_data_sources", '"sev", "HERE:a"'), "the host data source sev"),
        (named("services", '"metrics", "HERE:a"'), "the service metrics"),
        (named("vm_properties", '"fans", "HERE:a"'), "the property of the VM fans"),
        (named("cli_commands", '"top", "HERE:a"'), "the command top"),
        (named("container_network", '"net", "HERE:a"'), "the network provider net"),
    ],
)
def test_what_two_plugins_claim_stops_the_start_and_names_both(site: Site, code: str, what: str) -> None:
    site.install("first", code)
    site.install("second", code)
    with pytest.raises(ConfigError) as caught:
        site.load()
    both = "plugin first (dist-first 1.0) and plugin second (dist-second 1.0) both declare"
    assert str(caught.value).startswith(f"{both} {what}")
    assert site.load(deny=["second"]).count == 1


def test_two_network_providers_of_different_names_are_the_operators_to_choose_from(site: Site) -> None:
    site.install("first", named("container_network", '"one", "HERE:a"'))
    site.install("second", named("container_network", '"two", "HERE:a"'))
    assert site.load().names("container_network") == ("one", "two")


def test_a_plugin_that_claims_a_name_twice_is_named_once(site: Site) -> None:
    site.install("only", types(THING, THING))
    with pytest.raises(ConfigError, match=r"^plugin only \(dist-only 1.0\) declares .* twice$"):
        site.load()


def test_the_open_door_is_core_s_own(site: Site) -> None:
    site.install("a", named("enforcers", '"open_door", "HERE:a"'))
    with pytest.raises(ConfigError, match="declares the enforcer open_door, which is core's own"):
        site.load()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("usage", "declares the property of the VM usage, which is core's own"),
        ("fans:left", "property of the VM fans:left: behind a colon"),
    ],
)
def test_a_property_s_name_is_free_and_without_a_colon(site: Site, name: str, text: str) -> None:
    site.install("a", named("vm_properties", f'"{name}", "HERE:a"'))
    with pytest.raises(ConfigError, match=text):
        site.load()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("raise OSError('boom')", "cannot import .*: OSError: boom"),
        ("import no_such_module", "cannot import .*: ModuleNotFoundError"),
        ("1/", "cannot import .*: SyntaxError"),
        ("", "implements no hook"),
        ("def resource_types(): return []", "implements no hook"),
        ("@hookimpl\ndef resource_type(): return []", "resource_type is no hook of uvmd.plugins.v1"),
        ("@hookimpl\ndef resource_types(config): return []", "resource_types"),
        ("@hookimpl\ndef container_event(event=None): pass", "container_event: .* no default arguments"),
        ("@hookimpl(tryfirst=True)\ndef resource_types(): return []", "order never decides"),
        ("@hookimpl(trylast=True)\ndef resource_types(): return []", "order never decides"),
        ("@hookimpl(wrapper=True)\ndef resource_types():\n    yield", "no wrappers"),
        ("@hookimpl\ndef resource_types(): 1/0", "resource_types: ZeroDivisionError"),
        ("@hookimpl\ndef resource_types():\n    yield 1/0", "resource_types: ZeroDivisionError"),
        ("@hookimpl\ndef resource_types(): return None", "returned NoneType, not a list of ResourceType"),
        ("@hookimpl\ndef resource_types(): return 'x'", "returned str, not a list of ResourceType"),
        (
            "@hookimpl\ndef resource_types(): return ResourceType('a.b/C', 'a:B')",
            "returned ResourceType, not a list of ResourceType",
        ),
        ("@hookimpl\ndef resource_types(): return ['x']", "holds str, not ResourceType"),
        ("@hookimpl\ndef enforcers(): return [('rego', 'a:b')]", "holds tuple, not Named"),
        ("@hookimpl\ndef enforcers(): return [Named('', 'a:b')]", "every enforcer has a name"),
        ("@hookimpl\ndef enforcers(): return [Named('rego', 'a.b')]", "not of the form"),
        ("@hookimpl\ndef config_model(): return ConfigModel", "not of the form"),
        ("@hookimpl\ndef requirements(): return ['mkfs']", "holds str, not Requirement"),
        ("@hookimpl\ndef requirements(): return [Requirement('car', 'a', 'b')]", "'car' is none of program"),
    ],
)
def test_a_plugin_in_doubt_stops_the_start_and_is_named(site: Site, code: str, text: str) -> None:
    site.install("bad", code)
    with pytest.raises(ConfigError, match=text) as caught:
        site.load()
    assert "plugin bad (dist-bad 1.0)" in str(caught.value)
    assert site.load(deny=["bad"]).count == 0


def test_an_entry_point_may_name_an_object_in_a_module(site: Site) -> None:
    code = "class Plugin:\n    @hookimpl\n    def services(self): return []\nit = Plugin()"
    module = site.install("unused", code)
    site.metadata("dist-object", "1.0", f"[uvmd.plugins.v1]\nobject = {module}:it\n")
    assert site.load(allow=["object"]).count == 1


def test_one_module_cannot_be_two_plugins(site: Site) -> None:
    module = site.install("first", types(THING))
    site.metadata("dist-second", "1.0", f"[uvmd.plugins.v1]\nsecond = {module}\n")
    with pytest.raises(ConfigError, match="plugin second"):
        site.load()


@pytest.mark.parametrize("reference", ["a:b", "a.b:c", "a.b:c.d", "_a:_b"])
def test_a_reference_is_a_module_and_an_attribute(reference: str) -> None:
    assert check_reference(reference, "x") == reference


NO_REFERENCES = ["", "a", ":b", "a:", "a:b:c", "a-b:c", "a:b()", "a: b", "a..b:c", "é:b", 7]


@pytest.mark.parametrize("reference", NO_REFERENCES)
def test_anything_else_is_no_reference(reference: object) -> None:
    with pytest.raises(ConfigError, match=r"x: .*not of the form"):
        check_reference(reference, "x")


def test_resolving_says_what_was_looked_for() -> None:
    assert resolve("os.path:join", "x") is __import__("os").path.join
    with pytest.raises(ConfigError, match="x: cannot import os:no_such: AttributeError"):
        resolve("os:no_such", "x")


class Blocker:
    """Refuses to find some modules."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self.names:
            raise AssertionError(f"{name} is imported on the path of the start")


def test_a_start_without_plugins_imports_neither_pluggy_nor_pydantic_nor_metadata(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heavy = {"pluggy", "pydantic", "importlib.metadata", "hashlib", "asyncio", "subprocess"}
    modules = dict(sys.modules)
    monkeypatch.setattr(sys, "meta_path", [Blocker(heavy), *sys.meta_path])
    try:
        for name in modules:
            if name.split(".")[0] in {"uvmd", "pluggy", "pydantic", "asyncio"} or name in heavy:
                del sys.modules[name]
        for name in ("uvmd.policy.gate", "uvmd.plugin_manager", "uvmd.api", "uvmd.host.modify"):
            import_module(name)
        loaded = sys.modules["uvmd.plugin_manager"].load_plugins(path=["/nowhere"])
        assert loaded.count == 0
    finally:
        sys.modules.clear()
        sys.modules.update(modules)
