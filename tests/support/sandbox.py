"""A machine in which a hostile host may ask for anything: it hits nothing of ours.

The daemon runs in mount and network namespaces of its own. Everything is read-only there but
its folder and what it needs of /run and /dev, no disk, adapter or device of the machine can be
found by its bus, and nobody can switch the machine off. Its processes keep their numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.daemon import Daemon

#: Buses on which a host names devices by number.
BUSES = ("scsi", "nd", "pci", "vmbus", "virtio")
#: What stays as it is: a bind mount would hide what the kernel makes later, or is of no harm.
WRITABLE = ("/proc", "/dev", "/sys/fs/cgroup")
_SETUP = """
set -e
folder=$1; shift
mount --bind "$folder" "$folder"
mount -t tmpfs run /run
for bus in {buses}; do
    if [ -d "/sys/bus/$bus" ]; then mount -t tmpfs none "/sys/bus/$bus"; fi
done
awk '{{ print $5 }}' /proc/self/mountinfo | while read -r point; do
    case "$point/" in
        {writable}|"$folder"/*|/run/) ;;
        # Points that something else is mounted over are not there to be found.
        *) mount -o remount,bind,ro "$point" 2>/dev/null || ! mountpoint -q "$point" ;;
    esac
done
exec setpriv --bounding-set=-sys_boot,-sys_module,-sys_time,-sys_rawio -- "$@"
"""


class SandboxedDaemon(Daemon):
    """``uvmd serve`` in such a machine."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._inside = self.argv()
        setup = _SETUP.format(
            buses=" ".join(BUSES), writable="|".join(f"{place}/*|{place}/" for place in WRITABLE)
        )
        self.program = [
            *("unshare", "--mount", "--net", "--propagation", "private", "--"),
            *("sh", "-c", setup, "sandbox", str(self.folder), *self._inside),
        ]

    def is_inside(self) -> bool:
        """Whether the monitor sees another machine than we do."""
        ours, its = (Path(f"/proc/{pid}/ns/mnt").readlink() for pid in ("self", self.monitor_pid))
        return ours != its
