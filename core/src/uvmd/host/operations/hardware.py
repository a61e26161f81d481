"""Devices, disks and paths of the VM that a container's specification names.

Assigned devices are waited for before the change lock is taken; all other looks come after
the policy's answer.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import Any, Final

from uvmd.api.resources import Kind as MountKind
from uvmd.errors import Failed, Refused
from uvmd.host.containers import Container
from uvmd.host.context import Context
from uvmd.linux import platform, uevents
from uvmd.linux.devices import DeviceNode, find_device, find_devices, find_devices_of
from uvmd.oci import annotations as asked
from uvmd.oci.role import Kind, Role
from uvmd.oci.runtime import find_program
from uvmd.oci.shape import devices, gpu
from uvmd.oci.spec import Spec

log = logging.getLogger(__name__)

_ASSIGNED_S: Final = 60.0
_VPCI: Final = ("vpci-instance-id", "vpci")
_GPU: Final = "gpu"

#: Which device shows a container that it runs in a confidential VM; the first that is there.
_CONFIDENTIAL: Final = ("sev", "sev-guest", "tdx_guest")


@dataclass(frozen=True, slots=True)
class Assigned:
    """What was found of ``windows.devices``: nodes, and the PCI addresses of GPUs."""

    nodes: tuple[DeviceNode, ...] = ()
    gpus: tuple[str, ...] = ()


def find_assigned(ctx: Context, role: Role, spec: Spec) -> Assigned:
    """Wait for the devices that the host has assigned to the container.

    Raises:
        Refused: a name that names no device.
        DeadlineExceeded, Failed: a device that does not come, or is not what it should be.
    """
    listed = spec.get("windows", {}).get("devices", ())
    if role.kind is Kind.SANDBOX or not listed:
        return Assigned()
    vm = platform.find_platform(ctx.settings.sys_root, ctx.settings.dev_root)
    deadline = time.monotonic() + _ASSIGNED_S
    nodes: list[DeviceNode] = []
    gpus: list[str] = []
    for device in listed:
        kind, name = device.get("idType", ""), device.get("id", "")
        if kind not in (*_VPCI, _GPU):
            log.warning("unknown kind of assigned device, ignoring", extra={"id_type": kind[:60]})
            continue
        try:
            folder = uevents.wait_for(lambda name=name: vm.pci_path(name), deadline, f"device {name:.60}")  # type: ignore[misc]
            if kind == _GPU:
                gpus.append(os.path.basename(folder))
            else:
                nodes += _wait_for_nodes(vm, os.path.realpath(folder), deadline, name)
        except OSError as error:
            raise Failed(f"assigned device {name:.60}: {error.filename}: {error.strerror}") from error
    return Assigned(tuple(nodes), tuple(gpus))


def _wait_for_nodes(
    vm: platform.Hyperv | platform.Virtio, sysfs: str, deadline: float, name: str
) -> list[DeviceNode]:
    return uevents.wait_for(
        lambda: find_devices_of(sysfs, vm.sys_root, vm.dev_root) or None,
        deadline,
        f"a device node of device {name:.60}",
    )


def apply(
    ctx: Context,
    container: Container,
    spec: Spec,
    document: Spec,
    added: list[dict[str, Any]],
    assigned: Assigned,
) -> Spec:
    """Give the container its devices: all, those that the host lists, assigned ones.

    Raises:
        Failed: a device that is not there, or no program for a GPU's hook.
        Refused: a GPU in a strict VM, where no hook may run.
    """
    if container.role.kind is Kind.SANDBOX:
        return spec
    privileged = asked.read_flag(asked.annotations_of(spec), asked.PRIVILEGED)
    if privileged:
        ours = {device["path"] for device in added}
        found = [node for node in find_devices(ctx.settings.dev_root) if node.path not in ours]
        spec = devices.apply_privileged(spec, found)
    elif container.role.kind is Kind.WORKLOAD:
        spec = devices.apply_nodes(spec, [_listed(path) for path in devices.host_paths(document)])
    if assigned.gpus:
        spec = _with_gpus(ctx, container, spec, assigned.gpus)
    spec = devices.apply_nodes(spec, assigned.nodes)
    if ctx.gate.strict and not privileged and container.role.kind is Kind.WORKLOAD:
        spec = devices.apply_nodes(spec, _confidential(ctx.settings.dev_root))
    return spec


def _listed(path: str) -> DeviceNode:
    try:
        return find_device(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no path"
        raise Failed(f"linux.devices: {path!r:.200}: {reason}") from error


def _with_gpus(ctx: Context, container: Container, spec: Spec, locations: tuple[str, ...]) -> Spec:
    if ctx.gate.strict:
        raise Refused("a GPU needs a hook, and a security policy allows none")
    program = find_program(gpu.PROGRAM, ctx.settings.path)
    if program is None:
        raise Failed(f"{gpu.PROGRAM}, which sets a GPU up, is not in {ctx.settings.path}")
    return gpu.apply_gpu_hook(
        spec,
        program=program,
        bundle=container.bundle,
        root=container.root,
        locations=locations,
        environment={"PATH": ctx.settings.path},
    )


def _confidential(dev_root: str) -> list[DeviceNode]:
    for name in _CONFIDENTIAL:
        try:
            return [find_device(f"{dev_root}/{name}")]
        except OSError:
            continue
    log.warning("no device of confidential hardware is there for the container, ignoring")
    return []


def apply_disks(ctx: Context, spec: Spec, destinations: tuple[str, ...]) -> Spec:
    """Resolve the symlinks of block devices, once: what a rule allows is what is mounted (16.29).

    Raises:
        Failed: no symlink, or not to a device.
        Refused: strict: a link that somebody else made, a container say.
    """
    if not destinations:
        return spec
    mounts, rules = [], []
    for mount in spec.get("mounts", ()):
        if mount.get("destination") in destinations:
            source = mount.get("source", "")
            if ctx.gate.strict:
                _require_known(ctx, source)
            node = _disk(source)
            access = "r" if "ro" in mount.get("options", ()) else "rwm"
            rules.append(devices.rule(node.type, node.major, node.minor, access))
            mount = {**mount, "source": node.path}
        mounts.append(mount)
    return devices.allow({**spec, "mounts": mounts}, rules)


def _require_known(ctx: Context, link: str) -> None:
    known = ctx.mounts.table.at(link)
    if known is None or known.kind is not MountKind.BLOCK_DEVICE:
        raise Refused(f"block device {link!r:.200}: no disk was given to the VM as this")


def _disk(link: str) -> DeviceNode:
    try:
        target = os.readlink(link)
        return find_device(os.path.realpath(os.path.join(os.path.dirname(link), target)))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no path"
        raise Failed(f"block device {link!r:.200}: {reason}, it must be a symlink to a device") from error


def require_paths(paths: tuple[str, ...]) -> None:
    """Refuse paths of the VM that are not there.

    Raises:
        Failed: naming it.
    """
    for path in paths:
        try:
            os.stat(path)
        except OSError as error:
            raise Failed(f"mount source uvm://{path:.200}: {error.strerror}") from error


def vm_hostname() -> str:
    """Return the VM's own host name."""
    return os.uname().nodename
