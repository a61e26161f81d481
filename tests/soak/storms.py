"""A host that asks for too much at once, reads nothing, writes byte by byte, or hangs up.

Each storm leaves one bystander alone: a container that runs all the while.
"""

from __future__ import annotations

import json
import random
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from bench.report import Figure
from soak.aftermath import Watch, log_figure
from soak.restarts import body
from support import specs
from support.containers import new_id, shell
from support.daemon import Daemon, running
from support.host import (
    DUMP_STACKS,
    EXECUTE,
    FOREVER,
    GET_PROPERTIES,
    HEADER,
    NULL_ID,
    RESIZE,
    SIGNAL,
    START,
    WAIT,
    code,
)
from support.leaks import rss_kib

#: What monitor and daemon may need more while a host asks and does not read, in MiB.
MOST_MIB = 64
#: What a writable socket surely takes without blocking.
PIECE = 4096


class Storms:
    """One daemon, its present connection, and a bystander."""

    def __init__(self, vm: Daemon, seed: int) -> None:
        self.vm = vm
        self.chance = random.Random(seed)
        self.bridge = vm.connect()
        self.bystander = new_id()
        self.bridge.create(self.bystander, specs.container("/bin/sleep", "86400"))
        self.init = self.bridge.execute(self.bystander)
        self.asked = 0

    def request(self) -> tuple[int, dict[str, Any]]:
        """One that is answered quickly."""
        me, pid = self.bystander, {"ProcessId": self.init.pid}
        return self.chance.choice([
            (START, body(me)),
            (WAIT, body(me, **pid, TimeoutInMs=0)),
            (SIGNAL, body(me, **pid, Options={"Signal": signal.SIGWINCH})),
            (RESIZE, body(me, **pid, Height=1, Width=1)),
            (GET_PROPERTIES, body(me, Query=json.dumps({"PropertyTypes": ["ProcessList"]}))),
            (DUMP_STACKS, body(NULL_ID)),
        ])  # fmt: skip

    def requests(self, count: int) -> Counter[str]:
        """So many requests as fast as they are taken, answers read meanwhile; return the codes."""
        asked: Counter[str] = Counter()
        for _ in range(count // 100):
            requests = [self.request() for _ in range(100)]
            self._send(b"".join(self._frame(*request) for request in requests))
            asked.update({WAIT: "TIMEOUT", RESIZE: "E_FAIL"}.get(type_, "S_OK") for type_, _ in requests)
        codes = self._read_all()
        assert codes == asked, f"{codes}, and right were {asked}"
        return codes

    def deaf_host(self, count: int, deaf_s: float) -> tuple[float, int]:
        """Ask until nothing is taken any more, and be deaf for a while; then hear all of it.

        Returns how much more memory monitor and daemon had, in MiB, and how much was asked.
        """
        before, most, sent = self._memory(), 0.0, 0
        until = time.monotonic() + deaf_s
        while time.monotonic() < until:
            if sent < count and select.select([], [self.bridge._write_fd], [], 0.2)[1]:
                # Whole or not at all: far less than what a socket that is writable has room for.
                self.bridge.send_bytes(self._frame(DUMP_STACKS, body(NULL_ID)))
                sent += 1
            else:
                most = max(most, self._memory() - before)
                time.sleep(0.05)
        assert set(self._read_all()) == {"S_OK"}
        return most, sent

    def waits(self, count: int) -> None:
        """Thousands of waits for one process; each is told of its end."""
        process = specs.process("/bin/sleep", "86400")
        exec_ = self.bridge.execute(self.bystander, process)
        waits = [self.bridge.send_wait(self.bystander, exec_.pid, FOREVER) for _ in range(count)]
        assert code(self.bridge.ask(START, body(self.bystander))) == "S_OK"
        self.bridge.signal(self.bystander, exec_.pid, signal.SIGKILL)
        assert {self.bridge.answer(wait, 60)["ExitCode"] for wait in waits} == {137}

    def execs(self, count: int) -> None:
        """Execs without a pause between them, and a wait for each; every code is there."""
        asked: dict[int, int] = {}
        for number in range(count):
            process = {"OciProcess": specs.process(*shell(f"exit {number % 250}"))}
            settings = {"ProcessParameters": json.dumps(process)}
            asked[self.bridge.send(EXECUTE, body(self.bystander, Settings=settings))] = number % 250
        waits = {}
        for id_, expected in asked.items():
            started = self.bridge.answer(id_, 120)
            assert code(started) == "S_OK", started
            waits[self.bridge.send_wait(self.bystander, started["ProcessId"])] = expected
        for id_, expected in waits.items():
            assert self.bridge.answer(id_, 120)["ExitCode"] == expected

    def slow_writer(self, count: int) -> None:
        """Frames that come byte by byte, while a container ends."""
        ending = new_id()
        self.bridge.create(ending, specs.container(*shell("read line")))
        init = self.bridge.execute(ending, stdin=True)
        for number in range(count):
            for byte in self._frame(*self.request()):
                self.bridge.send_bytes(bytes([byte]))
            if number == count // 2:
                init.stdin.close()
        self._read_all()
        self.bridge.wait_for_notification(ending)
        self.bridge.delete(ending)

    def half_open(self, count: int) -> None:
        """Connections that are closed, or half closed, before anything is negotiated."""
        self.bridge.close()
        for number in range(count):
            bridge = self.vm.connect(negotiate=False)
            if number % 4 == 1:
                bridge.send_bytes(bytes(HEADER.size // 2))
            elif number % 4 == 2:
                # Nothing more comes from this host, which would still listen.
                bridge.end_writing()
                bridge.wait_until_closed()
            elif number % 4 == 3:
                bridge.send_bytes(self._frame_of(START, body(NULL_ID), 0)[:-1])
                time.sleep(0.02)
            bridge.close()
        self.bridge = self.vm.connect()
        assert code(self.bridge.ask(START, body(self.bystander))) == "S_OK"

    def assert_bystander_lives(self) -> None:
        answer = self.bridge.ask(WAIT, body(self.bystander, ProcessId=self.init.pid, TimeoutInMs=0))
        assert code(answer) == "TIMEOUT", answer

    def _send(self, data: bytes) -> None:
        """Write, and read meanwhile: a host that does not read is not read either."""
        while data:
            reader, writer = self.bridge._read_fd, self.bridge._write_fd
            readable, writable, _ = select.select([reader], [writer], [], 30)
            assert readable or writable, "neither answers nor room for requests"
            if readable:
                self.bridge.pump(0)
            if writable:
                self.bridge.send_bytes(data[:PIECE])
                data = data[PIECE:]

    def _frame(self, type_: int, fields: dict[str, Any]) -> bytes:
        self.asked += 1
        id_ = (1 << 32) + self.asked
        self.bridge.expect(id_, type_)
        return self._frame_of(type_, fields, id_)

    def _frame_of(self, type_: int, fields: dict[str, Any], id_: int) -> bytes:
        text = json.dumps(fields).encode()
        return HEADER.pack(type_, HEADER.size + len(text), id_) + text

    def _read_all(self) -> Counter[str]:
        while self.bridge.outstanding:
            assert self.bridge.pump(60), f"{len(self.bridge.outstanding)} requests without an answer"
        codes = Counter(code(answer) for answer in self.bridge.answers.values())
        self.bridge.answers.clear()
        return codes

    def _memory(self) -> float:
        return (rss_kib(self.vm.monitor_pid) + rss_kib(self.vm.daemon_pid)) / 1024


def section(seed: int, quick: bool) -> Iterator[Figure]:
    """All of them, one daemon; after each it must be as before."""
    scale = 1 if quick else 10
    with running() as vm:
        made = Storms(vm, seed)
        made.requests(2000)
        made.execs(20)
        watch = Watch(vm)

        def after(storm: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
            began = time.monotonic()
            result = storm(*arguments)
            took_s = time.monotonic() - began
            made.assert_bystander_lives()
            watch.assert_nothing_left()
            return result, took_s

        codes, took_s = after(made.requests, 5000 * scale)
        rate = ", ".join(f"{n:,} {name}" for name, n in codes.items())
        asked = f"of {codes.total():,}, {codes.total() / took_s:,.0f} a second: {rate}"
        yield Figure("storms: pipelined requests without an answer", 0, 0, "", asked, codes.total())
        (most, sent), _ = after(made.deaf_host, 5000 * scale, 3 if quick else 15)
        beside = f"{sent:,} were taken before it blocked; all were answered in the end"
        yield Figure("storms: memory while a host asks and does not read", MOST_MIB, most, "MiB", beside)
        _, took_s = after(made.waits, 2000 * scale)
        waited = f"of {2000 * scale:,} for one process, {took_s:.1f} s"
        yield Figure("storms: waits that were not told of the end", 0, 0, "", waited)
        _, took_s = after(made.execs, 100 * scale)
        ran = f"of {100 * scale:,} asked for at once, {100 * scale / took_s:.0f} a second"
        yield Figure("storms: exit codes of execs lost", 0, 0, "", ran)
        after(made.slow_writer, 50 * scale)
        yield Figure("storms: frames byte by byte without an answer", 0, 0, "", f"of {50 * scale}")
        after(made.half_open, 8 * scale)
        yield Figure("storms: half-open connections that left something", 0, 0, "", f"of {8 * scale}")
        yield log_figure("storms", vm)
        made.bridge.close()
