"""From what each plugin declares to one table of each kind; a conflict stops the start."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from uvmd.api.hooks import Named
from uvmd.api.names import MODIFY_RESOURCE, POINTS, PROVIDED_BY, is_protocol_name
from uvmd.api.resources import ResourceType, Target, Verb
from uvmd.errors import ConfigError
from uvmd.plugin_manager.index import Installed
from uvmd.plugin_manager.loading import NAMED, Declared
from uvmd.plugin_manager.references import check_reference

_THIRD_PARTY = re.compile(r"([a-z0-9-]+\.)+[a-z0-9-]+/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
#: Names that core itself gives away.
TAKEN = {"enforcers": ("open_door",), "vm_properties": ("ps", "usage", "mounts", "locks")}


class Owned(NamedTuple):
    """One entry of a table: a declaration and whose it is."""

    plugin: Installed
    entry: Named


class Tables(NamedTuple):
    """Everything that the loaded plugins declare, by kind and name."""

    types: dict[str, tuple[Installed, ResourceType]]
    named: dict[str, dict[str, Owned]]


def merge(declared: Iterable[Declared]) -> Tables:
    """Put the declarations of all plugins together.

    Raises:
        ConfigError: a name is claimed twice, belongs to core or to the protocol, or a
            declaration is not what it may be. Names the plugins.
    """
    types: dict[str, tuple[Installed, ResourceType]] = {}
    named: dict[str, dict[str, Owned]] = {name: {} for name in NAMED}
    for one in declared:
        for type_ in one.resource_types:
            check_type(one.plugin, type_)
            if type_.name in types:
                _twice(types[type_.name][0], one.plugin, f"resource type {type_.name}")
            types[type_.name] = one.plugin, type_
        for hook, entries in one.named.items():
            for entry in entries:
                _enter(named[hook], hook, one.plugin, entry)
    return Tables(types, named)


def _enter(table: dict[str, Owned], hook: str, plugin: Installed, entry: Named) -> None:
    what = NAMED[hook]
    if entry.name in TAKEN.get(hook, ()):
        raise ConfigError(f"{plugin.label} declares the {what} {entry.name}, which is core's own")
    if hook == "vm_properties" and ":" in entry.name:
        raise ConfigError(f"{plugin.label}: {what} {entry.name}: behind a colon stands what is asked of it")
    if entry.name in table:
        _twice(table[entry.name].plugin, plugin, f"the {what} {entry.name}")
    table[entry.name] = Owned(plugin, entry)


def _twice(first: Installed, second: Installed, what: str) -> None:
    if first == second:
        raise ConfigError(f"{first.label} declares {what} twice")
    raise ConfigError(f"{first.label} and {second.label} both declare {what}; deny one of them")


def check_type(plugin: Installed, type_: ResourceType) -> None:
    """Check one resource type by what it says of itself.

    Raises:
        ConfigError: naming the plugin, the type and what is wrong.
    """
    what = f"{plugin.label}: resource type {type_.name!s:.128}"
    if not isinstance(type_.name, str):
        raise ConfigError(f"{what}: a name is a text")
    _check_name(plugin, type_.name, what)
    check_reference(type_.handler, what)
    if not isinstance(type_.target, Target):
        raise ConfigError(f"{what}: the target is not one of api.Target")
    verbs = tuple(type_.verbs)
    if not verbs or not all(isinstance(verb, Verb) for verb in verbs) or len(set(verbs)) != len(verbs):
        raise ConfigError(f"{what}: the verbs are some of api.Verb, each once")
    if not isinstance(type_.points, Mapping):
        raise ConfigError(f"{what}: points is a mapping from verbs to names")
    for verb in type_.points:
        if verb not in verbs:
            raise ConfigError(f"{what}: declares points for {verb}, which it does not serve")
    for verb in verbs:
        _check_points(type_, verb, what)


def _check_name(plugin: Installed, name: str, what: str) -> None:
    if not is_protocol_name(name):
        if not _THIRD_PARTY.fullmatch(name):
            raise ConfigError(f"{what}: a name is a domain, a slash and a word, like example.com/Ramdisk")
        return
    owner = PROVIDED_BY.get(name)
    if owner is None:
        raise ConfigError(f"{what}: a name of one's own begins with its domain: example.com/{name:.64}")
    if owner != plugin.distribution:
        raise ConfigError(f"{what}: the name belongs to the distribution {owner}")


def _check_points(type_: ResourceType, verb: Verb, what: str) -> None:
    points = type_.points_of(verb)
    for point in points:
        if point not in POINTS:
            raise ConfigError(f"{what}: there is no enforcement point {point!s:.64}")
    if not is_protocol_name(type_.name) and points != (MODIFY_RESOURCE,):
        raise ConfigError(
            f"{what}: {verb.value} declares {', '.join(points) or 'no point'}; "
            f"a type of one's own asks {MODIFY_RESOURCE} and nothing else"
        )
