"""Days on which others misbehave: the wall clock, the runtime, whoever stops processes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvmd
from bench.report import Figure
from soak.aftermath import read_log
from soak.faults_day import DIED, Day, day, under
from soak.restarts import RANDOM, Ordeal, body
from support import machine, specs
from support.containers import new_id, shell
from support.daemon import Daemon, children, command_line
from support.host import (
    CREATE,
    DELETE,
    EXECUTE,
    MODIFY,
    WAIT,
    code,
)
from support.misbehaving import Misbehaving

YEARS_S = 365 * 24 * 3600


# Clocks that jump


class JumpingDaemon(Daemon):
    """A daemon and its monitor, whose wall clock a test sets."""

    @property
    def clock(self) -> Path:
        return self.folder / "clock"

    def argv(self) -> list[str]:
        python = str(machine.BIN / "python")
        wrong = str(Path(__file__).parents[1] / "support" / "jumping_clock.py")
        core = str(Path(uvmd.__file__).parents[1])
        flags = [f"--{key}={value}" for key, value in self.options.items()]
        daemon = [python, "-I", wrong, str(self.clock), "daemon", *flags]
        return [python, "-I", "-S", wrong, str(self.clock), "monitor", core, *daemon]

    def find_daemon(self) -> int | None:
        found = [pid for pid in children(self.monitor_pid) if "daemon" in command_line(pid)[4:5]]
        return found[0] if found else None


def clocks(seed: int, rounds: int) -> Iterator[Figure]:
    """The wall clock jumps by years, forth and back: what waits, waits as long as before."""
    with tempfile.TemporaryDirectory(prefix="uv-", dir="/tmp") as folder:
        broken = Misbehaving(Path(folder), "crun")
        vm = JumpingDaemon(runtime=str(broken.program), options={"runtime-timeout-s": "1.5"})
        with day(seed, vm) as made:
            for _ in range(rounds):
                _jump_about(made, vm.clock, broken)
            made.evening(DIED)
            yield from made.summary("wall clock jumps", rounds)


def _jump_about(made: Day, clock: Path, broken: Misbehaving) -> None:
    def jump() -> None:
        clock.write_text(str(made.random.choice([-70, -20, -1, 1, 20, 70]) * YEARS_S))

    container_id, init = made.bystander()
    # A wait with a limit, a runtime that hangs, a daemon that is replaced: each with its own clock.
    began = time.monotonic()
    waiting = made.bridge.send(WAIT, body(container_id, ProcessId=init.pid, TimeoutInMs=700))
    jump()
    assert code(made.bridge.answer(waiting)) == "TIMEOUT"
    assert 0.7 <= time.monotonic() - began < 10
    broken.at("exec", "hang")
    began = time.monotonic()
    settings = {"ProcessParameters": json.dumps({"OciProcess": specs.process("/bin/true")})}
    hanging = made.bridge.send(EXECUTE, body(container_id, Settings=settings))
    time.sleep(made.random.uniform(0, 0.3))
    jump()
    answer = made.bridge.answer(hanging)
    assert code(answer) == "E_FAIL"
    assert 1.5 <= time.monotonic() - began < 15
    broken.mend()
    made.try_all("never")
    made.vm.kill_daemon()
    jump()
    made.try_all("never")
    made.alive()


# A runtime that misbehaves

VERBS = ("create", "start", "exec", "delete", "update")
HOWS = ("hang", "fail", "die", "stop", "late", "undone")


class BrokenDay(Day):
    """The runtime hangs, fails, is killed or stopped, before or after it did its work."""

    broken: Misbehaving

    def round(self, verb: str, how: str) -> None:
        container_id = new_id()
        if verb == "create":
            answer = self.meanwhile(verb, how, lambda: self.ask_create(container_id))
            self.failed(answer)
            assert code(self.delete(container_id)) == "SYSTEM_NOT_FOUND"
            return
        assert code(self.create(container_id, "read x; exit 5")) == "S_OK"
        if verb == "start":
            self.failed(self.meanwhile(verb, how, lambda: self.ask_execute(container_id)))
            assert self.bridge.wait_for_notification(container_id)["Type"]
            assert code(self.delete(container_id)) == "S_OK"
            return
        init = self.bridge.execute(container_id, stdin=True)
        if verb == "exec":
            process = specs.process(*shell("sleep 60"))
            self.failed(self.meanwhile(verb, how, lambda: self.ask_execute(container_id, process)))
        elif verb == "update":
            answer = self.meanwhile(verb, how, lambda: self.ask_update(container_id))
            self.failed(answer)
        init.stdin.write(b"\n")
        assert init.wait() == 5
        self.bridge.wait_for_notification(container_id)
        if verb == "delete":
            # Its record goes whatever happens (spec containers.md 11.9), and the answer says why.
            self.failed(self.meanwhile(verb, how, lambda: self.bridge.send(DELETE, body(container_id))))
            assert code(self.delete(container_id)) == "SYSTEM_NOT_FOUND"
            # What the runtime keeps of it, only the runtime can remove.
            argv = [machine.runtime_path(self.broken.runtime), "delete", "--force", container_id]
            subprocess.run(argv, check=False, capture_output=True)
            return
        assert code(self.delete(container_id)) == "S_OK"

    def meanwhile(self, verb: str, how: str, ask: Callable[[], int]) -> dict[str, Any]:
        """Ask with a runtime that misbehaves; others are served, and the daemon may die."""
        self.broken.at(verb, how)
        asked = ask()
        self.alive()
        if self.random.random() < 0.3:
            time.sleep(self.random.uniform(0, 0.3))
            self.vm.kill_daemon()
            self.alive()
        answer = self.bridge.answer(asked, 60)
        self.broken.mend()
        return answer

    def failed(self, answer: dict[str, Any]) -> None:
        assert code(answer) == "E_FAIL", answer
        self.refused += 1

    def ask_create(self, container_id: str) -> int:
        config = self.bridge.host.container_config(container_id, specs.container(*shell("exit 7")))
        return self.bridge.send(CREATE, body(container_id, ContainerConfig=config))

    def ask_execute(self, container_id: str, process: Any = None) -> int:
        asked = {} if process is None else {"OciProcess": process}
        settings = {"ProcessParameters": json.dumps(asked)}
        return self.bridge.send(EXECUTE, body(container_id, Settings=settings))

    def ask_update(self, container_id: str) -> int:
        linux = {"pids": {"limit": 100 + self.random.randrange(50)}}
        inner = {
            "RequestType": "Update",
            "ResourceType": "ContainerConstraints",
            "Settings": {"Linux": linux},
        }
        return self.bridge.send(MODIFY, body(container_id, Request=inner))


def runtimes(seed: int, rounds: int, runtime: str = "crun") -> Iterator[Figure]:
    """Every call of the runtime goes wrong in every way, or as many as there are rounds."""
    with tempfile.TemporaryDirectory(prefix="uv-", dir="/tmp") as folder:
        broken = Misbehaving(Path(folder), runtime)
        vm = Daemon(runtime=str(broken.program), options={"runtime-timeout-s": "1.5"})
        with day(seed, vm, BrokenDay) as made:
            assert isinstance(made, BrokenDay)
            made.broken = broken
            plan = [(verb, how) for verb in VERBS for how in HOWS]
            made.random.shuffle(plan)
            for verb, how in plan[:rounds]:
                try:
                    made.round(verb, how)
                except BaseException as error:
                    error.add_note(f"{verb} {how}")
                    raise
            made.evening(DIED)
            yield from made.summary(f"{runtime} misbehaves", rounds)


# Stopped in the middle


class StoppedDay(Ordeal):
    """What Ordeal kills is stopped here, for a while or for good; so are runtimes, now and then."""

    def kill(self) -> None:
        began, pid = time.monotonic(), self.vm.daemon_pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(self.random.choice([0, self.random.uniform(0, 0.3)]))
        os.kill(pid, self.random.choice([signal.SIGCONT, signal.SIGKILL]))
        self.ask_alive(began)


class Meddler:
    """Stops the runtime's calls, and the monitor, for moments."""

    def __init__(self, vm: Daemon, seed: int) -> None:
        self._vm, self._random = vm, random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.stopped = 0

    def __enter__(self) -> Meddler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._random.uniform(0, 0.02)):
            monitor = self._vm.monitor_pid
            victims = [pid for pid in children(monitor) if self._vm.runtime in str(command_line(pid)[:1])]
            if self._random.random() < 0.05:
                victims.append(monitor)
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    self._over.wait(self._random.uniform(0, 0.1))
                    os.kill(pid, signal.SIGCONT)
                    self.stopped += 1


def stopped(seed: int, rounds: int, runtime: str = "crun") -> Iterator[Figure]:
    """SIGSTOP to the daemon anywhere, and to runtimes and the monitor: nothing is lost."""
    vm = Daemon(runtime=runtime)
    with under(seed, vm):
        made = StoppedDay(vm, seed, 3)  # type: ignore[arg-type]  # nothing is held here
        with Meddler(vm, seed) as meddler:
            for _ in range(rounds):
                made.phases[made.random.choice([RANDOM, RANDOM, "mid-relay"])]()
                made.check_running()
        made.end()
        said = read_log(vm, DIED)
        assert not said.odd, said.odd[:5]
        made.bridge.close()
    beside = f"{meddler.stopped} stops of runtimes and monitor; of {made.asked} requests"
    yield Figure("stopped: containers, codes, bytes, answers lost", 0, 0, "", beside, rounds)
