"""The daemon's end of the link, against a monitor played by the test."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.live_monitor import Recorder
from uvmd.monitor import packets, wire
from uvmd.monitor.conversation import Conversation
from uvmd.monitor.link import Completed, Link, MonitorError, SlotState


class Played:
    """The monitor's end: takes requests one by one, answers as told."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock = ours
        self.sock.settimeout(10)
        self.room = memoryview(bytearray(wire.ROOM_BYTES))
        self.events = Recorder()
        self.link = Link(theirs, self.events)

    def take(self) -> tuple[int, int, list[Any]]:
        """Return the next packet, large or not."""
        packet, fds = packets.receive(self.sock, self.room)
        op, tag, fields = wire.decode(packet)
        if op == wire.LARGE:
            op, tag, fields = wire.decode(packets.read_large(fds[0], fields[0]))
        packets.close_all(fds)
        return op, tag, fields

    def reply(self, tag: int, *fields: Any, fds: tuple[int, ...] = ()) -> None:
        packets.send(self.sock, wire.encode(wire.REPLY, tag, *fields), fds)

    def tell(self, op: int, *fields: Any) -> None:
        packets.send(self.sock, wire.encode(op, 0, *fields))

    def answering(self, *fields: Any, before: tuple[Any, ...] = ()) -> threading.Thread:
        """Answer one request in a thread; the request is in ``asked``."""

        def answer() -> None:
            self.asked = self.take()
            if before:
                self.tell(*before)
            self.reply(self.asked[1], *fields)

        thread = threading.Thread(target=answer)
        thread.start()
        return thread


@pytest.fixture
def played() -> Iterator[Played]:
    made = Played()
    yield made
    made.link.close()
    made.sock.close()


def test_hello_takes_more_slots_than_a_list_has_items(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = wire.encode_slot(12, 345, -9, True, False, b"ctr")
    with monkeypatch.context() as patch:
        patch.setattr(wire, "MAX_ITEMS", 1)
        packed = wire.encode_slots([state, state])
    thread = played.answering(2, 4, packed, b"", 12)
    assert [one.slot for one in played.link.hello().slots] == [12, 12]
    thread.join()


def test_hello_returns_what_the_monitor_has_kept(played: Played) -> None:
    gone = wire.encode_slot(12, 345, -9, True, False, b"ctr:\xff")
    items = [gone, wire.encode_slot(3, 0, None, False, True, b"", False, 77, True, 15)]
    thread = played.answering(1, 4, items, wire.encode_numbers([77, 78]), 12)
    state = played.link.hello()
    thread.join()
    assert (state.version, state.daemon_starts) == (1, 4)
    assert state.slots == (
        SlotState(12, 345, -9, True, False, "ctr:\udcff"),
        SlotState(3, 0, None, False, True, "", 77, True, 15),
    )
    assert state.requests == {77, 78}
    assert [played.link.new_slot(), played.link.new_slot()] == [13, 14]


def test_numbers_that_the_journal_names_are_skipped(played: Played) -> None:
    played.link.skip_slots(4)
    assert played.link.new_slot() == 5
    played.link.skip_slots(4)
    assert played.link.new_slot() == 6


def test_a_request_that_was_begun_goes_on_in_the_slots_that_it_had(played: Played) -> None:
    items = [wire.encode_slot(number, 0, None, False, False, b"", False, 77) for number in (4, 5)]
    thread = played.answering(1, 2, items, wire.encode_numbers([77]), 5)
    played.link.hello()
    thread.join()
    assert played.link.new_slot() == 6, "another request gets a new one"
    played.link.request_of = lambda: 77
    assert played.link.new_slot() == 4
    assert played.link.earlier_slots(77) == [5]
    assert played.link.earlier_slots(77) == []
    assert played.link.new_slot() == 7


def test_a_slot_may_be_released_while_another_thread_settles_a_request(played: Played) -> None:
    class Settling(list[int]):
        """While it is looked at, another thread has what is another request's."""

        def __contains__(self, slot: object) -> bool:
            played.link.earlier_slots(78)
            return False

    played.link._earlier = {77: Settling(), 78: [5]}
    played.link.release(4)
    assert played.take()[0::2] == (wire.RELEASE, [4])


def test_what_is_done_for_a_request_says_so_and_is_done_once(played: Played) -> None:
    thread = played.answering()
    played.link.kill(3, 15)
    thread.join()
    assert played.asked[2] == [3, 15, 0, b""]
    played.link.request_of = lambda: 77
    thread = played.answering()
    played.link.kill(3, 15)
    thread.join()
    assert played.asked[2] == [3, 15, 77, b"3 15"]


def test_what_is_known_of_a_request_comes_with_the_end_of_what_ran_for_it(played: Played) -> None:
    thread = played.answering([b"6 start", b"8 5"], [b"deleting", b"", b"n", b"v"])
    earlier = played.link.await_request(77)
    thread.join()
    assert earlier.done == {"start", "5"}
    assert earlier.notes == {"deleting": b"", "n": b"v"}


def test_a_call_from_the_polling_thread_receives_by_itself_and_keeps_events(played: Played) -> None:
    thread = played.answering(0, 0, b"out", 77, before=(wire.EXITED, 5, 6, 7))
    assert played.link.run(["x"], env={"A": "b"}, deadline_s=5) == Completed(0, False, b"out", 77)
    thread.join()
    assert played.events.all() == []
    assert played.link.poll(0)
    assert played.events.all() == [("exited", 5, 6, 7)]
    assert played.asked[2][:3] == [[b"x"], [b"A=b"], b"/"]


def test_calls_from_other_threads_are_answered_by_the_polling_thread(played: Played) -> None:
    results: dict[int, Completed] = {}

    def call(number: int) -> None:
        results[number] = played.link.run([str(number)], env={}, deadline_s=5)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    asked = [played.take() for _ in range(8)]
    for _, tag, fields in reversed(asked):
        played.reply(tag, int(fields[0][0]), 0, fields[0][0], 0)
    while len(results) < 8:
        played.link.poll(0.1)
    for thread in threads:
        thread.join()
    assert {number: result.output for number, result in results.items()} == {
        number: str(number).encode() for number in range(8)
    }


def test_every_event_reaches_its_method(played: Played) -> None:
    big = os.urandom(200_000)
    played.tell(wire.BRIDGE_UP, 1, 4)
    played.tell(wire.BRIDGE_FRAME, 1, 7, big)
    played.tell(wire.BRIDGE_AGAIN, 1, 8, 2, 4, b"again")
    played.tell(wire.BRIDGE_UNSENT, 9, 3, b"f")
    played.tell(wire.BRIDGE_DOWN, 1, b"gone")
    played.tell(wire.EXITED, 1, 2, -9)
    played.tell(wire.DRAINED, 1)
    played.tell(wire.STOP, b"SIGTERM")
    for _ in range(8):
        assert played.link.poll(1)
    assert played.events.all() == [
        ("up", 1, 4),
        ("frame", 1, big, 7),
        ("again", 1, b"again", 8, 2, 4),
        ("unsent", b"f", 9, 3),
        ("down", 1, "gone"),
        ("exited", 1, 2, -9),
        ("drained", 1),
        ("stop", "SIGTERM"),
    ]
    # The large one is acknowledged, so that the monitor knows what still waits.
    op, _, (size,) = played.take()
    assert op == wire.TAKEN
    assert size > 200_000


def test_events_wait_for_somebody_who_wants_them(played: Played) -> None:
    events, played.link.events = played.link.events, None
    played.tell(wire.DRAINED, 8)
    played.link.poll(1)
    assert played.events.all() == []
    played.link.events = events
    played.link.poll(0)
    assert played.events.all() == [("drained", 8)]


def test_poll_ends_after_its_time_or_when_woken(played: Played) -> None:
    assert not played.link.poll(0)
    before = time.monotonic()
    assert not played.link.poll(0.02)
    assert time.monotonic() - before >= 0.019
    threading.Timer(0.02, played.link.wake).start()
    assert played.link.poll(10)


@pytest.mark.parametrize(
    ("call", "code", "kind"),
    [
        (lambda link: link.kill(1, 9), errno.ESRCH, ProcessLookupError),
        (lambda link: link.kill(1, 9), errno.EPERM, MonitorError),
        (lambda link: link.resize(1, 2, 3), errno.ENOTTY, MonitorError),
        (lambda link: link.run(["x"], env={}, deadline_s=1), errno.ENOENT, MonitorError),
        (lambda link: link.dial(1, 1), errno.ECONNREFUSED, MonitorError),
        (lambda link: link.connect(1, (1, None, 3)), errno.ETIMEDOUT, MonitorError),
        (lambda link: link.open_slot(1), errno.EEXIST, MonitorError),
        (lambda link: link.open_bridge("x"), errno.EINVAL, MonitorError),
    ],
)
def test_errors_come_with_errno_and_text(played: Played, call: Any, code: int, kind: type[OSError]) -> None:
    def answer() -> None:
        _, tag, _ = played.take()
        packets.send(played.sock, wire.encode(wire.ERROR, tag, code, b"what happened"))

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(kind, match="what happened") as caught:
        call(played.link)
    thread.join()
    assert type(caught.value) is kind
    assert caught.value.errno == code


def test_dial_returns_a_descriptor_that_is_ours(played: Played) -> None:
    def answer() -> None:
        _, tag, fields = played.take()
        assert fields == [564, 2_000_000_000]
        with open("/dev/null") as null:
            played.reply(tag, fds=(null.fileno(),))

    thread = threading.Thread(target=answer)
    thread.start()
    fd = played.link.dial(564, 2)
    thread.join()
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_what_needs_no_answer_waits_for_none(played: Played) -> None:
    link = played.link
    link.send_frame(3, b"frame")
    link.send_frame(3, bytes(100_000))
    link.close_bridge(3)
    link.stop_redial(4)
    link.release(4)
    link.set_log("json", "debug")
    link.configure(max_inbound_bytes=5, drain_grace_s=1.5)
    link.configure()
    link.finish(2)
    assert [played.take()[0::2] for _ in range(9)] == [
        (wire.SEND_FRAME, [3, 0, 0, -1, b"frame"]),
        (wire.SEND_FRAME, [3, 0, 0, -1, bytes(100_000)]),
        (wire.CLOSE_BRIDGE, [3]),
        (wire.STOP_REDIAL, [4]),
        (wire.RELEASE, [4]),
        (wire.CONFIGURE, [b"json", b"debug", -1, -1]),
        (wire.CONFIGURE, [b"", b"", 5, 1_500_000_000]),
        (wire.CONFIGURE, [b"", b"", -1, -1]),
        (wire.FINISH, [2]),
    ]


def test_when_the_monitor_is_gone_everybody_is_told(played: Played) -> None:
    errors: list[BaseException] = []

    def call() -> None:
        try:
            played.link.run(["x"], env={}, deadline_s=30)
        except MonitorError as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in threads:
        played.take()
    played.sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(MonitorError, match="has ended"):
        played.link.poll(5)
    for thread in threads:
        thread.join()
    assert len(errors) == 3
    with pytest.raises(MonitorError):
        played.link.send_frame(1, b"x")
    with pytest.raises(MonitorError):
        played.link.kill(1, 9)


@pytest.mark.parametrize("packet", [b"\0", wire.encode(wire.KILL, 0, 1, 2), wire.encode(wire.LARGE, 0, 5)])
def test_nonsense_from_the_monitor_ends_the_link(played: Played, packet: bytes) -> None:
    played.sock.send(packet)
    with pytest.raises(MonitorError):
        played.link.poll(5)
    with pytest.raises(MonitorError):
        played.link.release(1)


def test_an_answer_that_nobody_waits_for_is_dropped_with_its_descriptors(played: Played) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with open("/dev/null") as null:
        played.reply(12345, 1, fds=(null.fileno(),))
    assert played.link.poll(5)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_answer_that_does_not_come_is_an_error_in_the_end() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    talk = Conversation(theirs, lambda op, fields: None)
    with pytest.raises(MonitorError) as caught:
        talk.ask(wire.HELLO, 1, timeout_s=0.02)
    assert caught.value.errno == errno.ETIMEDOUT
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"argv": ["x"] * 70_000}, errno.EMSGSIZE),
        ({"stdin": bytes(80 * 1024 * 1024)}, errno.EMSGSIZE),
        ({"slot": 1 << 64}, errno.EMSGSIZE),
        ({"fds": [0] * 33}, errno.EINVAL),
        ({"argv": ["\ud800"]}, errno.EILSEQ),
        ({"env": {"A": "\udfff"}}, errno.EILSEQ),
        ({"cwd": "\ud800"}, errno.EILSEQ),
    ],
)
def test_what_the_monitor_would_not_take_is_not_sent(
    played: Played, options: dict[str, Any], code: int
) -> None:
    with pytest.raises(MonitorError) as caught:
        played.link.run(**{"argv": ["x"], "env": {}, "deadline_s": 1, **options})
    assert caught.value.errno == code


def test_a_deadline_without_end_is_a_very_long_one(played: Played) -> None:
    thread = played.answering(0, 0, b"", 0)
    played.link.run(["x"], env={}, deadline_s=float("inf"))
    thread.join()


def test_a_question_is_noted_in_words_for_as_long_as_its_answer_takes(played: Played) -> None:
    noted: list[tuple[str, str]] = []

    @contextmanager
    def step(kind: str, what: str) -> Iterator[None]:
        noted.append((kind, what))
        yield
        noted.append(("answered", what))

    played.link.note_steps(step)
    thread = played.answering(0, 0, b"", 0)
    played.link.run(["/bin/true"], env={}, deadline_s=5)
    thread.join()
    assert noted == [("monitor", "run"), ("answered", "run")]
    assert set(wire.WORDS) <= set(wire.SHAPES)
