"""A second thread that reads from the monitor beside the loop's."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.live_monitor import Recorder
from uvmd.host.pools import Own
from uvmd.monitor import packets, wire
from uvmd.monitor.link import Link, MonitorError

WAIT_S = 10.0


class Seen(Recorder):
    """Notes the thread as well, and does what it is told to at a slot's end."""

    def __init__(self) -> None:
        super().__init__()
        self.at_exit: Callable[[int], object] = lambda slot: None

    def exited(self, slot: int, pid: int, status: int) -> None:
        self._add("exited", slot, threading.current_thread().name)
        self.at_exit(slot)


class Both:
    """A link with the loop's thread and one beside, which does what it keeps; a test plays the monitor."""

    def __init__(self) -> None:
        self.monitor, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.monitor.settimeout(WAIT_S)
        self.room = memoryview(bytearray(wire.ROOM_BYTES))
        self.events, self.own = Seen(), Own()
        self.failures: list[BaseException] = []
        self.link = Link(theirs, self.events)
        self.threads = {
            name: threading.Thread(target=target, name=name, daemon=True)
            for name, target in (("loop", self._loop), ("beside", self._beside))
        }
        for thread in self.threads.values():
            thread.start()
        self.settle()

    def settle(self) -> None:
        """Wait until both threads sleep."""
        until = time.monotonic() + WAIT_S
        tasks = [f"/proc/self/task/{thread.native_id}/wchan" for thread in self.threads.values()]
        while not all("poll" in _text(task) for task in tasks):
            assert time.monotonic() < until, [_text(task) for task in tasks]
            time.sleep(0.001)

    def tell(self, slot: int) -> None:
        packets.send(self.monitor, wire.encode(wire.EXITED, 0, slot, 1, 0))

    def answer(self, *fields: Any) -> int:
        """Take one question and answer it; return what was asked."""
        packet, _ = packets.receive(self.monitor, self.room)
        op, tag, _ = wire.decode(packet)
        packets.send(self.monitor, wire.encode(wire.REPLY, tag, *fields))
        return op

    def end(self) -> None:
        self.monitor.close()
        self.ended("loop")
        self.link.close()
        self.ended("beside")

    def ended(self, name: str) -> None:
        self.threads[name].join(WAIT_S)
        assert not self.threads[name].is_alive()

    def _loop(self) -> None:
        try:
            while True:
                self.link.poll(None)
        except BaseException as failure:
            self.failures.append(failure)

    def _beside(self) -> None:
        self.own.belong()
        try:
            while self.link.poll_beside():
                self.own.serve()
        except Panic:
            self.link._polling.end_beside()  # a process would end


class Panic(BaseException):
    """What nobody foresaw."""


def _text(path: str) -> str:
    with open(path) as file:
        return file.read()


@pytest.fixture
def both() -> Iterator[Both]:
    both = Both()
    yield both
    both.end()
    polling = both.link._polling
    assert (polling._first.closed, polling._second.closed, polling._sock.fileno()) == (True, True, -1)


def test_what_comes_while_both_wait_is_read_beside(both: Both) -> None:
    for slot in range(20):
        both.tell(slot)
        assert both.events.wait_for("exited", slot)[2] == "beside"
        both.settle()


def test_what_comes_while_the_one_beside_serves_is_read_by_the_loop(both: Both) -> None:
    serving, free = threading.Event(), threading.Event()

    def serve() -> None:
        serving.set()
        assert free.wait(WAIT_S)

    both.events.at_exit = lambda slot: slot == 1 and both.own.keep(serve)
    both.tell(1)
    assert serving.wait(WAIT_S)
    both.tell(2)
    assert both.events.wait_for("exited", 2)[2] == "loop"
    free.set()
    both.settle()
    both.tell(3)
    assert both.events.wait_for("exited", 3)[2] == "beside"


def test_everything_is_told_in_its_order_whoever_reads_it(both: Both) -> None:
    def serve() -> None:
        time.sleep(0.0002)

    both.events.at_exit = lambda slot: slot % 7 == 0 and both.own.keep(serve)
    for slot in range(5000):
        both.tell(slot)
        if slot % 100 == 0:
            time.sleep(0.001)
    both.events.wait_for("exited", 4999)
    told = both.events.all()
    assert [slot for _, slot, _ in told] == list(range(4999))
    assert {name for _, _, name in told} == {"beside", "loop"}


def test_a_burst_is_taken_to_its_end_though_the_one_beside_has_much_to_do(both: Both) -> None:
    free = threading.Event()

    def serve() -> None:
        assert free.wait(WAIT_S)

    both.events.at_exit = lambda slot: slot % 1000 == 0 and both.own.keep(serve)
    for number in range(10):
        both.settle()
        first = number * 1000
        for slot in range(first, first + 200):
            both.tell(slot)
        both.events.wait_for("exited", first + 199)
        free.set()
        both.settle()
        free.clear()


@pytest.mark.parametrize("when", ["dispatch", "serve"])
def test_the_one_beside_may_ask_the_monitor(both: Both, when: str) -> None:
    answers = []

    def ask() -> None:
        both.link.kill(7, 9)
        answers.append(threading.current_thread().name)

    both.events.at_exit = lambda slot: ask() if when == "dispatch" else both.own.keep(ask)
    both.tell(1)
    assert both.answer() == wire.KILL
    both.settle()
    assert answers == ["beside"]


def test_others_may_ask_whoever_reads(both: Both) -> None:
    def ask() -> None:
        for _ in range(50):
            both.link.kill(7, 9)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for _ in range(200):
        assert both.answer() == wire.KILL
    for thread in asking:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_an_event_that_fails_beside_ends_the_loop_as_one_of_its_own_would(both: Both) -> None:
    def fail(slot: int) -> None:
        raise Panic

    both.events.at_exit = fail
    both.tell(1)
    both.threads["loop"].join(WAIT_S)
    assert [type(failure) for failure in both.failures] == [Panic]


@pytest.mark.parametrize("packet", [b"\0", b"", wire.encode(wire.KILL, 0, 1, 2)], ids=["none", "end", "asks"])
def test_the_end_of_the_monitor_or_nonsense_from_it_ends_both(both: Both, packet: bytes) -> None:
    if packet:
        both.monitor.send(packet)
    else:
        both.monitor.shutdown(socket.SHUT_RDWR)
    both.ended("loop")
    assert [type(failure) for failure in both.failures] == [MonitorError]


def test_a_link_that_is_closed_lets_the_one_beside_go() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = Link(theirs, Seen())

    def read() -> None:
        while link.poll_beside():
            pass

    beside = threading.Thread(target=read, daemon=True)
    beside.start()
    with pytest.raises(MonitorError):
        # The loop has the turn until it waits; then both are gone.
        threading.Timer(0.05, ours.close).start()
        while True:
            link.poll(WAIT_S)
    link.close()
    beside.join(WAIT_S)
    assert not beside.is_alive()
