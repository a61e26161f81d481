"""The real daemon, at home in a machine that is a network namespace of its own."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from support.daemon import Daemon, started
from support.network import Machine
from uvmd.linux import syscalls

_CLONE_NEWNS = 0x20000
_MS_PRIVATE = 1 << 18
#: What of sysfs shows the interfaces of a network namespace.
_FOLDERS = ("class/net", "devices/virtual/net")


class DaemonIn(Daemon):
    """Started inside of a machine. It has mounts of its own: the sysfs that shows its adapters."""

    def __init__(self, machine: Machine, **options: Any) -> None:
        super().__init__(**options)
        self._machine = machine

    def start(self) -> Daemon:
        return self._machine.vm.inside(self._start)

    def _start(self) -> Daemon:
        syscalls.unshare(_CLONE_NEWNS)
        syscalls.mount("", "/", "", syscalls.MS_REC | _MS_PRIVATE)
        sysfs: Path = self.folder / "sysfs"
        sysfs.mkdir()
        syscalls.mount("sysfs", str(sysfs), "sysfs")
        for folder in _FOLDERS:
            syscalls.mount(f"{sysfs}/{folder}", f"/sys/{folder}", "", syscalls.MS_BIND)
        return super().start()


def running_in(machine: Machine, **options: Any) -> contextlib.AbstractContextManager[Daemon]:
    """As ``support.daemon.running``."""
    return started(DaemonIn(machine, **options))
