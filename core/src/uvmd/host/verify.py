"""The journal against the kernel, before it is trusted: mounts, links, processes and their cgroups.

What is written down may not be so any more: something else in the VM has unmounted a disk, or
a pid has passed to another process. A strict VM's policy decided by what is written down, so
there the door closes.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from typing import Protocol

from uvmd.api.resources import Claim, Kind
from uvmd.host.containers import Container
from uvmd.host.processes import Process
from uvmd.linux import proc
from uvmd.linux.cgroups import Cgroups
from uvmd.linux.paths import is_below


class Gate(Protocol):
    """Where what does not match is told."""

    @property
    def strict(self) -> bool: ...

    def mark(self, cause: str) -> None: ...

    def close_door(self, cause: str) -> None: ...


def judge(gate: Gate, mismatches: Iterable[str]) -> None:
    """Have the first thing that does not match close a strict VM's door, and mark another VM."""
    cause = next(iter(mismatches), None)
    if cause is None:
        return
    if gate.strict:
        gate.close_door(f"after a restart the guest is not what was recorded: {cause}")
    gate.mark(f"after a restart: {cause}")


def mounts(claims: Iterable[Claim], under_way: Collection[str]) -> Iterator[str]:
    """Yield what of the mount table the kernel does not have.

    ``under_way``: the paths that changes which were interrupted are about; those are judged
    when they have ended.
    """
    there: dict[str, proc.Mount] | None = None
    for claim in claims:
        if any(_goes_with(claim, path) for path in under_way):
            continue
        if claim.kind is Kind.BLOCK_DEVICE:
            if not os.path.lexists(claim.target):
                yield f"{claim.target} is not there"
            continue
        if there is None:
            there = {mount.target: mount for mount in proc.mounts()}
        # The kernel's names have no symlinks.
        mount = there.get(claim.target) or there.get(os.path.realpath(claim.target))
        if mount is None:
            yield f"nothing is mounted at {claim.target}"
        elif claim.kind is Kind.READ_ONLY and "ro" not in mount.options.split(","):
            yield f"{claim.target} is not mounted read-only"
        elif claim.encrypted and not _is_mapped(claim.target):
            yield f"{claim.target} is not on an encrypted device"
        elif claim.kind is Kind.OVERLAY and mount.fstype != "overlay":
            yield f"{claim.target} is no overlay"


def _goes_with(claim: Claim, path: str) -> bool:
    # The bundle that an overlay is in is bound for it, and released with it.
    return claim.target == path or (claim.kind is Kind.BIND and is_below(path, claim.target))


def _is_mapped(path: str) -> bool:
    """Whether what is mounted there is on a device-mapper device."""
    try:
        device = os.stat(path).st_dev
    except OSError:
        return False
    return os.path.isdir(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/dm")


def processes(cgroups: Cgroups, containers: Iterable[Container]) -> Iterator[str]:
    """Yield which init or exec is not the process, or not in the cgroup, that was recorded."""
    for container in containers:
        init = container.init
        running = [one for one in (init, *container.execs.values()) if one is not None and _runs(one)]
        if not running:
            continue
        for process in running:
            # 0: it ends at this moment, of which the monitor, its parent, will tell.
            if proc.start_time(process.pid) not in (0, process.start_time):
                yield f"process {process.pid} of {container.id} is another one"
        if init in running and container.cgroup:
            members = cgroups.processes(container.cgroup)
            if members and init is not None and init.pid not in members:
                yield f"process {init.pid} of {container.id} is not in its cgroup"


def _runs(process: Process) -> bool:
    return bool(process.pid) and not process.over
