"""What the containers use: ``uvmd.usage``, asked for again and again by metrics and ``uvmctl top``.

From the first look on, the files of a container's cgroup stay open until it is deleted: a
look at a hundred containers is six hundred files, and opening them is nearly all of it.
Who never looks has none open.
"""

from __future__ import annotations

import resource
import threading
from typing import Any

from uvmd.errors import Failed
from uvmd.host.containers import Container, State
from uvmd.host.registry import Registry
from uvmd.linux.cgroup_usage import FILES, Usage, UsageReader, read_usage
from uvmd.linux.cgroups import Cgroups


class Usages:
    """See the module. ``most`` containers at most have their files kept open.

    By default as many as a quarter of the daemon's descriptors is enough for.
    """

    def __init__(self, cgroups: Cgroups, registry: Registry, most: int | None = None) -> None:
        self._cgroups = cgroups
        self._registry = registry
        self._most = _affordable() if most is None else most
        self._mutex = threading.Lock()
        self._readers: dict[str, UsageReader] = {}
        registry.watch(self._hear)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a container; one that is going uses nothing.

        Raises:
            Failed: a cgroup cannot be read.
        """
        rows = []
        for container in self._registry.containers():
            try:
                used = self._read(container)
            except OSError as error:
                raise Failed(f"usage of {container.id}: {error.filename}: {error.strerror}") from error
            pod = container.role.pod_id if container.role.in_pod else ""
            facts = {"id": container.id, "pod": pod, "state": container.state.name.lower()}
            rows.append({**facts, **used._asdict()})
        return rows

    def _read(self, container: Container) -> Usage:
        # Held for one container only: whoever deletes another waits for a moment at most.
        with self._mutex:
            reader = self._readers.get(container.id)
            if reader is None:
                if not self._is_kept(container):
                    return read_usage(self._cgroups, container.cgroup)
                reader = self._readers[container.id] = UsageReader(self._cgroups, container.cgroup)
            return reader.read()

    def _is_kept(self, container: Container) -> bool:
        """Whether there will be an end to hear of: not of a create that fails, nor after the end."""
        there = self._registry.find(container.id) is container
        return there and container.state is not State.CREATING and len(self._readers) < self._most

    def _hear(self, event: str, container: Container) -> None:
        if event == "deleted":
            with self._mutex:
                reader = self._readers.pop(container.id, None)
            if reader is not None:
                reader.close()


def _affordable() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft // 4 // FILES if soft > 0 else 1 << 16
