"""A day on which something is wrong: who must not notice, and what must hold in the evening."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.report import Figure
from soak.aftermath import read_log
from soak.restarts import RAMDISK, Ordeal, body
from support import specs
from support.containers import Ran, new_id, run, shell
from support.daemon import Daemon
from support.host import (
    CREATE,
    DELETE,
    EXECUTE,
    GET_PROPERTIES,
    MODIFY,
    NULL_ID,
    SIGNAL,
    Process,
    code,
)
from support.leaks import Snapshot

NO_SPACE = os.strerror(errno.ENOSPC)
NO_DESCRIPTORS = os.strerror(errno.EMFILE)
#: What the monitor says of a daemon that was killed.
DIED = {"the link has ended", "the daemon has ended"}
#: What is written down although nobody asked for it, and cannot be.
NOT_WRITTEN = {"journal could not be written, ignoring"}


class Day(Ordeal):
    """A daemon with its bystanders, and what must hold in the evening."""

    def __init__(self, vm: Daemon, seed: int, containers: int) -> None:
        super().__init__(vm, seed, containers)  # type: ignore[arg-type]  # nothing is held here
        run(self.bridge, "/bin/true")
        for verb in ("Add", "Remove"):  # the file of devices comes with the first one and stays
            assert code(self.disk(verb)) == "S_OK"
        self.before = Snapshot.settled(vm)
        #: Requests that were refused for the reason of the day, and those that were not.
        self.refused = self.done = 0

    # Requests that may be refused

    def disk(self, verb: str = "Add") -> dict[str, Any]:
        settings = {"MountPath": f"{self.vm.folder}/disk", "SizeMiB": 1}
        inner = {"RequestType": verb, "ResourceType": RAMDISK, "Settings": settings}
        return self.bridge.ask(MODIFY, body(NULL_ID, Request=inner), timeout_s=60)

    def create(self, container_id: str, script: str = "exit 7") -> dict[str, Any]:  # type: ignore[override]
        config = self.bridge.host.container_config(container_id, specs.container(*shell(script)))
        return self.bridge.ask(CREATE, body(container_id, ContainerConfig=config), timeout_s=60)

    def execute(self, container_id: str, process: Any = None) -> dict[str, Any]:
        asked = {} if process is None else {"OciProcess": process}
        settings = {"ProcessParameters": json.dumps(asked)}
        return self.bridge.ask(EXECUTE, body(container_id, Settings=settings), timeout_s=60)

    def delete(self, container_id: str) -> dict[str, Any]:
        return self.bridge.ask(DELETE, body(container_id), timeout_s=60)

    def bystander(self) -> tuple[str, Process]:
        container_id, init, _, _ = self.random.choice(self.counting)
        return container_id, init

    def went(self, answer: dict[str, Any], *reasons: str) -> bool:
        """Count an answer: a success, or a refusal that gives the reason of the day."""
        if code(answer) == "S_OK":
            self.done += 1
            return True
        assert code(answer) == "E_FAIL", answer
        assert any(reason.lower() in answer["ErrorMessage"].lower() for reason in reasons), answer
        self.refused += 1
        return False

    def try_all(self, reason: str) -> None:
        """Ask for one of everything, in any order; what is refused is refused for the reason."""
        tries = [self.try_create, self.try_exec, self.try_disk, self.try_statistics, self.try_signal]
        self.random.shuffle(tries)
        for one in tries:
            one(reason)

    def try_create(self, reason: str) -> None:
        container_id = new_id()
        if not self.went(self.create(container_id), reason):
            assert code(self.delete(container_id)) == "SYSTEM_NOT_FOUND"
            return
        started = self.execute(container_id)
        if self.went(started, reason):
            assert self.bridge.wait(container_id, started["ProcessId"]) == 7
            self.bridge.wait_for_notification(container_id)
        assert code(self.delete(container_id)) == "S_OK"

    def try_exec(self, reason: str) -> None:
        container_id, _ = self.bystander()
        answer = self.execute(container_id, specs.process(*shell("exit 4")))
        if self.went(answer, reason):
            assert self.bridge.wait(container_id, answer["ProcessId"]) == 4

    def try_disk(self, reason: str) -> None:
        if self.went(self.disk(), reason):
            while not self.went(self.disk("Remove"), reason):
                self.free()
        assert str(self.vm.folder / "disk") not in Path("/proc/self/mountinfo").read_text()

    def free(self) -> None:
        """What was mounted must go, so the day ends early."""
        raise AssertionError("a disk that cannot be removed")

    def try_statistics(self, reason: str) -> None:
        query = json.dumps({"PropertyTypes": ["Statistics"]})
        self.went(self.bridge.ask(GET_PROPERTIES, body(self.bystander()[0], Query=query)), reason)

    def try_signal(self, reason: str) -> None:
        container_id, init = self.bystander()
        options = {"Signal": int(signal.SIGWINCH)}
        self.went(self.bridge.ask(SIGNAL, body(container_id, ProcessId=init.pid, Options=options)), reason)

    # What must hold

    def alive(self) -> None:
        """What needs nothing goes on, and so do the bystanders."""
        self.must(GET_PROPERTIES, NULL_ID, Query=json.dumps({"PropertyTypes": ["uvmd.ps"]}))
        self.check_running()

    def evening(self, *expected: set[str]) -> None:
        """Everything works, nothing is left, every code is told, and the log explains itself."""
        assert run(self.bridge, *shell("echo all; exit 3")) == Ran(3, b"all\n", b"")
        self.try_disk("never")
        deadline = time.monotonic() + 12
        while lines := self.left():
            assert time.monotonic() < deadline, "left behind:\n" + "\n".join(lines)
            time.sleep(0.1)
        self.end()
        said = read_log(self.vm, set[str]().union(*expected))
        assert not said.odd, f"{len(said.odd)} lines that nothing explains: {said.odd[:5]}"

    def left(self) -> list[str]:
        after = Snapshot.take(self.vm)
        # Another daemon has other descriptors.
        return [line for line in self.before.differences(after) if not line.startswith("daemon_")]

    def summary(self, what: str, rounds: int, more: str = "") -> Iterator[Figure]:
        beside = f"{self.refused} refused with the reason, {self.done} done{more}"
        yield Figure(f"{what}: containers, codes, bytes, files lost", 0, 0, "", beside, rounds)


@contextlib.contextmanager
def under(seed: int, vm: Daemon) -> Iterator[None]:
    """Start a daemon, and have it stop cleanly; whatever fails names the seed."""
    try:
        vm.start()
        yield
        assert vm.stop() == 0
    except BaseException as error:
        log = Path(tempfile.gettempdir()) / f"uvmd-soak-{seed}.log"
        log.write_text(vm.log_text())
        error.add_note(f"seed {seed}; the whole log is in {log}\n{vm.describe()}")
        raise
    finally:
        vm.close()


@contextlib.contextmanager
def day(seed: int, vm: Daemon, kind: type[Day] = Day, containers: int = 3) -> Iterator[Day]:
    """A day of a daemon that is not started yet."""
    with under(seed, vm):
        made = kind(vm, seed, containers)
        yield made
        made.bridge.close()
