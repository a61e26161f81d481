"""Days on which there is none of something: room on the disk, memory, descriptors."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import resource
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.report import Figure
from soak.aftermath import read_log
from soak.faults_day import DIED, NO_DESCRIPTORS, NO_SPACE, NOT_WRITTEN, Day, day, under
from soak.restarts import body
from support import machine, specs
from support.containers import new_id, shell
from support.daemon import Daemon, is_running, wait_until
from support.earlier import POLICY
from support.host import (
    EXECUTE,
    GET_PROPERTIES,
    NULL_ID,
    Process,
    Refused,
    code,
)
from support.strict import strict_root

MONITOR_DESCRIPTORS = 64


# A full disk


class Ballast:
    """A small file system, and the file that fills it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "none", folder], check=True)
        self._folder, self._file = folder, folder / "ballast"

    def fill(self) -> None:
        with self._file.open("ab", buffering=0) as file:
            size = 65536
            while size:
                try:
                    file.write(b"x" * size)
                except OSError:
                    size //= 2

    def free(self) -> None:
        self._file.unlink(missing_ok=True)


class FullDay(Day):
    """The run directory is full, or where bundles are made, or both."""

    ballasts: list[Ballast]

    def free(self) -> None:
        for ballast in self.ballasts:
            ballast.free()

    def fill(self) -> None:
        for ballast in self.random.sample(self.ballasts, self.random.choice([1, 1, 2])):
            ballast.fill()

    def round(self) -> None:
        waiting, ending = new_id(), new_id()
        assert code(self.create(waiting, "exit 6")) == code(self.create(ending, "read x; exit 5")) == "S_OK"
        init = self.bridge.execute(ending, stdin=True)
        exec_ = self.bridge.execute(ending, specs.process(*shell("read x; exit 9")), stdin=True)
        self.fill()
        self.try_all(NO_SPACE)
        # What ends meanwhile is told, and can be removed.
        exec_.stdin.write(b"\n")
        assert exec_.wait() == 9
        init.stdin.write(b"\n")
        assert init.wait() == 5
        if self.random.random() < 0.5:
            self.vm.kill_daemon()
            self.alive()
            self.try_all(NO_SPACE)
        self.bridge.wait_for_notification(ending)
        assert code(self.delete(ending)) == "S_OK"
        started = self.execute(waiting)
        if not self.went(started, NO_SPACE):
            self.free()
            started = self.execute(waiting)
            assert code(started) == "S_OK"
        self.free()
        self.finish(waiting, Process(self.bridge, waiting, started["ProcessId"], {}, {}), 6)
        self.alive()


def full_disk(seed: int, rounds: int) -> Iterator[Figure]:
    """Disks are full again and again, now and then when the daemon dies."""
    vm = Daemon()
    ballasts = [Ballast(vm.run_dir), Ballast(vm.bundles)]
    with day(seed, vm, FullDay) as made:
        assert isinstance(made, FullDay)
        made.ballasts = ballasts
        for _ in range(rounds):
            made.round()
        made.evening(DIED, NOT_WRITTEN)
        assert made.refused >= rounds
        yield from made.summary("full disk", rounds)


def full_disk_strict(seed: int, rounds: int) -> Iterator[Figure]:
    """In a strict VM what the policy cannot count is denied, and nothing else changes."""
    chance, vm = random.Random(seed), Daemon(options={"paths-bundle-roots": "/run/gcs"})
    ballast = Ballast(vm.run_dir)
    with under(seed, vm):
        bridge = vm.connect()
        encoded = base64.b64encode(POLICY.encode()).decode()
        bridge.modify(NULL_ID, "SecurityPolicy", settings={"EncodedSecurityPolicy": encoded})
        for _ in range(rounds):
            container_id = new_id()
            with strict_root(container_id) as root:
                places = {
                    "OciBundlePath": str(root.parent),
                    "ScratchDirPath": f"{root.parent}/scratch/{container_id}",
                }
                spec = specs.container(*shell("exit 5"), root=root)
                ballast.fill()
                with pytest.raises(Refused, match=NO_SPACE) as refused:
                    bridge.create(container_id, spec, **places)
                if chance.random() < 0.5:
                    vm.kill_daemon()
                ballast.free()
                # The yes found room and the rest did not: then the id is used up.
                if "denied due to policy" in str(refused.value):
                    bridge.create(container_id, spec, **places)
                    assert bridge.execute(container_id).wait() == 5
                    bridge.wait_for_notification(container_id)
                    subprocess.run(["umount", root], check=True)
                    bridge.delete(container_id)
                # It was counted, once.
                with pytest.raises(Refused, match="denied due to policy"):
                    bridge.create(container_id, spec, **places)
        told = bridge.properties(NULL_ID, "uvmd.ps")["uvmd.ps"]
        assert (told["degraded"], told["inconsistent"], told["containers"]) == (None, None, [])
        said = read_log(vm, DIED | NOT_WRITTEN)
        assert not said.odd, said.odd[:5]
        bridge.close()
    yield Figure("full disk, strict: creates not counted, or twice; doors closed", 0, 0, "", "", rounds)


# No memory


class MemoryGroup:
    """A cgroup in which there is hardly any memory."""

    def __init__(self, limit_bytes: int) -> None:
        v2 = machine.cgroup_mode() == "v2"
        top = machine.CGROUPS if v2 else machine.CGROUPS / "memory"
        self._path = top / f"uvmd-soak-{secrets.token_hex(4)}"
        self._path.mkdir()
        names = ("memory.max", "memory.swap.max") if v2 else ("memory.limit_in_bytes",)
        for name in names:
            if (self._path / name).exists():
                (self._path / name).write_text("0" if "swap" in name else str(limit_bytes))
        self._events = self._path / ("memory.events" if v2 else "memory.oom_control")

    def add(self, pid: int) -> None:
        (self._path / "cgroup.procs").write_text(str(pid))

    def kills(self) -> int:
        facts = dict(line.split() for line in self._events.read_text().splitlines())
        return int(facts["oom_kill"])

    def remove(self) -> None:
        wait_until(lambda: not (self._path / "cgroup.procs").read_text(), what="nobody is in it")
        self._path.rmdir()


def no_memory(seed: int, rounds: int) -> Iterator[Figure]:
    """The kernel kills the daemon, which runs out of memory over a request; the next one answers it."""
    with day(seed, Daemon()) as made:
        kills = 0
        for _ in range(rounds):
            group = MemoryGroup(2 << 20)
            # A fresh one: what another has freed and kept at hand was charged elsewhere.
            made.vm.kill_daemon()
            made.alive()
            before = made.vm.daemon_pid  # read once: it may be killed over less than our request
            group.add(before)
            # Decoding takes a multiple of it.
            padding = "x" * made.random.randrange(10 << 20, 15 << 20)
            query = json.dumps({"PropertyTypes": ["uvmd.ps"]})
            large = made.bridge.send(GET_PROPERTIES, body(NULL_ID, Query=query, Padding=padding))
            container_id, _ = made.bystander()
            settings = {"ProcessParameters": json.dumps({"OciProcess": specs.process(*shell("exit 4"))})}
            small = made.bridge.send(EXECUTE, body(container_id, Settings=settings))
            assert code(made.bridge.answer(large, 60)) == "S_OK"
            answer = made.bridge.answer(small, 60)
            assert made.bridge.wait(container_id, answer["ProcessId"]) == 4
            wait_until(lambda old=before: not is_running(old), what="the daemon was killed")
            kills += group.kills()
            group.remove()
            made.alive()
        made.evening(DIED)
        assert kills >= rounds
        yield from made.summary("out of memory", rounds, f"; {kills} kills by the kernel")


# No descriptors


def no_descriptors(seed: int, rounds: int) -> Iterator[Figure]:
    """The daemon cannot open anything; then the monitor, which holds the streams of containers."""
    with day(seed, Daemon()) as made:
        for _ in range(rounds):
            pid = made.vm.daemon_pid
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            used = 1 + max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + made.random.randrange(3), hard))
            made.try_all(NO_DESCRIPTORS)
            made.alive()
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        made.evening()
        assert made.refused >= rounds
        yield from made.summary("daemon without descriptors", rounds)
    vm = Daemon()
    vm.program = ["prlimit", f"--nofile={MONITOR_DESCRIPTORS}:{MONITOR_DESCRIPTORS}", "--", *vm.argv()]
    with without_limits(), day(seed, vm) as made:
        for _ in range(rounds):
            _fill_monitor(made)
        made.evening(DIED)
        assert made.refused >= rounds
        yield from made.summary("monitor without descriptors", rounds)


@contextlib.contextmanager
def without_limits() -> Iterator[None]:
    """Processes of containers that want no more descriptors than the monitor may hand on."""
    real = specs.process

    def process(*args: str, **options: Any) -> dict[str, Any]:
        return {key: value for key, value in real(*args, **options).items() if key != "rlimits"}

    specs.process = process
    try:
        yield
    finally:
        specs.process = real


def _fill_monitor(made: Day) -> None:
    """Run processes with streams until no more can be had; they must not notice."""
    container_id, _ = made.bystander()
    held: list[Process] = []
    process = specs.process(*shell("read x; exit 8"))
    streams = {"stdin": True, "stdout": True, "stderr": True}
    with pytest.raises(Refused, match=NO_DESCRIPTORS):
        while True:
            held.append(made.bridge.execute(container_id, process, **streams))
    made.refused += 1
    made.try_all(NO_DESCRIPTORS)
    if made.random.random() < 0.5:
        made.vm.kill_daemon()
    made.alive()
    for one in held:
        one.stdin.write(b"\n")
        assert one.wait() == 8
    made.done += len(held)
