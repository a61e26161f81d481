"""The provider of container networks: a pod's side of the namespaces."""

from __future__ import annotations

from collections.abc import Sequence

from uvmd.api import Environment, Undo
from uvmd_network.networks import networks_of


class Provider:
    """Implements :class:`uvmd.api.NetworkProvider`."""

    def __init__(self, env: Environment) -> None:
        self._networks = networks_of(env)

    def exists(self, namespace: str) -> bool:
        """Whether a host has added an adapter to a namespace of that name, or a pod has it."""
        return self._networks.exists(namespace)

    def dns(self, namespace: str) -> tuple[Sequence[str], Sequence[str]]:
        """Name servers and search list of all its adapters."""
        return self._networks.dns(namespace)

    def attach(self, namespace: str, pid: int, undo: Undo) -> None:
        """Move the adapters to the pod's network namespace and set them up; those that come later, too."""
        self._networks.attach(namespace, pid, undo)

    def attach_host(self, namespace: str, undo: Undo) -> None:
        """Set the adapters up where they are; those that come later, too."""
        self._networks.attach(namespace, 0, undo)

    def detach(self, namespace: str) -> None:
        """Take the adapters back and forget the pod."""
        self._networks.detach(namespace)
