"""The namespaces of a container in a strict VM: its own, or those of its pod's other containers.

No policy sees them, and a container without one, or with a path to the VM's, would be in the
VM's: its processes, its messages, its host name. Only for the network there is a question.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, Final

from uvmd.errors import Failed, Refused
from uvmd.host.containers import Container, State
from uvmd.host.context import Context
from uvmd.linux import proc
from uvmd.oci.spec import SPEC_FIELD, Spec

_FIELD: Final = f"{SPEC_FIELD}.linux.namespaces"
#: Hosts send each of them with every container, as they do ``mount`` and ``network``.
_NEEDED: Final = ("pid", "ipc", "uts")
_NETWORK: Final = "network"
#: What may be joined, and its name in /proc (namespaces(7)). A user namespace is made of
#: mappings, which decide who the asked user is; a mount namespace is refused in every VM.
_NAMES: Final = {_NETWORK: "net"} | {name: name for name in ("cgroup", "ipc", "pid", "time", "uts")}
# As hosts write it: the pid is the one that the sandbox's start was answered with.
_PATH: Final = re.compile(r"/proc/([1-9][0-9]{0,9})/ns/([a-z]+)")


def check_namespaces(ctx: Context, container: Container, spec: Spec) -> None:
    """Refuse what would put the container into a namespace of the VM, or of somebody else.

    Raises:
        Refused: naming the namespace.
    """
    entries = spec["linux"].get("namespaces", ())
    kinds = {entry.get("type") for entry in entries}
    for kind in _NEEDED:
        if kind not in kinds:
            raise Refused(f"{_FIELD}: a container under a security policy needs a {kind} namespace")
    if "user" in kinds:
        raise Refused(f"{_FIELD}: a user namespace is nothing that a security policy is asked about")
    for kind, pid in _joined(entries):
        if not any(_is_init(other, pid) for other in _pod_of(ctx, container)):
            raise Refused(f"{_FIELD}: the {kind} namespace must be the container's own or its pod's")
        if kind != _NETWORK and _is_vms(kind, pid):
            raise Refused(f"{_FIELD}: the {kind} namespace is the VM's")


def in_vms_network(spec: Spec) -> bool:
    """Tell whether the container would be in the VM's network. Only of what was checked above.

    Raises:
        Failed: the process is gone whose network it should have.
    """
    entries = [entry for entry in spec["linux"].get("namespaces", ()) if entry.get("type") == _NETWORK]
    return not entries or any(_is_vms(kind, pid) for kind, pid in _joined(entries))


def _joined(entries: Any) -> Iterator[tuple[str, int]]:
    """Yield kind and pid of each namespace that has a path."""
    for entry in entries:
        path, kind = entry.get("path"), entry.get("type", "")
        if not path:
            continue
        found = _PATH.fullmatch(path)
        if found is None or found[2] != _NAMES.get(kind):
            raise Refused(f"{_FIELD}: {path!r:.100} is no path to a {kind:.20} namespace of the pod")
        yield kind, int(found[1])


def _pod_of(ctx: Context, container: Container) -> Iterator[Container]:
    role = container.role
    for other in ctx.registry.containers() if role.in_pod else ():
        if other is not container and other.role.in_pod and other.role.pod_id == role.pod_id:
            yield other


def _is_init(container: Container, pid: int) -> bool:
    init = container.init
    if init is None or container.state not in (State.CREATED, State.RUNNING):
        return False
    # The start time too: a pid may have changed hands since.
    return init.pid == pid and not init.over and init.start_time == proc.start_time(pid)


def _is_vms(kind: str, pid: int) -> bool:
    try:
        return proc.shares_namespace(pid, _NAMES[kind])
    except OSError as error:
        raise Failed(f"{_FIELD}: process {pid}: {os.strerror(error.errno or 0)}") from error
