"""A VM small enough for a test: core's gate, lock, table, records and pipeline, no bridge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from uvmd.api.environment import Environment
from uvmd.api.names import PROVIDED_BY
from uvmd.api.resources import Handler, Record, Registered, ResourceType, Verb
from uvmd.api.testing.fakes import FakeContainers, fake_environment
from uvmd.api.testing.scripted import POLICY, Answer, PlainReader, ScriptedEnforcer
from uvmd.host.core_types import core_types
from uvmd.host.locks import ChangeLock
from uvmd.host.modify import Modifier
from uvmd.host.records import Records
from uvmd.host.requests import NULL_ID
from uvmd.host.table import MountTable
from uvmd.policy.gate import Gate
from uvmd.policy.selection import PolicySettings


class Workbench:
    """Runs requests through the real pipeline, on the test's own thread.

    Args:
        types: the resource types under test, as a plugin's ``resource_types()`` gives them.
        environment: for their handlers.
        handlers: made handlers by the type's name, in place of what the type names.
        records: a path, for tests of a restarted daemon.
    """

    def __init__(
        self,
        types: Iterable[ResourceType] = (),
        environment: Environment | None = None,
        *,
        handlers: Mapping[str, Handler] | None = None,
        records: str = "",
    ) -> None:
        self.environment = environment or fake_environment()
        self.host = FakeContainers()
        self.lock = ChangeLock()
        self.table = MountTable()
        self.records = Records(records)
        self.gate = Gate(
            enforcers={"scripted": ScriptedEnforcer},
            selectable=["open_door", "scripted"],
            envelope_readers={"cose-x509": PlainReader},
        )
        self.types = core_types(self.gate, self.host)
        for type_ in types:
            self.types[type_.name] = Registered(
                type_,
                plugin="under test",
                third_party=type_.name not in PROVIDED_BY,
                make=self._maker(type_, (handlers or {}).get(type_.name)),
            )
        self.modifier = Modifier(self.gate, self.lock, self.table, self.types, self.host, self.records)

    def _maker(self, type_: ResourceType, made: Handler | None) -> Callable[[], Handler]:
        module, _, name = type_.handler.partition(":")

        def make() -> Handler:
            if made is not None:
                return made
            handler: Handler = getattr(import_module(module), name)(self.environment)
            return handler

        return make

    def be_strict(self, script: Mapping[str, Answer] | None = None) -> ScriptedEnforcer:
        """Set a scripted policy, through the gate; return its enforcer to look at or to change."""
        settings = PolicySettings("scripted", POLICY)
        enforcer = ScriptedEnforcer(POLICY, script)
        self.gate.adopt(settings, enforcer)
        enforcer.asked.clear()  # the gate's own question about logging
        return enforcer

    def request(
        self, request_type: str, resource_type: str, settings: Any = None, target: str = NULL_ID
    ) -> None:
        """Carry out one ModifySettings request; raises what the host would be told."""
        self.modifier.modify(target, request_type, resource_type, settings, settings is not None)

    def add(self, resource_type: str, settings: Any, target: str = NULL_ID) -> None:
        """Carry out an Add."""
        self.request(Verb.ADD.value, resource_type, settings, target)

    def remove(self, resource_type: str, settings: Any, target: str = NULL_ID) -> None:
        """Carry out a Remove."""
        self.request(Verb.REMOVE.value, resource_type, settings, target)

    def record(self, resource_type: str, identity: str) -> Record | None:
        """What core keeps under this identity."""
        return self.records.get(resource_type, identity)

    def mounted(self) -> list[str]:
        """The paths in the mount table."""
        return [row["target"] for row in self.table.rows()]
