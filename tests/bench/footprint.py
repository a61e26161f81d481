"""Start and memory: what the daemon costs before it has done anything, and afterwards."""

from __future__ import annotations

import subprocess
import sys
import time

from lives import one_life
from report import Figure, milliseconds
from stances import Stance

from support import leaks
from support.containers import created
from support.daemon import ENVIRONMENT, Daemon
from support.host import GET_PROPERTIES, ZERO_GUID, Connection

MIB = 1024  # in KiB, as the kernel counts


def start_to_negotiate(count: int) -> Figure:
    """From exec of `uvmd serve` to the last byte of the answer to Negotiate."""
    samples = []
    for _ in range(count):
        daemon = Daemon()
        try:
            began = time.perf_counter()
            daemon.start()
            bridge = daemon.connect()
            samples.append(time.perf_counter() - began)
            bridge.close()
            assert daemon.stop() == 0, daemon.describe()
        finally:
            daemon.close()
    bare = [_interpreter() for _ in range(count)]
    beside = (
        f"two bare interpreters {2 * milliseconds(bare):.0f} ms, fastest start {min(samples) * 1000:.0f} ms"
    )
    return Figure(
        "exec of `uvmd serve` to Negotiate answered", 200, milliseconds(samples), "ms", beside, count
    )


def _interpreter() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", "pass"], env=ENVIRONMENT, check=True)
    return time.perf_counter() - began


def settled(daemon: Daemon) -> None:
    """Wait until what is warmed up in the background is done: it belongs to the footprint."""
    pid, last = daemon.daemon_pid, -1
    for _ in range(40):
        time.sleep(0.25)
        now = leaks.rss_kib(pid)
        if now == last:
            return
        last = now


def memory(stance: Stance, lives: int = 100) -> list[Figure]:
    with stance.running() as daemon:
        bridge = stance.connect(daemon)
        settled(daemon)
        fresh = leaks.rss_kib(daemon.daemon_pid)
        pss = leaks.pss_kib(daemon.monitor_pid)
        monitor_rss = leaks.rss_kib(daemon.monitor_pid)
        for _ in range(lives):
            one_life(bridge)
        settled(daemon)
        after = leaks.rss_kib(daemon.daemon_pid)
        each = _monitor_for_each_process(daemon, bridge)
        bridge.close()
    return [
        Figure("daemon, RSS after Negotiate", 40, fresh / MIB, "MiB", f"PSS of both {_both(fresh, pss)}"),
        Figure(
            f"daemon, RSS after {lives} lives, to that", 1.10, after / fresh, "x", f"{after / MIB:.1f} MiB"
        ),
        Figure("monitor, PSS, idle", 8, pss / MIB, "MiB", f"RSS {monitor_rss / MIB:.1f} MiB"),
        each,
    ]


def _both(daemon_rss: int, monitor_pss: int) -> str:
    return f"+ monitor {(daemon_rss + monitor_pss) / MIB:.1f} MiB"


def _monitor_for_each_process(daemon: Daemon, bridge: Connection, count: int = 20) -> Figure:
    before = leaks.pss_kib(daemon.monitor_pid)
    with created(bridge, "/bin/sleep", "600") as container:
        container.init()
        execs = [container.exec("/bin/cat", stdin=True, stdout=True, stderr=True) for _ in range(count)]
        for exec_ in execs:
            exec_.stdin.write(b"x" * 1000)
            exec_.stdout.wait_for_bytes(1000)
        more = (leaks.pss_kib(daemon.monitor_pid) - before) / count
        for exec_ in execs:
            exec_.stdin.half_close()
            exec_.wait()
    return Figure("monitor, PSS for each process with three streams", 100, more, "KiB", samples=count)


def pending_waits(stance: Stance, count: int = 5000) -> list[Figure]:
    with stance.running() as daemon:
        bridge = stance.connect(daemon)
        settled(daemon)
        with created(bridge, "/bin/sleep", "600") as container:
            init = container.init()
            # Everything that is used below has been used once before it is counted.
            bridge.answer(bridge.send_wait(container.id, init.pid, 0))
            # At once: some are served by who has read them, some by a pool's thread.
            asked = {"ContainerId": container.id, "ActivityId": ZERO_GUID, "Query": ""}
            for number in [bridge.send(GET_PROPERTIES, asked) for _ in range(32)]:
                bridge.answer(number)
            pids = (daemon.daemon_pid, daemon.monitor_pid)
            threads = sum(map(leaks.threads, pids))
            memory = sum(map(leaks.rss_kib, pids))
            waits = [bridge.send_wait(container.id, init.pid) for _ in range(count)]
            bridge.properties(container.id)  # answered after all of them were read
            more_threads = sum(map(leaks.threads, pids)) - threads
            more_memory = (sum(map(leaks.rss_kib, pids)) - memory) / MIB
            began = time.perf_counter()
            bridge.signal(container.id, init.pid, 9)
            assert {bridge.answer(wait)["ExitCode"] for wait in waits} == {137}
            released = time.perf_counter() - began
        bridge.close()
    return [
        Figure(f"{count} pending waits, more threads", 0, more_threads, "", samples=count),
        Figure(
            f"{count} pending waits, more memory", 10, more_memory, "MiB", f"all answered in {released:.2f} s"
        ),
    ]
