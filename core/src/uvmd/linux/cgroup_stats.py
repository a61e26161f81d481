"""Statistics of a cgroup in the shape of version 1, whatever the machine has.

The shape and the sources are those of spec containers.md 12: numbers that are 0 are left
out, an object that has only zeros is ``{}``. Files are read one by one: there are about
thirty, and each is written by the kernel at the moment it is read.
"""

from __future__ import annotations

import errno
import os

from uvmd.linux.cgroup_v1_stats import read_v1
from uvmd.linux.cgroup_v2_stats import read_v2
from uvmd.linux.cgroups import ROOT, Cgroups
from uvmd.linux.stat_files import UNLIMITED, Stats

__all__ = ["UNLIMITED", "Stats", "read_stats"]


def read_stats(cgroups: Cgroups, path: str) -> Stats:
    """Return the statistics of the group ``path``.

    Raises OSError: a file is there and cannot be read; or, on version 1, no controller knows
    the group. On version 2 a vanished group gives zeros.
    """
    if cgroups.version == 2:
        return read_v2((cgroups.unified or ROOT) + path)
    found = {name: top + path for name, top in cgroups.hierarchies.items() if os.path.isdir(top + path)}
    if not found:
        raise FileNotFoundError(errno.ENOENT, "no controller knows this cgroup", path)
    return read_v1(found)
