"""The daemon is killed again and again while containers run, and nothing is lost.

The host has one connection, which must stay open. Its containers count lines, and each kill
falls into a phase: in the middle of a request's frame, of an answer, of a create, between the
policy's answer and what follows from it, in the middle of a mount, of a relay, or anywhere
while the host asks for something at random. In the end every line, every exit code and every
notification is there once, and every request was answered.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.report import Figure
from support import specs
from support.containers import new_id, shell
from support.holding import HoldingDaemon, holding
from support.host import (
    CREATE,
    DELETE,
    DUMP_STACKS,
    EXECUTE,
    GET_PROPERTIES,
    HEADER,
    MODIFY,
    NULL_ID,
    SIGNAL,
    ZERO_GUID,
    Process,
    code,
)
from support.streams import Output

RAMDISK = "example.com/Ramdisk"
COUNTING = "trap 'stop=1' TERM; i=0; while [ -z \"$stop\" ]; do echo line $i; i=$((i+1)); sleep 0.2; done"
#: Bytes of one stream whose reader pauses: more than pipes and sockets hold.
STREAM_BYTES = 2_000_000
RANDOM = "anywhere"


def body(container_id: str, **fields: Any) -> dict[str, Any]:
    return {"ContainerId": container_id, "ActivityId": ZERO_GUID, **fields}


class Ordeal:
    """One daemon, one connection, some containers that count, and a number of kills."""

    def __init__(self, vm: HoldingDaemon, seed: int, containers: int) -> None:
        self.vm = vm
        self.random = random.Random(seed)
        self.bridge = vm.connect()
        self.hit: Counter[str] = Counter()
        #: From SIGKILL to the answer to a request, in seconds.
        self.pauses: list[float] = []
        self.counting: list[tuple[str, Process, int, int]] = []
        for number in range(containers):
            container_id, exit_code = new_id(), 10 + number
            script = f"{COUNTING}; exit {exit_code}"
            self.bridge.create(container_id, self.spec(script))
            init = self.bridge.execute(container_id, stdout=True)
            wait = self.bridge.send_wait(container_id, init.pid)
            self.counting.append((container_id, init, exit_code, wait))
        self.monitor_pid = vm.monitor_pid
        self.asked = len(self.counting)
        self.phases: dict[str, Callable[[], None]] = {
            "half-read request": self.half_read,
            "half-written answer": self.half_written,
            "mid-create": lambda: self.create("create-made"),
            "between decision and apply": lambda: self.create("create-decided"),
            "mid-mount": self.mount,
            "mid-relay": self.relay,
            RANDOM: self.anywhere,
        }

    def spec(self, script: str) -> dict[str, Any]:
        """A container's specification."""
        return specs.container(*shell(script), root=self.vm.root)

    def run(self, kills: int, each: int) -> None:
        """Kill so often, at least ``each`` times in each phase."""
        plan = [name for name in self.phases for _ in range(each)]
        plan += [RANDOM] * (kills - len(plan))
        self.random.shuffle(plan)
        for name in plan:
            self.phases[name]()
            self.hit[name] += 1
            self.check_running()

    def kill(self) -> None:
        """SIGKILL to the daemon, whatever it does."""
        began = time.monotonic()
        self.vm.kill_daemon()
        self.ask_alive(began)

    def ask_alive(self, began: float) -> None:
        self.must(GET_PROPERTIES, NULL_ID, Query=json.dumps({"PropertyTypes": ["uvmd.ps"]}))
        self.pauses.append(time.monotonic() - began)

    def must(self, type_: int, container_id: str, **fields: Any) -> dict[str, Any]:
        self.asked += 1
        return self.bridge.call(type_, container_id, **fields)

    # The phases

    def half_read(self) -> None:
        text = json.dumps(body(self.counting[0][0], Query="")).encode()
        id_ = 1 << 40 | self.asked
        frame = HEADER.pack(GET_PROPERTIES, HEADER.size + len(text), id_) + text
        cut = self.random.randrange(1, len(frame))
        self.bridge.expect(id_, GET_PROPERTIES)
        self.asked += 1
        self.bridge.send_bytes(frame[:cut])
        began = time.monotonic()
        self.vm.kill_daemon()
        self.bridge.send_bytes(frame[cut:])
        assert code(self.bridge.answer(id_)) == "S_OK"
        self.pauses.append(time.monotonic() - began)

    def half_written(self) -> None:
        asked = [self.bridge.send(DUMP_STACKS, body(NULL_ID)) for _ in range(150)]
        self.asked += len(asked)
        time.sleep(0.3)  # the socket is full by now: one answer is written in half
        self.vm.kill_daemon()
        for id_ in asked:
            assert "thread" in self.bridge.answer(id_)["GuestStacks"]

    def create(self, place: str) -> None:
        container_id = new_id()
        config = self.bridge.host.container_config(container_id, self.spec("exit 7"))
        self.vm.hold(place)
        creating = self.bridge.send(CREATE, body(container_id, ContainerConfig=config))
        self.asked += 1
        self.vm.kill_at(place)
        assert code(self.bridge.answer(creating)) == "S_OK"
        self.finish(container_id, self.bridge.execute(container_id), 7)

    def mount(self) -> None:
        path = f"{self.vm.folder}/disk"
        inner = {
            "RequestType": "Add",
            "ResourceType": RAMDISK,
            "Settings": {"MountPath": path, "SizeMiB": 1},
        }
        self.vm.hold("mounted")
        adding = self.bridge.send(MODIFY, body(NULL_ID, Request=inner))
        self.asked += 1
        self.vm.kill_at("mounted")
        assert code(self.bridge.answer(adding)) == "S_OK"
        self.bridge.modify(NULL_ID, RAMDISK, "Remove", {"MountPath": path})
        assert path not in Path("/proc/self/mountinfo").read_text()

    def relay(self) -> None:
        container_id = self.random.choice(self.counting)[0]
        reading = threading.Event()
        script = f"head -c {STREAM_BYTES} /dev/zero; exit 5"
        process = specs.process(*shell(script))
        exec_ = self.bridge.execute(container_id, process, stdout=True, start=reading)
        self.asked += 2
        time.sleep(self.random.uniform(0, 0.1))
        self.kill()
        reading.set()
        assert self.bridge.wait(container_id, exec_.pid) == 5
        exec_.stdout.join()
        assert exec_.stdout.count == STREAM_BYTES

    def anywhere(self) -> None:
        """Have several things under way, and kill at some moment."""
        container_id, init, _, _ = self.random.choice(self.counting)
        fresh = new_id()
        config = self.bridge.host.container_config(fresh, self.spec("echo all; exit 3"))
        port, listener = self.bridge.host.next_port()
        output = Output(listener)
        self.bridge.host.streams.append(output)
        asked = {"OciProcess": specs.process(*shell("echo out; exit 4")), "CreateStdOutPipe": True}
        settings = {"ProcessParameters": json.dumps(asked), "VsockStdioRelaySettings": {"StdOut": port}}
        sends = [
            (CREATE, body(fresh, ContainerConfig=config)),
            (EXECUTE, body(container_id, Settings=settings)),
            (SIGNAL, body(container_id, ProcessId=init.pid, Options={"Signal": signal.SIGWINCH})),
            (GET_PROPERTIES, body(container_id, Query=json.dumps({"PropertyTypes": ["Statistics"]}))),
        ]
        self.random.shuffle(sends)
        ids = {type_: self.bridge.send(type_, fields) for type_, fields in sends}
        self.asked += len(ids)
        time.sleep(self.random.choice([0, self.random.uniform(0, 0.02), self.random.uniform(0, 0.12)]))
        self.kill()
        answers = {type_: self.bridge.answer(id_) for type_, id_ in ids.items()}
        assert {code(answer) for answer in answers.values()} == {"S_OK"}, answers
        assert self.bridge.wait(container_id, answers[EXECUTE]["ProcessId"]) == 4
        assert output.read_all() == b"out\n"
        started = self.bridge.execute(fresh, stdout=True)
        if self.random.random() < 0.5:
            time.sleep(self.random.uniform(0, 0.03))
            self.kill()
        self.finish(fresh, started, 3)
        assert started.stdout.read_all() == b"all\n"

    # What must hold

    def finish(self, container_id: str, init: Process, exit_code: int) -> None:
        assert self.bridge.wait(container_id, init.pid) == exit_code
        self.bridge.wait_for_notification(container_id)
        self.must(DELETE, container_id)
        self.asked += 2

    def check_running(self) -> None:
        assert self.vm.monitor_pid == self.monitor_pid
        assert self.bridge.is_open
        lost = [init.pid for _, init, _, _ in self.counting if not self.vm.runs(init.pid)]
        assert not lost, f"containers are gone: {lost}"

    def end(self) -> None:
        """End the containers and account for every line, code and notification."""
        for container_id, init, _, _ in self.counting:
            self.bridge.signal(container_id, init.pid, signal.SIGTERM)
        for container_id, init, exit_code, wait in self.counting:
            assert self.bridge.answer(wait)["ExitCode"] == exit_code
            lines = init.stdout.read_all().split(b"\n")
            assert lines == [b"line %d" % number for number in range(len(lines) - 1)] + [b""]
            note = self.bridge.wait_for_notification(container_id)
            assert note["Type"] == "GracefulExit"
            self.must(DELETE, container_id)
        self.asked += 2 * len(self.counting)
        told = Counter(note["ContainerId"] for note in self.bridge.notifications)
        assert set(told.values()) <= {1}, f"told twice: {told.most_common(3)}"
        assert not self.bridge.outstanding, f"not answered: {self.bridge.outstanding}"

    def figures(self) -> Iterator[Figure]:
        """What ``end`` has shown, in numbers."""
        name = f"kills, {self.vm.runtime}"
        kills, pauses = sum(self.hit.values()), sorted(self.pauses)
        phases = ", ".join(f"{name} {count}" for name, count in self.hit.items())
        lost = f"{name}: containers, exit codes, bytes of output lost"
        yield Figure(lost, 0, 0, "", phases, kills)
        yield Figure(f"{name}: requests without an answer", 0, 0, "", f"of {self.asked}", self.asked)
        yield Figure(
            f"{name}: SIGKILL to an answer, median",
            1000,
            statistics.median(pauses) * 1000,
            "ms",
            f"longest {pauses[-1] * 1000:.0f} ms",
            len(pauses),
        )


@contextlib.contextmanager
def ordeal(seed: int, containers: int, runtime: str = "crun") -> Iterator[Ordeal]:
    """A daemon under fire; whatever fails names the seed."""
    with holding(runtime=runtime) as vm:
        made = Ordeal(vm, seed, containers)
        try:
            yield made
        except BaseException as error:
            error.add_note(f"seed {seed}; hit so far: {dict(made.hit)}\n{vm.describe()}")
            raise
        made.bridge.close()


def with_crun(seed: int, quick: bool) -> Iterator[Figure]:
    """A hundred kills with twenty containers, at least five in each phase."""
    kills, each, containers = (20, 2, 5) if quick else (100, 5, 20)
    with ordeal(seed, containers) as made:
        made.run(kills, each)
        made.end()
        yield from made.figures()


def with_runc(seed: int, quick: bool) -> Iterator[Figure]:
    """The same with the other runtime, on a smaller scale."""
    kills, each, containers = (10, 1, 3) if quick else (40, 2, 8)
    with ordeal(seed, containers, "runc") as made:
        made.run(kills, each)
        made.end()
        yield from made.figures()
