"""The containers as resource handlers see them."""

from __future__ import annotations

from collections.abc import Sequence

from uvmd.host.containers import State
from uvmd.host.registry import Registry
from uvmd.host.table import clean

_STATUS = {
    State.CREATING: "creating",
    State.CREATED: "created",
    State.RUNNING: "running",
    State.TERMINATED: "stopped",
}


class ContainerView:
    """The containers as resource handlers see them (``api.resources.Containers``)."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def status(self, container_id: str) -> str | None:
        """Return ``creating``, ``created``, ``running`` or ``stopped``; None for an unknown id."""
        container = self._registry.find(container_id)
        return None if container is None else _STATUS[container.state]

    def using_root(self, path: str) -> Sequence[str]:
        """Return the ids of created and running containers whose root is this path."""
        alive = (State.CREATED, State.RUNNING)
        wanted = clean(path)
        return [c.id for c in self._registry.containers() if c.state in alive and clean(c.root) == wanted]
