"""chronyd on the hypervisor's clock, supervised; the clock and chronyd are stand-ins."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from support import machine
from support.daemon import Daemon, is_running, wait_until

# The first ends at once; later ones stay. Each says who it is and what it was given.
CHRONYD = """#!/bin/sh
cat "$3" > {configuration}
echo "$$ $*" >> {told}
[ -e {once} ] || {{ touch {once}; echo "Fatal error : of a stand-in"; exit 1; }}
while :; do sleep 1; done
"""


@contextlib.contextmanager
def synchronised() -> Iterator[Daemon]:
    """A daemon that sees a KVM clock, in a mount namespace of its own, and our chronyd."""
    daemon = Daemon()
    folder = daemon.folder
    clock = folder / "class" / "ptp" / "ptp7"
    clock.mkdir(parents=True)
    (clock / "clock_name").write_text("KVM virtual PTP\n")
    program = folder / "bin" / "chronyd"
    program.parent.mkdir()
    files = {name: folder / name for name in ("told", "configuration", "once")}
    program.write_text(CHRONYD.format(**files))
    program.chmod(0o755)
    daemon.options["vm-time-sync"] = "auto"
    daemon.environment["PATH"] = f"{program.parent}:{daemon.environment['PATH']}"
    serve = daemon.argv()
    daemon.program = [
        "/usr/bin/unshare", "--mount", "/bin/sh", "-c",
        f'mount --bind {folder}/class /sys/class && exec "$@"', "sh", str(machine.BIN / "uvmd"), *serve[1:],
    ]  # fmt: skip
    try:
        yield daemon.start()
    finally:
        daemon.close()


def started(folder: Path) -> list[tuple[int, str]]:
    with contextlib.suppress(FileNotFoundError):
        lines = (folder / "told").read_text().splitlines()
        return [(int(pid), words) for pid, _, words in (line.partition(" ") for line in lines)]
    return []


def test_chronyd_is_started_again_and_outlives_the_daemon_but_not_the_monitor() -> None:
    with synchronised() as daemon:
        bridge = daemon.connect()
        _, (pid, words) = wait_until(lambda: len(started(daemon.folder)) == 2 and started(daemon.folder))
        assert words == f"-n -f {daemon.run_dir}/chronyd.conf"
        lines = (daemon.folder / "configuration").read_text().splitlines()
        assert lines == ["refclock PHC /dev/ptp7 poll 3 dpoll -2 offset 0 stratum 2", "makestep 0.1 -1"]
        ended = next(line for line in daemon.log_lines() if line["msg"].startswith("chronyd has ended"))
        assert (ended["status"], ended["output"]) == (1, "Fatal error : of a stand-in")
        daemon.kill_daemon()
        bridge.close()
        bridge = daemon.connect()
        assert is_running(pid)
        assert len(started(daemon.folder)) == 2, "the one that runs is enough"
        os.kill(pid, 9)
        wait_until(lambda: len(started(daemon.folder)) == 3, what="its end is seen and it is started again")
        bridge.close()
        last = started(daemon.folder)[-1][0]
        assert daemon.stop() == 0
        assert not is_running(last)
