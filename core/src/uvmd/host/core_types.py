"""The resource types that core itself serves, through the same pipeline as any plugin's.

Storage, network and device types come with their plugins; until one is installed they
are unknown. None of these four asks a question of its own: ``api/names.py`` says why.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from uvmd.api.resources import Handler, Registered, ResourceType, Target, Verb
from uvmd.policy.gate import Gate


class Limits(Protocol):
    """What these types need of the host."""

    def update_constraints(self, container_id: str, resources: dict[str, Any]) -> object:
        """Give the OCI resources to the runtime's update."""

    def refresh_pod_limit(self) -> object:
        """Set the memory limit of all pods anew from the VM's memory."""


def core_types(gate: Gate, limits: Limits) -> dict[str, Registered]:
    """Return the table of core's types. Their handlers are imported on first use."""

    def make(name: str, tool: object) -> Handler:
        from uvmd.host import core_handlers

        handler: Handler = getattr(core_handlers, name)(tool)
        return handler

    # Without verbs: the request type is ignored (spec bridge.md 6.10).
    types = [
        (ResourceType("ContainerConstraints", "Constraints", Target.CONTAINER, (), latched=False), limits),
        (ResourceType("PodCgroupMemoryLimit", "PodLimit", Target.VM, (Verb.UPDATE,), latched=False), limits),
        (ResourceType("SecurityPolicy", "Policy", Target.VM, (), latched=False), gate),
        (ResourceType("SecurityPolicyFragment", "Fragment", Target.VM, (), latched=False), gate),
    ]
    return {
        type_.name: Registered(type_, plugin="", third_party=False, make=partial(make, type_.handler, tool))
        for type_, tool in types
    }
