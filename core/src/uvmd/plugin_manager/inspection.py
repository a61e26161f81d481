"""For people and image builds: what is loaded and why, and does all of it really import?

``uvmd plugins``, ``uvmd check`` and ``uvmd schema`` print what these functions return.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from uvmd.api.resources import Handler, Registered, ResourceType
from uvmd.errors import ConfigError
from uvmd.plugin_manager.index import Installed
from uvmd.plugin_manager.loading import NAMED, Declared
from uvmd.plugin_manager.references import resolve

if TYPE_CHECKING:
    from uvmd.api.settings import ConfigModel
    from uvmd.api.wire import WireModel
    from uvmd.plugin_manager.plugins import Plugins


def describe(plugins: Plugins) -> list[dict[str, Any]]:
    """Return one entry for each installed plugin: what it is, and why it is (not) loaded.

    ``state`` and ``adds`` are for a table, the rest for a program.
    """
    rows = []
    for name, plugin in sorted(plugins.installed.items()):
        declared = plugins.declared.get(name)
        why = plugins.choice.left_out.get(name)
        row: dict[str, Any] = {
            "name": name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "loaded": declared is not None,
            "state": "loaded" if why is None else f"not loaded: {why}",
            "resource_types": [],
            "adds": [],
        }
        if declared is not None:
            row["resource_types"] = [_described(type_) for type_ in declared.resource_types]
            row["adds"] = _adds(declared)
        rows.append(row)
    return rows


def _described(type_: ResourceType) -> dict[str, Any]:
    return {
        "name": type_.name,
        "target": type_.target.value,
        "points": {verb.value: list(type_.points_of(verb)) for verb in type_.verbs},
        "latched": type_.latched,
    }


def _adds(declared: Declared) -> list[str]:
    """What a plugin adds, for people: each resource type with the points that each verb asks."""
    adds = []
    for type_ in declared.resource_types:
        asks = {verb.value: ", ".join(type_.points_of(verb)) or "asks nothing" for verb in type_.verbs}
        adds.append(f"{type_.name} ({'; '.join(f'{verb}: {points}' for verb, points in asks.items())})")
    for hook, entries in declared.named.items():
        adds += [f"{NAMED[hook]} {entry.name}" for entry in entries]
    adds += [f"hears {hook}" for hook in declared.observers]
    return adds


def resolve_all(plugins: Plugins) -> list[str]:
    """Import everything that is otherwise imported on first use; say what was found.

    Makes nothing: no environment is needed, no device is touched.

    Raises:
        ConfigError: with everything that is wrong, a line each.
    """
    problems: list[str] = []
    lines = []

    def attempt(check: Callable[..., object], *arguments: Any) -> None:
        try:
            check(*arguments)
        except ConfigError as error:
            problems.append(str(error))

    for declared in plugins.declared.values():
        attempt(plugins.config, declared.plugin.name)
        for type_ in declared.resource_types:
            attempt(handler_class, declared.plugin, type_)
        for hook, entries in declared.named.items():
            for entry in entries:
                attempt(_callable, entry.reference, f"{declared.plugin.label}: {NAMED[hook]} {entry.name}")
        lines.append(f"{declared.plugin.label}: {len(_adds(declared))} declarations resolved")
    if problems:
        raise ConfigError("\n".join(problems))
    return lines


def _callable(reference: str, what: str) -> None:
    if not callable(resolve(reference, what)):
        raise ConfigError(f"{what}: {reference} is nothing that can be called")


def handler_class(plugin: Installed, type_: ResourceType) -> type[Handler]:
    """Import a type's handler and check that it can serve the type.

    Raises:
        ConfigError: it is no Handler, has no model for its settings, or lacks a verb.
    """
    from uvmd.api.wire import WireModel

    what = f"{plugin.label}: resource type {type_.name}"
    found = resolve(type_.handler, what)
    if not isinstance(found, type) or not issubclass(found, Handler):
        raise ConfigError(f"{what}: {type_.handler} is not a subclass of api.Handler")
    model = getattr(found, "settings", None)
    if not isinstance(model, type) or not issubclass(model, WireModel):
        raise ConfigError(f"{what}: {type_.handler}.settings is not a subclass of api.WireModel")
    for method in ("identity", *(verb.value.lower() for verb in type_.verbs)):
        if getattr(found, method) is getattr(Handler, method):
            raise ConfigError(f"{what}: {type_.handler} has no {method}()")
    return found


def read_section(declared: Declared, section: Mapping[str, Any] | None) -> Any:
    """Return the plugin's section as an instance of its model; None if it has neither.

    Raises:
        ConfigError: naming the key and the reason.
    """
    plugin = declared.plugin
    if not declared.config_model:
        if section is not None:
            raise ConfigError(f"[plugin.{plugin.name}]: {plugin.label} takes no configuration")
        return None
    model = config_class(declared)
    from pydantic import ValidationError

    try:
        return model.model_validate(dict(section or {}))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            import difflib

            near = difflib.get_close_matches(key, list(model.model_fields), n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(f"[plugin.{plugin.name}]: unknown key {key}{hint}") from None
        raise ConfigError(f"[plugin.{plugin.name}] {key}: {first['msg']}") from None


def config_class(declared: Declared) -> type[ConfigModel]:
    """Import the model of a plugin's section.

    Raises:
        ConfigError: it is no ConfigModel, or lets unknown keys pass.
    """
    from uvmd.api.settings import ConfigModel

    what = f"{declared.plugin.label}: config_model"
    model = resolve(declared.config_model, what)
    if not isinstance(model, type) or not issubclass(model, ConfigModel):
        raise ConfigError(f"{what}: {declared.config_model} is not a subclass of api.ConfigModel")
    if model.model_config.get("extra") != "forbid":
        raise ConfigError(f"{what}: {declared.config_model} must refuse unknown keys")
    return model


def schemas(
    plugins: Plugins,
    messages: Mapping[str, type[WireModel]],
    core_types: Mapping[str, Registered],
) -> dict[str, Any]:
    """Return JSON Schema by name: ``message.X``, ``resource.TYPE``, ``plugin.SECTION``.

    Keys are the wire's. A resource type that does not look at its settings has the
    schema that takes anything.

    Raises:
        ConfigError: something does not import.
    """
    models: dict[str, Any] = {f"message.{name}": model for name, model in messages.items()}
    for name, entry in core_types.items():
        models[f"resource.{name}"] = getattr(entry.handler(), "settings", None)
    for name, one in plugins.declared.items():
        for type_ in one.resource_types:
            models[f"resource.{type_.name}"] = handler_class(one.plugin, type_).settings
        if one.config_model:
            models[f"plugin.{name}"] = config_class(one)
    return {
        name: {} if model is None else model.model_json_schema(by_alias=True)
        for name, model in sorted(models.items())
    }
