"""Finding the machine's cgroup hierarchies at start, and completing hybrid ones for crun."""

from __future__ import annotations

import os
from typing import Final

from uvmd.linux import proc
from uvmd.linux.cgroups import ROOT, Cgroups, read_file

# Names of mount options that are no controller.
_OPTIONS: Final = frozenset(
    {
        "rw",
        "ro",
        "nosuid",
        "nodev",
        "noexec",
        "relatime",
        "xattr",
        "clone_children",
        "noprefix",
        "all",
        "none",
    }
)


def cgroups_of(mounts: list[proc.Mount]) -> Cgroups:
    """Tell from the mount table where the controllers are.

    A version 2 mount is the one tree if it is at ``/sys/fs/cgroup`` itself, and a hybrid
    machine's extra tree elsewhere (systemd and the runtimes agree on ``unified``).
    """
    hierarchies: dict[str, str] = {}
    unified: str | None = None
    for mount in mounts:
        # Containers and sandboxes bind hierarchies elsewhere; those are not ours to use.
        if mount.target != ROOT and not mount.target.startswith(ROOT + "/"):
            continue
        if mount.fstype == "cgroup2" and (mount.target == ROOT or unified is None):
            unified = mount.target
        elif mount.fstype == "cgroup":
            for option in mount.options.split(","):
                name = option.removeprefix("name=")
                if option and option not in _OPTIONS and (name != option or "=" not in option):
                    hierarchies.setdefault(name, mount.target)
    return Cgroups(hierarchies, unified)


def left_over_controllers(cgroups: Cgroups) -> list[str]:
    """Return the controllers that a hybrid machine still has in its version 2 tree.

    crun refuses to run while there are any ("drop all controllers from cgroupv2").
    """
    if not cgroups.hybrid:
        return []
    return read_file(f"{cgroups.unified}/cgroup.controllers").decode().split()


def mount_controllers(cgroups: Cgroups, controllers: list[str]) -> None:
    """Mount controllers as version 1 hierarchies of their own and enter them in ``cgroups``.

    Raises OSError; EBUSY while version 2 groups use the controller.
    """
    from uvmd.linux import syscalls

    for name in controllers:
        target = f"{ROOT}/{name}"
        os.makedirs(target, mode=0o755, exist_ok=True)
        try:
            syscalls.mount(
                "cgroup", target, "cgroup", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC, name
            )
        except OSError:
            os.rmdir(target)
            raise
        cgroups.hierarchies[name] = target
