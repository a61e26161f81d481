"""Import the chosen plugins and ask each what it declares. The only user of pluggy.

Each implementation is called by itself rather than through pluggy's call of all, so that
an answer has a name to it; pluggy checks names and arguments of the hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import pluggy

from uvmd.api import hooks
from uvmd.api.hooks import Named, Requirement
from uvmd.api.resources import ResourceType
from uvmd.errors import ConfigError
from uvmd.plugin_manager.index import Installed
from uvmd.plugin_manager.references import check_reference, resolve

#: Hooks that answer with names and references; what one of these is called in texts.
NAMED = {
    "enforcers": "enforcer",
    "envelope_readers": "envelope reader",
    "container_shapers": "container shaper",
    "container_network": "network provider",
    "host_data_sources": "host data source",
    "services": "service",
    "vm_properties": "property of the VM",
    "cli_commands": "command",
}
EVENTS = ("container_event", "span_ended")
#: What a plugin may require of a VM.
REQUIREMENTS = ("program", "filesystem", "dm-target", "feature")


class Declared(NamedTuple):
    """What one plugin declares."""

    plugin: Installed
    config_model: str
    resource_types: tuple[ResourceType, ...]
    named: dict[str, tuple[Named, ...]]
    observers: dict[str, Callable[..., object]]
    requirements: tuple[Requirement, ...] = ()


def load(plugins: Sequence[Installed]) -> list[Declared]:
    """Import the plugins and ask their hooks, in order of their names.

    Raises:
        ConfigError: an import fails, or an implementation is not what a hook may have.
    """
    manager = pluggy.PluginManager(hooks.GROUP)
    manager.add_hookspecs(hooks)
    declared = []
    for plugin in plugins:
        module = resolve(plugin.reference, plugin.label)
        try:
            manager.register(module, plugin.name)
        except (pluggy.PluginValidationError, ValueError) as error:
            raise ConfigError(f"{plugin.label}: {error}") from error
        declared.append(_ask(plugin, _implementations(manager, module, plugin)))
    return declared


def _implementations(
    manager: pluggy.PluginManager, module: object, plugin: Installed
) -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    for caller in manager.get_hookcallers(module) or ():
        for implementation in caller.get_hookimpls():
            if implementation.plugin is not module:
                continue
            what = f"{plugin.label}: {caller.name}"
            if not caller.has_spec():
                raise ConfigError(f"{what} is no hook of {hooks.GROUP}")
            if implementation.tryfirst or implementation.trylast:
                raise ConfigError(f"{what}: hooks have no priority here, order never decides")
            if implementation.wrapper or implementation.hookwrapper:
                raise ConfigError(f"{what}: hooks have no wrappers here")
            if implementation.kwargnames:
                raise ConfigError(f"{what}: an implementation has no default arguments")
            found[caller.name] = implementation.function
    if not found:
        raise ConfigError(f"{plugin.label} implements no hook; are its functions marked @hookimpl?")
    return found


def _ask(plugin: Installed, hook: dict[str, Callable[..., Any]]) -> Declared:
    model = ""
    if "config_model" in hook:
        what = f"{plugin.label}: config_model"
        model = check_reference(_answer(hook["config_model"], what), what)
    types = _items(hook, "resource_types", ResourceType, plugin)
    named = {name: _items(hook, name, Named, plugin) for name in NAMED}
    for name, entries in named.items():
        for entry in entries:
            if not isinstance(entry.name, str) or not entry.name:
                raise ConfigError(f"{plugin.label}: {name}: every {NAMED[name]} has a name")
            check_reference(entry.reference, f"{plugin.label}: {NAMED[name]} {entry.name}")
    observers = {name: hook[name] for name in EVENTS if name in hook}
    requirements = _items(hook, "requirements", Requirement, plugin)
    for one in requirements:
        if one.kind not in REQUIREMENTS:
            known = ", ".join(REQUIREMENTS)
            raise ConfigError(f"{plugin.label}: requirements: {one.kind!r} is none of {known}")
    return Declared(plugin, model, types, named, observers, requirements)


def _items(
    hook: dict[str, Callable[..., Any]], name: str, wanted: type[Any], plugin: Installed
) -> tuple[Any, ...]:
    what = f"{plugin.label}: {name}"
    if name not in hook:
        return ()
    answer = _answer(hook[name], what)
    # A NamedTuple is iterable too: one declaration, returned without its list.
    if isinstance(answer, (str, wanted)) or not isinstance(answer, Iterable):
        raise ConfigError(f"{what} returned {type(answer).__name__}, not a list of {wanted.__name__}")
    items = _answer(lambda: tuple(answer), what)  # a generator runs only now
    for item in items:
        if not isinstance(item, wanted):
            raise ConfigError(f"{what} holds {type(item).__name__}, not {wanted.__name__}")
    found: tuple[Any, ...] = items
    return found


def _answer(function: Callable[[], Any], what: str) -> Any:
    try:
        return function()
    except Exception as error:
        raise ConfigError(f"{what}: {type(error).__name__}: {error}") from error
