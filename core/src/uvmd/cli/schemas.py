"""JSON Schema of everything that strangers hand us, for ``uvmd schema``."""

from __future__ import annotations

from typing import Any, cast

from uvmd import plugin_manager
from uvmd.bridge import messages
from uvmd.daemon.config import Config, options
from uvmd.host.core_types import Limits, core_types
from uvmd.policy.gate import Gate

_KINDS: dict[type, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    tuple: {"type": "array", "items": {"type": "string"}},
}


def all_schemas(config: Config) -> dict[str, Any]:
    """Return schemas by name: ``message.X``, ``response.X``, ``resource.X``, ``config`` and ``plugin.X``."""
    models: dict[str, Any] = {message.name.lower(): model for message, model in messages.REQUESTS.items()}
    for (message, field), model in messages.NESTED_REQUESTS.items():
        models[f"{message.name.lower()}.{field}"] = model
    # Only the models of the core types are looked at: no gate or host is asked anything.
    types = core_types(cast(Gate, None), cast(Limits, None))
    found = plugin_manager.schemas(config, models, types)
    for message, response in messages.RESPONSES.items():
        found[f"response.{message.name.lower()}"] = response.model_json_schema(by_alias=True)
    found["config"] = config_schema()
    return found


def config_schema() -> dict[str, Any]:
    """Return the schema of the configuration file; unknown keys are refused, as at the start."""
    properties: dict[str, Any] = {"plugin": {"type": "object", "additionalProperties": {"type": "object"}}}
    for option in options().values():
        entry = {**_KINDS[type(option.default)], "description": option.help, "default": option.default}
        if option.choices:
            entry["enum"] = list(option.choices)
        if option.at_least is not None:
            entry["minimum"] = option.at_least
        section, dot, name = option.key.partition(".")
        if dot:
            empty = {"type": "object", "additionalProperties": False, "properties": {}}
            properties.setdefault(section, empty)["properties"][name] = entry
        else:
            properties[section] = entry
    return {"type": "object", "additionalProperties": False, "properties": properties}
