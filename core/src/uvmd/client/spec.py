"""From a few wishes to an OCI runtime spec that crun and runc accept. Touches nothing.

Paths are paths *in the VM*; whether they exist is for the daemon to say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uvmd.client import spec_defaults
from uvmd.client.errors import SpecError
from uvmd.client.spec_text import PROPAGATION, Mount, parse_user

BUNDLE_ROOT = "/run/gcs/c"
TEE_LOG_PATH = "io.microsoft.container.lcow.tee-log-path"
HOST_NETWORK = "io.microsoft.virtualmachine.lcow.hostnetwork"
PRIVILEGED = "io.microsoft.virtualmachine.lcow.privileged"
CONTAINER_TYPE = "io.kubernetes.cri.container-type"
SANDBOX_ID = "io.kubernetes.cri.sandbox-id"

_SETS = ("bounding", "effective", "permitted")
#: What the containers of a pod share, and the kernel's names for it.
_SHARED = {"ipc": "ipc", "network": "net", "uts": "uts"}

_CPU_PERIOD_US = 100_000
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
# Spec containers.md 6.2 step 4, less the empty name.
_HOSTNAME = re.compile(r"[a-zA-Z0-9_\-.]{1,255}")


@dataclass(frozen=True, slots=True)
class ContainerOptions:
    """What :func:`build_spec` can be asked for. Zero and empty mean "not limited, not set".

    ``network`` is ``none`` (an own, empty namespace), ``host`` (the VM's) or the id of a
    namespace that Network requests have filled. ``tee`` is a path below the container's
    log directory to which the daemon also writes the output.

    ``pod`` is the id of a pod. The container with that very id is its sandbox; any other is a
    workload, and shares the namespaces of ``sandbox_pid``, the sandbox's init.
    """

    rootfs: str
    args: Sequence[str]
    env: Sequence[str] = field(default=(), repr=False)
    cwd: str = "/"
    user: str = ""
    terminal: bool = False
    console_size: tuple[int, int] | None = None
    hostname: str = ""
    memory_bytes: int = 0
    cpus: float = 0.0
    pids_limit: int = 0
    mounts: Sequence[Mount] = ()
    read_only: bool = False
    privileged: bool = False
    cap_add: Sequence[str] = ()
    cap_drop: Sequence[str] = ()
    network: str = "none"
    pod: str = ""
    sandbox_pid: int = 0
    tee: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)


def bundle_path(container_id: str) -> str:
    """Return the customary bundle directory of a container.

    Raises:
        SpecError: the id is not one that every runtime takes.
    """
    if not _ID.fullmatch(container_id):
        raise SpecError(
            f"container id {container_id!r}: use 1 to 128 of letters, digits, '_', '.', '-', "
            "beginning with a letter or digit"
        )
    return f"{BUNDLE_ROOT}/{container_id}"


def build_spec(container_id: str, options: ContainerOptions) -> dict[str, Any]:
    """Return the OCI spec of a container.

    Raises:
        SpecError: a wish makes no sense; the text names it.
    """
    _check(container_id, options)
    spec: dict[str, Any] = {
        "ociVersion": spec_defaults.OCI_VERSION,
        "process": build_process(options),
        "root": {"path": options.rootfs, "readonly": options.read_only},
        "hostname": options.hostname or container_id[:63],
        "mounts": [*spec_defaults.mounts(options.privileged), *map(_bind_mount, options.mounts)],
        "annotations": _annotations(options),
        "linux": _linux(options),
    }
    if options.network not in ("none", "host"):
        spec["windows"] = {"network": {"networkNamespace": options.network}}
    return _in_pod(container_id, options, spec) if options.pod else spec


def _in_pod(container_id: str, options: ContainerOptions, spec: dict[str, Any]) -> dict[str, Any]:
    sandbox = container_id == options.pod
    annotations = {
        **spec["annotations"],
        CONTAINER_TYPE: "sandbox" if sandbox else "container",
        SANDBOX_ID: options.pod,
    }
    if sandbox:
        return {**spec, "annotations": annotations}
    if options.hostname or options.network != "none":
        raise SpecError("a container that joins a pod has the pod's host name and network")
    namespaces = [
        {**entry, "path": f"/proc/{options.sandbox_pid}/ns/{_SHARED[entry['type']]}"}
        if entry["type"] in _SHARED
        else entry
        for entry in spec["linux"]["namespaces"]
    ]
    linux = {**spec["linux"], "namespaces": namespaces}
    return {**spec, "annotations": annotations, "linux": linux, "hostname": ""}


def build_process(options: ContainerOptions) -> dict[str, Any]:
    """Return the ``process`` object: of the container, or the ``OciProcess`` of an exec."""
    if not options.args:
        raise SpecError("a program is missing")
    names = _capabilities(options)
    process: dict[str, Any] = {
        "terminal": options.terminal,
        "user": parse_user(options.user),
        "args": list(options.args),
        "env": merge_env(default_env(options.terminal), options.env),
        "cwd": options.cwd,
        "capabilities": dict.fromkeys(_SETS, names),
        "noNewPrivileges": False,
    }
    if options.terminal and options.console_size:
        rows, columns = options.console_size
        process["consoleSize"] = {"height": rows, "width": columns}
    return process


def usual_capabilities() -> dict[str, list[str]]:
    """Return the capability sets of a container for which nothing else was asked."""
    return {name: list(spec_defaults.CAPABILITIES) for name in _SETS}


def default_env(terminal: bool) -> list[str]:
    """Return the environment that every process starts from."""
    return [spec_defaults.PATH, *(["TERM=xterm"] if terminal else [])]


def merge_env(base: Sequence[str], more: Sequence[str]) -> list[str]:
    """Return *base* with *more* over it; a later value replaces, the place stays.

    Raises:
        SpecError: an entry has no name. The text does not show its value.
    """
    merged: dict[str, str] = {}
    for entry in (*base, *more):
        name, equals, _ = entry.partition("=")
        if not name or not equals:
            raise SpecError(f"environment: expected NAME=VALUE, got an entry named {name!r}")
        merged[name] = entry
    return list(merged.values())


def _check(container_id: str, options: ContainerOptions) -> None:
    bundle = bundle_path(container_id)
    rootfs = os.path.normpath(options.rootfs)
    if not options.rootfs.startswith("/"):
        raise SpecError(f"root file system {options.rootfs!r}: expected an absolute path in the VM")
    # Deleting the container removes its bundle with everything below.
    if (rootfs + "/").startswith(bundle + "/"):
        raise SpecError(f"root file system {rootfs!r} lies in the bundle and would be deleted with it")
    if not options.cwd.startswith("/"):
        raise SpecError(f"working directory {options.cwd!r}: expected an absolute path")
    if options.hostname and not _HOSTNAME.fullmatch(options.hostname):
        raise SpecError(f"hostname {options.hostname!r}: use letters, digits, '_', '.', '-'")
    limits = {"cpus": options.cpus, "pids": options.pids_limit, "memory": options.memory_bytes}
    for name, value in limits.items():
        if value < 0:
            raise SpecError(f"{name}: the limit {value:g} is negative")
    if 0 < options.cpus < 0.01:
        raise SpecError("cpus: the kernel allows no less than 0.01")


def _capabilities(options: ContainerOptions) -> list[str]:
    base = spec_defaults.ALL_CAPABILITIES if options.privileged else spec_defaults.CAPABILITIES
    names = dict.fromkeys([*base, *map(_capability, options.cap_add)])
    for name in map(_capability, options.cap_drop):
        names.pop(name, None)
    return list(names)


def _capability(text: str) -> str:
    name = text.upper()
    name = name if name.startswith("CAP_") else f"CAP_{name}"
    if name not in spec_defaults.ALL_CAPABILITIES:
        raise SpecError(f"capability {text!r} is none; see capabilities(7)")
    return name


def _linux(options: ContainerOptions) -> dict[str, Any]:
    namespaces = [*spec_defaults.NAMESPACES]
    if options.network != "host":
        namespaces.append("network")
    linux: dict[str, Any] = {
        "namespaces": [{"type": name} for name in namespaces],
        "resources": _resources(options),
    }
    if not options.privileged:
        linux["maskedPaths"] = list(spec_defaults.MASKED_PATHS)
        linux["readonlyPaths"] = list(spec_defaults.READONLY_PATHS)
    return linux


def _resources(options: ContainerOptions) -> dict[str, Any]:
    # Runtimes add the customary nodes (null, zero, tty, ...) to whatever stands here.
    rules: dict[str, Any] = {"devices": [{"allow": options.privileged, "access": "rwm"}]}
    if options.memory_bytes:
        rules["memory"] = {"limit": options.memory_bytes}
    if options.cpus:
        rules["cpu"] = {"quota": round(options.cpus * _CPU_PERIOD_US), "period": _CPU_PERIOD_US}
    if options.pids_limit:
        rules["pids"] = {"limit": options.pids_limit}
    return rules


def _annotations(options: ContainerOptions) -> dict[str, str]:
    annotations = dict(options.annotations)
    if options.tee:
        annotations[TEE_LOG_PATH] = options.tee
    if options.network == "host":
        annotations[HOST_NETWORK] = "true"
    if options.privileged:
        annotations[PRIVILEGED] = "true"
    return annotations


def _bind_mount(mount: Mount) -> dict[str, Any]:
    options = list(mount.options)
    if not {"bind", "rbind"} & set(options):
        options.insert(0, "rbind")
    if not set(PROPAGATION) & set(options):
        options.append("rprivate")
    return {"destination": mount.destination, "type": "bind", "source": mount.source, "options": options}
