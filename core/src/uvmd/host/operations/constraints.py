"""Change the limits of a container, and with a sandbox's those of its pod (spec containers.md 13, 16.37)."""

from __future__ import annotations

import json
from typing import Any

from uvmd.errors import Failed, RuntimeFailed
from uvmd.host.containers import Container
from uvmd.host.context import Context
from uvmd.linux import cgroup_limits
from uvmd.oci.shape.cgroup import split_endless


def update(ctx: Context, container_id: str, resources: dict[str, Any]) -> None:
    """Hand ``resources``, an OCI LinuxResources object, to the runtime.

    The caller holds the change lock and has looked at the keys.

    Raises:
        ContainerNotFound, InvalidState: the container.
        RuntimeFailed, or what the runtime's failure means.
        Refused, Failed: what the pod cannot have; its limits are as before.
    """
    container = ctx.registry.get(container_id)
    if container.is_sandbox:
        _update_pod(ctx, container, resources)
    else:
        _update_container(ctx, container, resources)


def _update_container(ctx: Context, container: Container, resources: dict[str, Any]) -> None:
    rest, endless = split_endless(resources)
    if not endless:
        _ask_runtime(ctx, container, resources)
        return
    if "cpu" in endless:
        # crun on version 2 leaves out a quota without its period.
        endless["cpu"]["period"] = rest["cpu"].get("period") or cgroup_limits.DEFAULT_PERIOD
        resources = {**resources, "cpu": {**rest["cpu"], **endless["cpu"]}}
    try:
        _ask_runtime(ctx, container, resources)
    except RuntimeFailed:
        # crun (1.8) writes -1 as it is, or without its sign, which the kernel refuses. runc had to be
        # asked: it remembers the limits, and writes the old ones again at the next change.
        _ask_runtime(ctx, container, rest)
        wanted = cgroup_limits.limits(endless, ctx.cgroups.version)
        try:
            cgroup_limits.write(ctx.cgroups, container.cgroup, wanted)
        except OSError as error:
            raise Failed(f"limits of {container.cgroup}: {error.filename}: {error.strerror}") from error


def _ask_runtime(ctx: Context, container: Container, resources: dict[str, Any]) -> None:
    ctx.runtime.update(container.id, json.dumps(resources, separators=(",", ":")).encode())


def _update_pod(ctx: Context, container: Container, resources: dict[str, Any]) -> None:
    """Change the pod's limits and the sandbox's. What grows, grows from the outside.

    On version 1 no group may have more than the one above it, so the pod's come first; where
    the kernel refuses that, because they shrink below the sandbox's, they come last.
    """
    group = ctx.pod_cgroup(container.role.pod_id)
    wanted = cgroup_limits.limits(resources, ctx.cgroups.version)
    try:
        before = cgroup_limits.write(ctx.cgroups, group, wanted)
    except OSError:
        _update_container(ctx, container, resources)
        try:
            cgroup_limits.write(ctx.cgroups, group, wanted)
        except OSError as error:
            raise Failed(f"limits of {group}: {error.filename}: {error.strerror}") from error
        return
    try:
        _update_container(ctx, container, resources)
    except BaseException:
        cgroup_limits.restore(ctx.cgroups, group, before)
        raise
