"""`make demo-restart`: the daemon is killed over and over, and nobody notices.

The demo is the host: it opens one connection, starts containers that write all the time, and
then kills the process that decides, with SIGKILL, in the middle of everything. In the end it
counts: every line, every exit code, and how many connections there ever were.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import machine, specs
from support.containers import new_id, shell
from support.daemon import Daemon, wait_until
from support.host import CREATE, NULL_ID, Process

WRITING = "i=0; while [ $i -lt {lines} ]; do echo line $i of {name}; i=$((i+1)); sleep 0.1; done; exit {code}"


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n# {text}", flush=True)


def show(daemon: Daemon, containers: int, kills: int) -> None:
    say("1. One host, one connection. uvmd dials, the host negotiates, once and for all.")
    bridge = daemon.connect()
    connections = sum(line["msg"] == "the bridge is up" for line in daemon.log_lines())
    print(f"  monitor {daemon.monitor_pid}, daemon {daemon.daemon_pid}", flush=True)

    say(f"2. {containers} containers that write ten lines a second. The host waits for each of them.")
    lines = 10 * (4 + 2 * kills)
    running: dict[str, tuple[str, Process, int, int]] = {}
    for number in range(containers):
        name, code, container_id = f"c{number}", 10 + number, new_id()
        script = WRITING.format(lines=lines, name=name, code=code)
        bridge.create(container_id, specs.container(*shell(script), root=daemon.root))
        init = bridge.execute(container_id, stdout=True)
        running[name] = (container_id, init, code, bridge.send_wait(container_id, init.pid))
        print(f"  {name}: process {init.pid}, will end with {code}", flush=True)

    say(f"3. Kill the daemon, {kills} times; behind each kill a request that nobody is there to take.")
    pauses = []
    for _ in range(kills):
        time.sleep(0.9)
        before = daemon.daemon_pid
        written = sum(init.stdout.count for _, init, _, _ in running.values())
        began = time.monotonic()
        daemon.kill_daemon()
        rows = bridge.properties(NULL_ID, "uvmd.ps")["uvmd.ps"]["containers"]
        pauses.append(time.monotonic() - began)
        after = wait_until(
            lambda before=before: (pid := daemon.find_daemon()) not in (None, before) and pid,
            what="the next daemon",
        )
        time.sleep(0.3)
        more = sum(init.stdout.count for _, init, _, _ in running.values()) - written
        print(
            f"  kill -9 {before} -> {after}: answered after {pauses[-1] * 1000:4.0f} ms,"
            f" {len(rows)} containers, {more} bytes came meanwhile",
            flush=True,
        )
        assert len(rows) == containers

    say("4. Killed once more in the middle of a create: the host gets its answer, from the next daemon.")
    late = new_id()
    spec = specs.container(*shell("echo from a create cut in two"), root=daemon.root)
    config = bridge.host.container_config(late, spec)
    fields = {"ContainerId": late, "ActivityId": NULL_ID, "ContainerConfig": config}
    creating = bridge.send(CREATE, fields)
    time.sleep(0.02)
    daemon.kill_daemon()
    assert bridge.answer(creating)["Result"] == 0
    init = bridge.execute(late, stdout=True)
    assert init.wait() == 0
    print(f"  {init.stdout.read_all().decode().strip()}", flush=True)
    bridge.delete(late)

    say("5. The containers end by themselves. What has arrived?")
    for name, (container_id, init, code, wait) in running.items():
        got = bridge.answer(wait, timeout_s=120)["ExitCode"]
        text = init.stdout.read_all().decode()
        whole = "".join(f"line {n} of {name}\n" for n in range(lines))
        print(f"  {name}: exit code {got}, {text.count(chr(10))} of {lines} lines", flush=True)
        assert (got, text) == (code, whole)
        bridge.wait_for_notification(container_id)
        bridge.delete(container_id)
    told = Counter(note["ContainerId"] for note in bridge.notifications)
    assert set(told.values()) == {1}
    assert not bridge.outstanding

    say("6. And the connection?")
    lines = daemon.log_lines()
    assert bridge.is_open
    assert sum(line["msg"] == "the bridge is up" for line in lines) == connections
    starts = max(line["daemon_starts"] for line in lines if line["msg"] == "serving")
    print(f"  still the same one, after {starts} daemons; the longest pause was {max(pauses) * 1000:.0f} ms")
    bridge.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--containers", type=int, default=5)
    parser.add_argument("--kills", type=int, default=5)
    asked = parser.parse_args()
    if os.geteuid() != 0:
        print("the demo runs real containers and needs root: sudo make demo-restart", file=sys.stderr)
        return 1
    print(f"machine: {machine.describe()}")
    daemon = Daemon()
    try:
        daemon.start()
        show(daemon, asked.containers, asked.kills)
        assert daemon.stop() == 0
    finally:
        daemon.close()
    print("\nNothing was lost, nothing is left behind. How it works: docs/restart.md.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
