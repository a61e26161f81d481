"""Properties: of a container (spec containers.md 12), and of the VM for people (``uvmd.*``)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from uvmd.errors import Failed, Refused
from uvmd.host.containers import Container
from uvmd.host.context import Context
from uvmd.host.processes import Process
from uvmd.host.requests import NULL_ID
from uvmd.linux.cgroup_stats import read_stats
from uvmd.observe.steps import step

log = logging.getLogger(__name__)

_OWN: Final = "uvmd."
_DENIED: Final = "get properties denied due to policy: "

#: Makes one ``uvmd.*`` property of the VM, from what stands behind a colon in its type: mostly nothing.
Source = Callable[[str], Any]


def properties(
    ctx: Context, container_id: str, types: Sequence[str], sources: Mapping[str, Source]
) -> dict[str, Any]:
    """Return the asked properties, each under its key; unknown types are logged and left out.

    Raises:
        Refused: the VM's id with other types than ``uvmd.*``.
        PolicyDenied, ContainerNotFound, InvalidState: in this order.
        Failed: the cgroup cannot be read.
    """
    of_vm = container_id == NULL_ID
    if of_vm and not (types and all(kind.startswith(_OWN) for kind in types)):
        raise Refused("the VM has no properties of these types")
    with ctx.changing(who=f"properties {container_id:.140}"):
        ctx.gate.ask("get_properties", {}, _DENIED)
    with step("read"):
        return _of_vm(types, sources) if of_vm else _of_container(ctx, container_id, types)


def _of_vm(types: Sequence[str], sources: Mapping[str, Source]) -> dict[str, Any]:
    found = {}
    for kind in types:
        name, _, argument = kind.partition(":")
        if name in sources:
            found[kind] = sources[name](argument)
        else:
            log.warning("unknown property type, ignoring", extra={"property": kind[:60]})
    return found


def _of_container(ctx: Context, container_id: str, types: Sequence[str]) -> dict[str, Any]:
    container = ctx.registry.get(container_id)
    found: dict[str, Any] = {}
    try:
        for kind in types:
            if kind == "ProcessList":
                if pids := ctx.cgroups.processes(container.cgroup):
                    found["ProcessList"] = [{"ProcessId": pid} for pid in pids]
            elif kind == "Statistics":
                found["LCOWMetrics"] = read_stats(ctx.cgroups, container.cgroup)
            else:
                log.warning("unknown property type, ignoring", extra={"property": kind[:60]})
    except OSError as error:
        raise Failed(f"properties of {container_id}: {error.filename}: {error.strerror}") from error
    return found


def list_containers(ctx: Context) -> dict[str, Any]:
    """Return ``uvmd.ps``: what runs in the VM, without arguments or environments."""
    now = time.time()
    return {
        "inconsistent": ctx.gate.inconsistent,
        "degraded": ctx.gate.degraded,
        "containers": [_container(container, now) for container in ctx.registry.containers()],
        "processes": [_process(process) for process in ctx.registry.external()],
    }


def _container(container: Container, now: float) -> dict[str, Any]:
    init = container.init
    return {
        "id": container.id,
        "kind": container.role.kind.value,
        "pod": container.role.pod_id if container.role.in_pod else "",
        "state": container.state.name.lower(),
        "pid": 0 if init is None else init.pid,
        "exit_code": None if init is None else init.exit_code,
        "bundle": container.bundle,
        "cgroup": container.cgroup,
        "created": container.created_at,
        "age_s": round(max(0.0, now - container.created_at), 3),
        "processes": [_process(process) for process in list(container.execs.values())],
    }


def _process(process: Process) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "kind": process.kind.value,
        "terminal": process.terminal,
        "exit_code": process.exit_code,
        "waits": len(process.waiters),
    }
