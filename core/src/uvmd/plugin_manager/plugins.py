"""The loaded plugins as the rest of the daemon sees them: tables, made on first use.

Loading imports the thin ``plugin.py`` of each plugin and nothing behind it. What a
reference stands for is made with the plugin's environment, which exists once
:meth:`Plugins.connect` was called.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from uvmd.errors import ConfigError
from uvmd.plugin_manager.index import Installed, find_plugins
from uvmd.plugin_manager.observers import Observer, Observers
from uvmd.plugin_manager.references import resolve
from uvmd.plugin_manager.selection import EVERY, Choice, choose

if TYPE_CHECKING:
    from uvmd.api.environment import Dial, Environment, MakeService, Platform, Run, State
    from uvmd.api.resources import Handler, Registered
    from uvmd.plugin_manager.loading import Declared
    from uvmd.plugin_manager.tables import Tables


def load_plugins(
    allow: Sequence[str] = (EVERY,),
    deny: Sequence[str] = (),
    require: Sequence[str] = (),
    sections: Mapping[str, Mapping[str, Any]] | None = None,
    path: Iterable[str] | None = None,
) -> Plugins:
    """Find, choose, import and check the plugins.

    ``sections`` are the raw ``[plugin.NAME]`` tables of the configuration; ``path`` is
    where to look, the import path by default.

    Raises:
        ConfigError: any doubt. The text names the plugin, or both of them.
    """
    installed = find_plugins(path)
    choice = choose(installed, allow, deny, require, sections)
    if not choice.load:
        return Plugins(installed, choice, [], None, {})
    from uvmd.plugin_manager.loading import load
    from uvmd.plugin_manager.tables import merge

    declared = load(choice.load)
    return Plugins(installed, choice, declared, merge(declared), dict(sections or {}))


class Parts(NamedTuple):
    """What environments are made of; ``state`` and ``service`` are for a distribution."""

    platform: Platform
    dial: Dial
    run: Run
    state: Callable[[str], State]
    service: Callable[[str], MakeService]


class Plugins:
    """See the module. ``declared`` and ``tables`` are for ``inspection``."""

    def __init__(
        self,
        installed: Mapping[str, Installed],
        choice: Choice,
        declared: Sequence[Declared],
        tables: Tables | None,
        sections: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.installed = installed
        self.choice = choice
        self.declared = {one.plugin.name: one for one in declared}
        self.tables = tables
        self._sections = sections
        self._mutex = threading.Lock()
        self._configs: dict[str, Any] = {}
        self._environments: dict[str, Environment] = {}
        self._parts: Parts | None = None
        self.container_events = self._observers("container_event", "event")
        self.spans = self._observers("span_ended", "span")
        self.resource_types: dict[str, Registered] = self._resource_types()
        for one in declared:
            if one.plugin.name in sections:
                self.config(one.plugin.name)

    @property
    def count(self) -> int:
        """How many plugins are loaded."""
        return len(self.declared)

    def connect(
        self,
        platform: Platform,
        dial: Dial,
        run: Run,
        state: Callable[[str], State],
        service: Callable[[str], MakeService],
    ) -> None:
        """Say what environments are made of; ``state`` and ``service`` are a distribution's own."""
        self._parts = Parts(platform, dial, run, state, service)

    # The tables

    def names(self, hook: str) -> tuple[str, ...]:
        """The names declared by one of the hooks that declare names, ``enforcers`` say."""
        return tuple(self.tables.named[hook]) if self.tables else ()

    def make(self, hook: str, name: str, *arguments: Any) -> Any:
        """Import what is declared under the name and call it: environment, then arguments.

        Raises:
            ConfigError: it cannot be imported. What the call raises is raised.
        """
        if self.tables is None:
            raise ConfigError(f"no plugin declares {name}")
        plugin, entry = self.tables.named[hook][name]
        target = resolve(entry.reference, f"{plugin.label}: {entry.name}")
        return target(self.environment(plugin.name), *arguments)

    def factories(self, hook: str) -> dict[str, Callable[..., Any]]:
        """:meth:`make` for every name of a hook, as functions of the further arguments.

        ``factories("enforcers")`` and ``factories("host_data_sources")`` are what the
        gate takes.
        """
        return {name: self._factory(hook, name) for name in self.names(hook)}

    def commands(self) -> dict[str, str]:
        """The verbs under ``uvmctl`` and the reference of each."""
        if self.tables is None:
            return {}
        return {name: owned.entry.reference for name, owned in self.tables.named["cli_commands"].items()}

    def _factory(self, hook: str, name: str) -> Callable[..., Any]:
        return lambda *arguments: self.make(hook, name, *arguments)

    def _resource_types(self) -> dict[str, Registered]:
        if self.tables is None:
            return {}
        from uvmd.api.names import is_protocol_name
        from uvmd.api.resources import Registered

        return {
            name: Registered(type_, plugin.name, not is_protocol_name(name), self._handler(plugin, name))
            for name, (plugin, type_) in self.tables.types.items()
        }

    def _handler(self, plugin: Installed, name: str) -> Callable[[], Handler]:
        def make() -> Handler:
            from uvmd.plugin_manager.inspection import handler_class

            assert self.tables is not None
            made = handler_class(plugin, self.tables.types[name][1])
            return made(self.environment(plugin.name))

        return make

    def _observers(self, hook: str, argument: str) -> Observers:
        found = [
            Observer(name, one.observers[hook])
            for name, one in self.declared.items()
            if hook in one.observers
        ]
        return Observers(found, argument)

    # Environments

    def config(self, name: str) -> Any:
        """Return the plugin's section as an instance of its model; None without a model.

        Raises:
            ConfigError: the section is not what the model takes, or there is no model.
        """
        if name not in self._configs:
            from uvmd.plugin_manager.inspection import read_section

            self._configs[name] = read_section(self.declared[name], self._sections.get(name))
        return self._configs[name]

    def environment(self, name: str) -> Environment:
        """Return the plugin's environment, made on first use.

        Raises:
            ConfigError: the daemon is not connected, or the section is not valid.
        """
        from uvmd.api.environment import Environment

        with self._mutex:
            if name not in self._environments:
                if self._parts is None:
                    raise ConfigError(f"plugin {name} is used before the daemon is set up")
                platform, dial, run, state, service = self._parts
                distribution = self.declared[name].plugin.distribution
                self._environments[name] = Environment(
                    self.config(name), platform, dial, run, state(distribution), service(distribution)
                )
            return self._environments[name]
