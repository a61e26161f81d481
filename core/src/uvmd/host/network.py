"""The containers' network: the provider of a plugin, or none.

Without one no namespace is known. An empty id is no namespace, and not one that all
containers without an id would share (spec containers.md 16.9).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from uvmd.api.containers import NetworkProvider
from uvmd.api.transaction import Undo
from uvmd.errors import Failed, NamespaceNotFound, UvmdError
from uvmd.oci.role import Role


@contextmanager
def _failing(namespace: str, doing: str) -> Iterator[None]:
    """Turn whatever a provider raises into an error of the tree."""
    try:
        yield
    except UvmdError:
        raise
    except Exception as error:
        raise Failed(f"network {namespace:.64}: {doing}: {error}") from error


class Network:
    """See the module. ``make`` makes the provider, on first use."""

    def __init__(self, make: Callable[[], NetworkProvider] | None = None) -> None:
        self._make = make
        self._mutex = threading.Lock()
        self._made: NetworkProvider | None = None

    def require_namespace(self, role: Role) -> None:
        """Refuse a sandbox whose namespace nobody knows.

        Raises:
            NamespaceNotFound: unknown, and the specification does not say to go without.
        """
        if role.namespace and not role.lenient_network:
            if not self._exists(role.namespace):
                raise NamespaceNotFound(f"network namespace {role.namespace:.64} is not known")

    def dns(self, role: Role) -> tuple[Sequence[str], Sequence[str]]:
        """Return the servers and searches of the container's namespace."""
        provider = self._provider() if role.namespace else None
        if provider is None or not self._exists(role.namespace):
            return (), ()
        with _failing(role.namespace, "dns"):
            return provider.dns(role.namespace)

    def attach(self, role: Role, pid: int, undo: Undo) -> None:
        """Give the adapters of the namespace to the container; in the VM's network, set them up there.

        Raises:
            Failed, or what the provider's error is.
        """
        provider = self._provider() if role.namespace else None
        if provider is None:
            return
        with _failing(role.namespace, "attach"):
            if role.host_network:
                provider.attach_host(role.namespace, undo)
            else:
                provider.attach(role.namespace, pid, undo)

    def detach(self, namespace: str) -> None:
        """Forget the pod in its namespace: its process is gone.

        Raises:
            Failed, or what the provider's error is.
        """
        provider = self._provider() if namespace else None
        if provider is None:
            return
        with _failing(namespace, "detach"):
            provider.detach(namespace)

    def _exists(self, namespace: str) -> bool:
        provider = self._provider()
        if provider is None:
            return False
        with _failing(namespace, "look up"):
            return provider.exists(namespace)

    def _provider(self) -> NetworkProvider | None:
        if self._make is None:
            return None
        with self._mutex:
            if self._made is None:
                self._made = self._make()
            return self._made
