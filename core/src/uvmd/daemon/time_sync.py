"""Keeps the VM's clock with the hypervisor's: chronyd on a PTP clock, a child of the monitor.

Spec containers.md 4 and 16.47. The guest's clock stands still while the VM is paused or
saved, so without this it is wrong afterwards.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from uvmd.monitor.link import Completed, Link, MonitorError
from uvmd.oci.runtime import DEFAULT_PATH

log = logging.getLogger(__name__)

#: What hypervisors call their clock (/sys/class/ptp/*/clock_name), in the order of preference.
CLOCKS: Final = ("hyperv", "KVM virtual PTP")
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 600.0
_FACTOR: Final = 1.5
#: One that ran for so long did not die of its start; the pauses begin anew.
_SETTLED_S: Final = 60.0
#: The longest that a link's call can last, some eleven days; then it is simply started again.
_RUN_S: Final = 1e6
#: What will be no better next time: no such program, no right to run it, no monitor.
_FINAL: Final = (errno.ENOENT, errno.EACCES, errno.EPIPE, errno.ECONNRESET)


class Run(Protocol):
    """Runs chronyd to its end."""

    def __call__(self) -> Completed: ...


def find_clock(folder: str = "/sys/class/ptp") -> str | None:
    """Return the name of the hypervisor's PTP device, say ``ptp0``."""
    found: dict[str, str] = {}
    try:
        devices = sorted(os.listdir(folder))
    except OSError:
        return None
    for device in devices:
        try:
            with open(f"{folder}/{device}/clock_name", encoding="utf-8", errors="replace") as file:
                found.setdefault(file.read().rstrip("\n"), device)
        except OSError:
            continue
    return next((found[name] for name in CLOCKS if name in found), None)


def configuration(device: str) -> str:
    """Return chronyd's configuration for a PTP device."""
    return f"refclock PHC /dev/{device} poll 3 dpoll -2 offset 0 stratum 2\nmakestep 0.1 -1\n"


def start(link: Link, run_dir: str, *, first: bool, folder: str = "/sys/class/ptp") -> None:
    """Run chronyd from now on. Never fatal: without a clock, or chronyd, a warning is logged.

    ``first``: no daemon of this monitor was there before whose chronyd may still run.
    """
    device = find_clock(folder)
    if device is None:
        log.warning("no clock of a hypervisor is there, the time is not synchronised, ignoring")
        return
    path = f"{run_dir}/chronyd.conf"
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(configuration(device))
    except OSError as error:
        log.warning(
            "chronyd's configuration cannot be written, the time is not synchronised, ignoring",
            extra={"path": path, "error": error.strerror},
        )
        return
    argv = ["chronyd", "-n", "-f", path]

    def run() -> Completed:
        return link.run(argv, env={"PATH": DEFAULT_PATH}, deadline_s=_RUN_S, limit_bytes=4096)

    def serve() -> None:
        if not first:
            wait_for_earlier(path)
        supervise(run, time.sleep)

    log.info("the time is synchronised", extra={"clock": device})
    threading.Thread(target=serve, name="time-sync", daemon=True).start()


def supervise(
    run: Run,
    pause: Callable[[float], object],
    *,
    clock: Callable[[], float] = time.monotonic,
    random: Callable[[], float] = lambda: os.urandom(1)[0] / 255,
) -> None:
    """Run it again and again, with growing pauses, until it cannot be run at all."""
    pause_s = FIRST_PAUSE_S
    while True:
        began = clock()
        facts: dict[str, object]
        try:
            ended = run()
            facts = {"status": ended.status, "output": _last_line(ended.output)}
        except MonitorError as error:
            facts = {"error": error.strerror}
            if error.errno in _FINAL:
                log.warning("chronyd cannot be run, the time is not synchronised, ignoring", extra=facts)
                return
        if clock() - began >= _SETTLED_S:
            pause_s = FIRST_PAUSE_S
        # Half to one and a half: the VMs of one host must not all come at once.
        wait_s = min(pause_s * (0.5 + random()), LONGEST_PAUSE_S)
        log.warning("chronyd has ended, it is started again", extra={**facts, "after_s": round(wait_s, 3)})
        pause(wait_s)
        pause_s = min(pause_s * _FACTOR, LONGEST_PAUSE_S)


def wait_for_earlier(path: str, processes: str = "/proc") -> None:
    """Wait for the end of the chronyd that an earlier daemon started with this configuration.

    It goes on without us, for it is the monitor's child; a second one would refuse to run.
    """
    wanted = b"\0-f\0" + os.fsencode(path) + b"\0"
    for name in os.listdir(processes):
        if not name.isdigit():
            continue
        try:
            with open(f"{processes}/{name}/cmdline", "rb") as file:
                line = file.read(4096)
            if not line.endswith(wanted):
                continue
            pidfd = os.pidfd_open(int(name))
        except OSError:
            continue
        try:
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            poller.poll()
        finally:
            os.close(pidfd)


def _last_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""
