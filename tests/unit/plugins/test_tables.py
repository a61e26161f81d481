"""What each plugin declares becomes one table of each kind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.api.hooks import Named
from uvmd.api.names import POINTS, PROVIDED_BY
from uvmd.api.resources import ResourceType, Verb
from uvmd.errors import ConfigError
from uvmd.plugin_manager.index import Installed
from uvmd.plugin_manager.loading import NAMED, Declared
from uvmd.plugin_manager.tables import check_type, merge

MINE = Installed("mine", "mine.plugin", "uvmd-mine", "1.0")


def declared(plugin: Installed, *types: ResourceType, **named: tuple[Named, ...]) -> Declared:
    return Declared(plugin, "", types, {hook: named.get(hook, ()) for hook in NAMED}, {})


@given(st.text(max_size=24), st.sampled_from(sorted({*PROVIDED_BY.values(), "uvmd-mine"})))
def test_a_name_is_the_owner_s_own_or_has_a_domain(name: str, distribution: str) -> None:
    plugin = MINE._replace(distribution=distribution)
    points: dict[Verb, tuple[str, ...]] = {}
    try:
        check_type(plugin, ResourceType(name, "a:B", points=points))
    except ConfigError:
        assert PROVIDED_BY.get(name) != distribution
    else:
        assert PROVIDED_BY.get(name) == distribution or ("." in name.partition("/")[0] and "/" in name)


@pytest.mark.parametrize("name", [name for name, owner in PROVIDED_BY.items() if owner != "uvmd"])
def test_each_plugin_of_the_protocol_may_declare_its_types_and_no_other_may(name: str) -> None:
    type_ = ResourceType(name, "a:B", points={Verb.ADD: ("mount_device",), Verb.REMOVE: ()})
    check_type(MINE._replace(distribution=PROVIDED_BY[name]), type_)
    with pytest.raises(ConfigError, match=f"belongs to the distribution {PROVIDED_BY[name]}"):
        check_type(MINE, type_)


@given(st.lists(st.sampled_from(sorted(POINTS)), max_size=3))
def test_a_third_party_declares_one_point_and_nothing_else(points: list[str]) -> None:
    type_ = ResourceType("example.com/T", "a:B", points={Verb.ADD: tuple(points)})
    if points == ["modify_resource"]:
        check_type(MINE, type_)
    else:
        with pytest.raises(ConfigError, match="asks modify_resource and nothing else"):
            check_type(MINE, type_)


def test_tables_say_whose_an_entry_is() -> None:
    other = MINE._replace(name="other")
    tables = merge(
        [
            declared(MINE, ResourceType("example.com/T", "a:B"), enforcers=(Named("rego", "a:b"),)),
            declared(other, ResourceType("example.com/U", "a:B"), services=(Named("rego", "a:b"),)),
        ]
    )
    assert {name: plugin.name for name, (plugin, _) in tables.types.items()} == {
        "example.com/T": "mine",
        "example.com/U": "other",
    }
    assert tables.named["enforcers"]["rego"].plugin is MINE
    assert tables.named["services"]["rego"].plugin is other
