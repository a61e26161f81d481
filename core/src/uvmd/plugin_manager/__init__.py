"""Find, select, import and check plugins; refuse to start on doubt.

``load`` gives the tables that requests are served from; the other functions are for
people and image builds. Nothing here imports pluggy, or a plugin, unless one is
installed and chosen; pydantic only where the operator configured a plugin, or a request
or one of the other functions needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from uvmd.plugin_manager.plugins import Plugins, load_plugins

if TYPE_CHECKING:
    from uvmd.api.resources import Registered
    from uvmd.api.wire import WireModel

__all__ = ["Lists", "Plugins", "Selecting", "describe", "load", "load_plugins", "resolve_all", "schemas"]


class Lists(Protocol):
    """The section ``[plugins]``."""

    @property
    def allow(self) -> Sequence[str]: ...

    @property
    def deny(self) -> Sequence[str]: ...

    @property
    def require(self) -> Sequence[str]: ...


class Selecting(Protocol):
    """The part of the configuration that is about plugins."""

    @property
    def plugins(self) -> Lists: ...

    @property
    def plugin(self) -> Mapping[str, Mapping[str, Any]]: ...


def load(config: Selecting) -> Plugins:
    """Load the plugins that the configuration chooses.

    Raises:
        ConfigError: any doubt. The text names the plugin, or both of them.
    """
    lists = config.plugins
    return load_plugins(lists.allow, lists.deny, lists.require, config.plugin)


def describe(config: Selecting) -> list[dict[str, Any]]:
    """Say of each installed plugin what it is, what it adds and why it is (not) loaded."""
    from uvmd.plugin_manager import inspection

    return inspection.describe(load(config))


def resolve_all(config: Selecting) -> list[str]:
    """Import every lazy reference and validate each; return a line for each plugin.

    Raises:
        ConfigError: with everything that is wrong, a line each.
    """
    from uvmd.plugin_manager import inspection

    return inspection.resolve_all(load(config))


def schemas(
    config: Selecting,
    messages: Mapping[str, type[WireModel]] | None = None,
    core_types: Mapping[str, Registered] | None = None,
) -> dict[str, Any]:
    """Return JSON Schema by name: ``message.X``, ``resource.TYPE``, ``plugin.SECTION``.

    ``messages`` are the bridge's models and ``core_types`` core's own resource types: this
    room may import neither.

    Raises:
        ConfigError: something does not import.
    """
    from uvmd.plugin_manager import inspection

    return inspection.schemas(load(config), messages or {}, core_types or {})
