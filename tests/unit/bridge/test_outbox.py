from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.bridge import outbox as room
from uvmd.bridge.frames import Frame
from uvmd.bridge.identifiers import CONTAINER_NOTIFICATION, Message, response_type
from uvmd.bridge.outbox import Outbox, Parcel

WAITED, STARTED = response_type(Message.WAIT), response_type(Message.START)
NEGOTIATED = response_type(Message.NEGOTIATE)


def frame(id_: int, type_: int = WAITED) -> bytes:
    return Frame(type_, id_, b"{}").encode()


class Line:
    """The monitor's end: what was sent on which connection."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []
        self.broken = False
        self.held: list[Parcel] = []
        self.forgotten: list[int] = []
        self.outbox = Outbox(self)

    def send_frame(
        self, generation: int, frame: bytes, request: int = 0, slot: int = 0, state: int = -1
    ) -> None:
        if self.broken:
            raise BrokenPipeError(32, "the monitor is gone")
        if generation:
            self.sent.append((generation, frame))
        else:
            self.held.append(Parcel(frame, request, slot, state))

    def forget_request(self, request: int) -> None:
        self.forgotten.append(request)

    def lose(self) -> None:
        """Break the connection as the monitor does: what was not written comes back, then the end.

        Frames that are sent between the two go to a dead connection and come back after it.
        """
        self._bounce()
        self.outbox.disconnected()
        self._bounce()

    def _bounce(self) -> None:
        unsent, self.sent = self.sent, []
        for _, frame in unsent:
            self.outbox.returned(Parcel(frame))


def test_nothing_is_sent_before_negotiate_was_answered() -> None:
    line = Line()
    line.outbox.put(Parcel(frame(1)))
    line.outbox.connected(7)
    line.outbox.put(Parcel(frame(2)), 6)
    line.outbox.put(Parcel(frame(0, CONTAINER_NOTIFICATION)))
    assert line.sent == []
    line.outbox.release(7)
    assert line.sent == [(7, frame(1)), (7, frame(2)), (7, frame(0, CONTAINER_NOTIFICATION))]


def test_what_the_connection_itself_asked_is_answered_at_once() -> None:
    line = Line()
    line.outbox.connected(7)
    line.outbox.put(Parcel(frame(1, STARTED)), 7)
    assert line.sent == [(7, frame(1, STARTED))]


def test_after_release_everything_goes_out() -> None:
    line = Line()
    line.outbox.connected(7)
    line.outbox.release(7)
    line.outbox.put(Parcel(frame(1)), 3)
    line.outbox.put(Parcel(frame(0, CONTAINER_NOTIFICATION)))
    assert [generation for generation, _ in line.sent] == [7, 7]


def test_the_release_of_a_lost_connection_releases_nothing() -> None:
    line = Line()
    line.outbox.put(Parcel(frame(1)))
    line.outbox.connected(8)
    line.outbox.release(7)
    assert line.sent == []


def test_unsent_frames_come_before_later_ones_and_in_order() -> None:
    line = Line()
    line.outbox.connected(1)
    line.outbox.release(1)
    for id_ in (1, 2, 3):
        line.outbox.put(Parcel(frame(id_)), 1)
    line.sent.clear()
    line.outbox.returned(Parcel(frame(2)))
    line.outbox.returned(Parcel(frame(3)))
    line.outbox.disconnected()
    line.outbox.put(Parcel(frame(4)), 1)
    line.outbox.connected(2)
    line.outbox.release(2)
    assert [sent for _, sent in line.sent][-3:] == [frame(2), frame(3), frame(4)]


def test_a_frame_that_comes_back_late_still_goes_before_newer_ones() -> None:
    line = Line()
    line.outbox.returned(Parcel(frame(1)))
    line.outbox.put(Parcel(frame(3)))
    line.outbox.returned(Parcel(frame(2)))
    line.outbox.connected(2)
    line.outbox.release(2)
    assert [sent for _, sent in line.sent] == [frame(1), frame(2), frame(3)]


def test_an_answer_to_negotiate_never_reaches_another_connection() -> None:
    line = Line()
    line.outbox.returned(Parcel(frame(0, NEGOTIATED)))
    line.outbox.put(Parcel(frame(0, NEGOTIATED)), 1)
    assert line.outbox.kept == 0


def test_what_is_kept_is_kept_by_the_monitor_too() -> None:
    line = Line()
    line.outbox.put(Parcel(frame(1), 11))
    line.outbox.put(Parcel(frame(0, CONTAINER_NOTIFICATION), slot=4))
    assert line.held == [Parcel(frame(1), 11), Parcel(frame(0, CONTAINER_NOTIFICATION), slot=4)]


def test_the_monitor_need_not_keep_a_request_whose_answer_goes_nowhere() -> None:
    line = Line()
    line.outbox.returned(Parcel(frame(0, NEGOTIATED), 5))
    line.outbox.put(Parcel(frame(0, NEGOTIATED), 6), 1)
    assert line.forgotten == [5, 6]


def test_a_connection_that_is_negotiated_already_gets_everything_at_once() -> None:
    line = Line()
    line.outbox.put(Parcel(frame(1)))
    line.outbox.connected(3, negotiated=True)
    line.outbox.put(Parcel(frame(2)))
    assert line.sent == [(3, frame(1)), (3, frame(2))]


def test_a_monitor_that_is_gone_loses_no_frame() -> None:
    line = Line()
    line.outbox.connected(1)
    line.outbox.release(1)
    line.broken = True
    line.outbox.put(Parcel(frame(1)), 1)
    assert line.outbox.kept == 1


def test_too_much_waiting_drops_answers_but_no_wait_and_no_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_KEPT_BYTES", 5 * len(frame(0)))
    line = Line()
    line.outbox.returned(Parcel(frame(9, STARTED)))
    kept = [frame(1), frame(0, CONTAINER_NOTIFICATION), frame(2)]
    for one in [*kept[:2], frame(8, STARTED), kept[2], frame(7, STARTED)]:
        line.outbox.put(Parcel(one))
    for id_ in range(10, 14):
        line.outbox.put(Parcel(frame(id_)))
    line.outbox.connected(1)
    line.outbox.release(1)
    assert [sent for _, sent in line.sent] == [*kept, *(frame(id_) for id_ in range(10, 14))]


@given(st.lists(st.sampled_from(["put", "up", "release", "down", "lose"]), max_size=40))
def test_no_frame_is_lost_or_sent_twice_whatever_connections_do(events: list[str]) -> None:
    line, generation, next_id = Line(), 0, 0
    delivered: list[bytes] = []
    for event in [*events, "down", "up", "release"]:
        if event == "put":
            next_id += 1
            line.outbox.put(Parcel(frame(next_id)), 0)
        elif event == "up":
            generation += 1
            line.outbox.connected(generation)
        elif event == "release":
            line.outbox.release(generation)
        elif event == "down":
            line.outbox.disconnected()
            delivered += [sent for _, sent in line.sent]
            line.sent.clear()
        elif event == "lose":
            line.lose()
    delivered += [sent for _, sent in line.sent]
    assert sorted(delivered) == sorted(frame(id_) for id_ in range(1, next_id + 1))
