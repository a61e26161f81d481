"""Which of the installed plugins are loaded: the operator's three lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from uvmd.errors import ConfigError
from uvmd.plugin_manager.index import Installed

EVERY = "*"


class Choice(NamedTuple):
    """The plugins to load, and of the others why each is not."""

    load: tuple[Installed, ...]
    left_out: Mapping[str, str]


def choose(
    installed: Mapping[str, Installed],
    allow: Sequence[str] = (EVERY,),
    deny: Sequence[str] = (),
    require: Sequence[str] = (),
    sections: Mapping[str, Mapping[str, Any]] | None = None,
) -> Choice:
    """Choose by the section ``[plugins]``.

    A name that is allowed or required and that nobody provides stops the start: a typo
    must not drop the policy. A denied name may be unknown: an image without the plugin
    is what the operator wanted.

    Raises:
        ConfigError: an unknown name, or a required plugin that the other lists leave out.
    """
    for option, names in (("allow", allow), ("require", require)):
        for name in names:
            if name not in installed and not (option == "allow" and name == EVERY):
                raise ConfigError(f"plugins.{option} names {name}, which is not installed{_known(installed)}")
    for name in sections or {}:
        if name not in installed:
            raise ConfigError(f"[plugin.{name}]: no plugin of that name is installed{_known(installed)}")
    left_out = {}
    for name in installed:
        if name in deny:
            left_out[name] = "denied by plugins.deny"
        elif EVERY not in allow and name not in allow:
            left_out[name] = "not in plugins.allow"
    for name in require:
        if name in left_out:
            raise ConfigError(f"plugins.require names {name}, which is {left_out[name]}")
    load = tuple(plugin for name, plugin in sorted(installed.items()) if name not in left_out)
    return Choice(load, left_out)


def _known(installed: Mapping[str, Installed]) -> str:
    return f" (installed: {', '.join(sorted(installed)) or 'none'})"
