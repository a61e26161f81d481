"""Out-of-memory kills: which container lost a process, said once for each time it happened.

The kernel's notice is about a group and, on version 1, comes before the kill; what is told is
the growth of the group's own counter. A container that ends by SIGKILL is looked at as well:
when the whole VM runs out of memory, version 1 sends no notice to anybody.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from uvmd.host.containers import Container, State
from uvmd.host.registry import Registry
from uvmd.linux import memory_events
from uvmd.linux.cgroups import Cgroups
from uvmd.linux.memory_events import Memory, Notice
from uvmd.linux.notices import Notices

log = logging.getLogger(__name__)

#: How often, and how many times, is looked after a notice whose kill is not counted yet.
AGAIN_S: Final = 0.1
_LOOKS: Final = 20


class OutOfMemory(NamedTuple):
    """The kernel killed ``kills`` processes of a container; its memory is that of afterwards."""

    container_id: str
    pod_id: str
    kills: int
    memory: Memory


Listener = Callable[[OutOfMemory], None]


class _Entry:
    __slots__ = ("cgroup", "container_id", "kills", "looks_left", "notice", "pod_id")

    def __init__(self, container_id: str, pod_id: str, cgroup: str, kills: int, notice: Notice) -> None:
        self.container_id = container_id
        self.pod_id = pod_id
        self.cgroup = cgroup
        self.kills = kills
        self.notice = notice
        self.looks_left = 0


class OomKills:
    """Watches containers' groups. Thread-safe."""

    def __init__(self, cgroups: Cgroups, notices: Notices, listener: Listener) -> None:
        self._cgroups = cgroups
        self._notices = notices
        self._listener = listener
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def watch(self, container_id: str, pod_id: str, cgroup: str) -> None:
        """Begin to watch a container; a failure is logged."""
        try:
            notice = memory_events.notice_of_kills(self._cgroups, cgroup)
            # Counted after listening began: a kill between the two would be lost.
            kills = memory_events.kills(self._cgroups, cgroup)
        except OSError as error:
            log.warning(
                "out-of-memory kills of a container cannot be seen, ignoring",
                extra={"container": container_id, "error": str(error)},
            )
            return
        entry = _Entry(container_id, pod_id, cgroup, kills, notice)
        with self._lock:
            self._entries[container_id] = entry
        self._notices.add(notice, lambda noticed: self._noticed(entry, noticed))

    def look(self, container_id: str) -> None:
        """Look whether a container that has just ended was killed for lack of memory."""
        with self._lock:
            entry = self._entries.get(container_id)
        if entry is not None:
            try:
                self._look(entry)
            except OSError as error:
                log.debug("the group of an ended container is gone", extra={"error": str(error)})

    def forget(self, container_id: str) -> None:
        """Watch a container no more."""
        with self._lock:
            entry = self._entries.pop(container_id, None)
        if entry is not None:
            self._notices.remove(entry.notice)

    def _noticed(self, entry: _Entry, noticed: bool) -> float | None:
        if noticed:
            entry.looks_left = _LOOKS
        entry.looks_left -= 1
        if self._look(entry) or entry.looks_left <= 0:
            return None
        # Version 2 counts before it tells, and tells of much else.
        return AGAIN_S if self._cgroups.version == 1 else None

    def _look(self, entry: _Entry) -> bool:
        with self._lock:
            counted = memory_events.kills(self._cgroups, entry.cgroup)
            grown, entry.kills = counted - entry.kills, counted
        if grown <= 0:
            return False
        memory = memory_events.memory(self._cgroups, entry.cgroup)
        facts = {
            "container": entry.container_id,
            "pod": entry.pod_id,
            "cgroup": entry.cgroup,
            "kills": grown,
            "usage_bytes": memory.usage,
            "peak_bytes": memory.peak,
            "limit_bytes": memory.limit,
        }
        log.warning("the kernel has killed in a container for lack of memory", extra=facts)
        self._listener(OutOfMemory(entry.container_id, entry.pod_id, grown, memory))
        return True


def follow(registry: Registry, cgroups: Cgroups, notices: Notices, listener: Listener) -> None:
    """Watch the containers of a registry from now on, those that it already has too."""
    seen = OomKills(cgroups, notices, listener)

    def begin(container: Container) -> None:
        if container.cgroup:
            seen.watch(container.id, container.role.pod_id or container.id, container.cgroup)

    def tell(event: str, container: Container) -> None:
        if event == "created":
            begin(container)
        elif event == "deleted":
            seen.forget(container.id)
        elif event == "exited" and container.init is not None and _was_killed(container.init.status):
            seen.look(container.id)

    registry.watch(tell)
    for container in registry.containers():
        if State.CREATED <= container.state < State.TERMINATED:
            begin(container)


def _was_killed(status: int | None) -> bool:
    # A runtime's init that passes its child's end on exits with 128 and the number.
    return status in (-signal.SIGKILL, 128 + signal.SIGKILL)
