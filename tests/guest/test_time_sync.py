"""The real chronyd, as uvmd runs it, on a PTP clock; the clock's device is one of user space.

Emulation has no clock of a hypervisor. What was not seen here is Hyper-V's and KVM's driver.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from guest.harness.daemon import LOG
from guest.harness.guest import Guest

CLOCK = Path(__file__).parent / "inside" / "ptp_clock.py"
AHEAD_S = 3600


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def chronyd() -> list[int]:
    import os

    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"chronyd"):
                found.append(int(name))
    return found


def now() -> float:
    import time

    return time.time()


def another_chronyd(guest: Guest, than: int) -> int:
    deadline = time.monotonic() + 30
    while not (found := [pid for pid in guest.call(chronyd) if pid != than]):
        assert time.monotonic() < deadline, guest.daemon.log()
        time.sleep(0.05)
    assert len(found) == 1
    return found[0]


@pytest.fixture
def late(fresh_guest: Guest) -> Guest:
    """A guest whose clock is an hour behind the hypervisor's."""
    guest = fresh_guest
    guest.call(write, "/run/ptp_clock.py", CLOCK.read_text())
    guest.sh(
        "modprobe -a cuse ptp && mount -t tmpfs ptp /sys/class/ptp && mkdir /sys/class/ptp/ptp0 && "
        "echo KVM virtual PTP >/sys/class/ptp/ptp0/clock_name && "
        f"(setsid python3 -I -S /run/ptp_clock.py {AHEAD_S} </dev/null >/run/ptp_clock.log 2>&1 &)"
    )
    wait = "for i in $(seq 100); do [ -c /dev/ptp0 ] && exit; sleep 0.1; done"
    guest.sh(f"{wait}; cat /run/ptp_clock.log; exit 1")
    guest.daemon.restart()
    return guest


def test_the_clock_follows_the_hypervisors_and_chronyd_is_looked_after(late: Guest) -> None:
    guest = late
    began = time.time()
    first = another_chronyd(guest, 0)
    deadline = time.monotonic() + 60
    while (behind := time.time() + AHEAD_S - guest.call(now)) > 2:
        assert time.monotonic() < deadline, f"{behind} s behind after a minute:\n{guest.daemon.log()}"
        time.sleep(0.5)
    assert behind > -2
    print(f"stepped after {time.time() - began:.0f} s, {behind:.3f} s behind")
    # One that is killed is started again.
    guest.sh(f"kill -9 {first}")
    second = another_chronyd(guest, first)
    lines = [json.loads(line) for line in guest.read(LOG).splitlines()]
    (ended,) = [line for line in lines if line["msg"].startswith("chronyd has ended")]
    assert ended["status"] == -9
    # It does not care about the daemon, and the next daemon starts no other.
    guest.daemon.wait_for_another(guest.daemon.kill())
    guest.hang_up()
    assert guest.run("/bin/true").exit_code == 0
    assert guest.call(chronyd) == [second]
    guest.daemon.stop()
    assert guest.call(chronyd) == []


def test_without_a_clock_there_is_a_warning_and_no_chronyd(guest: Guest) -> None:
    lines = [json.loads(line) for line in guest.read(LOG).splitlines()]
    (told,) = [line for line in lines if "no clock of a hypervisor" in line["msg"]]
    assert told["level"] == "warning"
    assert guest.call(chronyd) == []
