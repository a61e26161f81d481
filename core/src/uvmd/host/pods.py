"""The pods: which there are, who is in them, and what their containers share.

A pod begins with its sandbox and ends with it. A workload is counted from the moment its
create begins, so that no sandbox goes while one is on its way; and a pod takes no workload
before its sandbox is created, nor once its removal has begun.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from uvmd.errors import InUse, InvalidState, Refused


@dataclass(slots=True, eq=False)
class Pod:
    """One pod. ``root`` is the directory with the files and mounts that its containers share."""

    id: str
    sandbox_id: str
    root: str
    cgroup: str
    host_network: bool = False
    ready: bool = False
    closing: bool = False
    members: set[str] = field(default_factory=set)


class Pods:
    """The table. Thread-safe; short sections, no work inside."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._pods: dict[str, Pod] = {}

    def find(self, pod_id: str) -> Pod | None:
        """Return a pod in any state, None if there is none of that id."""
        return self._pods.get(pod_id)

    def pods(self) -> list[Pod]:
        """Return all pods."""
        with self._mutex:
            return list(self._pods.values())

    def open(self, pod: Pod) -> None:
        """Enter a pod whose sandbox is being created.

        Raises:
            Refused: there is one of that id.
        """
        with self._mutex:
            if pod.id in self._pods:
                raise Refused(f"pod {pod.id} exists")
            self._pods[pod.id] = pod

    def ready(self, pod: Pod) -> None:
        """Let workloads in: the sandbox is created."""
        with self._mutex:
            pod.ready = True

    def join(self, pod_id: str, container_id: str) -> Pod:
        """Count a workload as a member, from now on.

        Raises:
            Refused: there is no such pod.
            InvalidState: its sandbox is being created or removed.
        """
        with self._mutex:
            pod = self._pods.get(pod_id)
            if pod is None:
                raise Refused(f"pod {pod_id!r:.140} is not known: its sandbox was not created")
            if not pod.ready or pod.closing:
                doing = "removed" if pod.closing else "created"
                raise InvalidState(f"pod {pod_id}: its sandbox is being {doing}")
            pod.members.add(container_id)
            return pod

    def leave(self, pod_id: str, container_id: str) -> Pod | None:
        """Forget a member; fine if it is none. Returns a pod without a sandbox that ends with it."""
        with self._mutex:
            pod = self._pods.get(pod_id)
            if pod is None:
                return None
            pod.members.discard(container_id)
            if pod.sandbox_id or pod.members:
                return None
            return self._pods.pop(pod_id)

    def begin_close(self, pod_id: str) -> None:
        """Admit no further workload to a pod whose sandbox is about to be removed.

        Raises:
            InUse: it has workloads still.
        """
        with self._mutex:
            pod = self._pods.get(pod_id)
            if pod is None:
                return
            if pod.members:
                others = ", ".join(sorted(pod.members)[:3])
                raise InUse(f"pod {pod_id} has {len(pod.members)} other containers: {others}")
            pod.closing = True

    def stay_open(self, pod_id: str) -> None:
        """Take :meth:`begin_close` back."""
        with self._mutex:
            pod = self._pods.get(pod_id)
            if pod is not None:
                pod.closing = False

    def close(self, pod_id: str) -> None:
        """Forget a pod; fine if there is none."""
        with self._mutex:
            self._pods.pop(pod_id, None)

    def stand_in(self, pod: Pod, container_id: str) -> None:
        """Count a workload that an earlier daemon had; without its pod ``pod`` stands in for it.

        One that stands in takes no workloads: its sandbox is not known.
        """
        with self._mutex:
            self._pods.setdefault(pod.id, pod).members.add(container_id)

    def restore(self, pod: Pod) -> None:
        """Enter a pod that an earlier daemon had, in place of one that a workload stood in for."""
        with self._mutex:
            known = self._pods.get(pod.id)
            if known is not None:
                pod.members |= known.members
            pod.ready = True
            self._pods[pod.id] = pod
