"""Ids, threads that wait at the same time, and how a connection ends."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.bridge.frames import Decoder, Frame
from uvmd.bridge.identifiers import CONTAINER_NOTIFICATION, Message, response_type
from uvmd.client.connection import Connection, parse_object, random_id_base
from uvmd.client.errors import BadResponse, ConnectionLost, ResponseTimeout

Pair = tuple[socket.socket, socket.socket]


def received(sock: socket.socket, count: int) -> list[Frame]:
    """The next frames that a client sent."""
    decoder, frames = Decoder(), list[Frame]()
    while len(frames) < count:
        decoder.feed(sock.recv(65536))
        while (frame := decoder.next_frame()) is not None:
            frames.append(frame)
    return frames


def answer(request: Frame, **fields: object) -> bytes:
    body = json.dumps({"Result": 0, **fields}).encode()
    return Frame(response_type(request.type), request.id, body).encode()


def test_ids_begin_anywhere_and_count_up(pair: Pair) -> None:
    with socket.socket(socket.AF_UNIX):
        connection = Connection(pair[0])
        first, second = connection.submit(Message.START, b"{}"), connection.submit(Message.START, b"{}")
        assert second.id == first.id + 1
        assert [frame.id for frame in received(pair[1], 2)] == [first.id, second.id]
        connection.close()


def test_an_id_base_is_positive_and_leaves_room_in_a_signed_number() -> None:
    bases = {random_id_base() for _ in range(200)}
    assert len(bases) == 200
    assert all(0 < base <= 1 << 62 for base in bases)


@given(order=st.permutations(range(6)), strangers=st.lists(st.integers(0, 2**63 - 1), max_size=4))
def test_every_request_gets_its_own_answer_in_any_order(order: list[int], strangers: list[int]) -> None:
    left, right = socket.socketpair()
    with right:
        connection = Connection(left, first_id=5)
        pending = [connection.submit(Message.START, b"{}") for _ in order]
        requests = received(right, len(order))
        for stranger in strangers:
            if not 5 <= stranger < 5 + len(order):
                right.sendall(answer(Frame(Message.START, stranger, b""), Number=-1))
        for index in order:
            right.sendall(answer(requests[index], Number=index))
        assert [item.result(10)["Number"] for item in pending] == list(range(len(order)))
        connection.close()


def test_threads_that_wait_together_all_get_their_answers(pair: Pair) -> None:
    connection = Connection(pair[0])
    results: dict[int, int] = {}

    def ask(number: int) -> None:
        results[number] = connection.request(Message.START, b"%d" % number, 10)["Number"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for request in reversed(received(pair[1], 8)):
        pair[1].sendall(answer(request, Number=int(request.body)))
    for thread in threads:
        thread.join(10)
    assert results == {number: number for number in range(8)}
    connection.close()


def test_the_reader_passes_its_task_on_when_its_own_answer_came(pair: Pair) -> None:
    connection = Connection(pair[0])
    late = connection.submit(Message.WAIT, b"{}")
    bodies: list[bytes] = []
    waiter = threading.Thread(target=lambda: bodies.append(late.raw(10)))
    waiter.start()
    # The waiter reads; these requests follow it, or read in its stead.
    requests = received(pair[1], 1)
    for number in range(3):
        pending = connection.submit(Message.START, b"{}")
        (request,) = received(pair[1], 1)
        pair[1].sendall(answer(request, Number=number))
        assert pending.result(10)["Number"] == number
    pair[1].sendall(answer(requests[0]))
    waiter.join(10)
    assert len(bodies) == 1
    connection.close()


def test_no_answer_in_time_is_a_timeout_and_the_late_one_is_ignored(pair: Pair) -> None:
    connection = Connection(pair[0])
    with pytest.raises(ResponseTimeout):
        connection.request(Message.START, b"{}", 0)
    (request,) = received(pair[1], 1)
    pair[1].sendall(answer(request))
    pending = connection.submit(Message.START, b"{}")
    (request,) = received(pair[1], 1)
    pair[1].sendall(answer(request, Number=2))
    assert pending.result(10)["Number"] == 2
    connection.close()


def test_the_end_of_the_connection_fails_what_is_outstanding(pair: Pair) -> None:
    connection = Connection(pair[0])
    pending = connection.submit(Message.START, b"{}")
    pair[1].close()
    with pytest.raises(ConnectionLost):
        pending.result(10)
    with pytest.raises(ConnectionLost):
        connection.submit(Message.START, b"{}")
    with pytest.raises(ConnectionLost):
        connection.notification(10)
    connection.close()


def test_an_answer_that_came_before_the_end_is_still_delivered(pair: Pair) -> None:
    connection = Connection(pair[0])
    pending = connection.submit(Message.START, b"{}")
    (request,) = received(pair[1], 1)
    pair[1].sendall(answer(request, Number=1))
    pair[1].close()
    assert pending.result(10)["Number"] == 1
    connection.close()


def test_closing_wakes_a_thread_that_waits(pair: Pair) -> None:
    connection = Connection(pair[0])
    pending = connection.submit(Message.WAIT, b"{}")
    lost: list[BaseException] = []
    reading = threading.Event()

    def wait() -> None:
        reading.set()
        try:
            pending.raw(None)
        except ConnectionLost as error:
            lost.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    reading.wait(10)
    connection.close()
    thread.join(10)
    assert len(lost) == 1


def test_broken_framing_ends_the_connection(pair: Pair) -> None:
    connection = Connection(pair[0])
    pending = connection.submit(Message.START, b"{}")
    pair[1].sendall(bytes(16))
    with pytest.raises(ConnectionLost, match="framing"):
        pending.result(10)
    connection.close()


def test_an_answer_of_another_type_is_refused(pair: Pair) -> None:
    connection = Connection(pair[0])
    pending = connection.submit(Message.START, b"{}")
    (request,) = received(pair[1], 1)
    pair[1].sendall(Frame(response_type(Message.DELETE), request.id, b"{}").encode())
    with pytest.raises(BadResponse):
        pending.result(10)
    connection.close()


def test_notifications_wait_while_requests_are_answered(pair: Pair) -> None:
    connection = Connection(pair[0])
    pending = connection.submit(Message.START, b"{}")
    (request,) = received(pair[1], 1)
    pair[1].sendall(Frame(CONTAINER_NOTIFICATION, 0, b'{"Type":"ForcedExit"}').encode() + answer(request))
    pending.result(10)
    assert connection.notification(0) == (CONTAINER_NOTIFICATION, b'{"Type":"ForcedExit"}')
    connection.close()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff"])
def test_a_body_that_is_no_object_is_a_bad_response(body: bytes) -> None:
    with pytest.raises(BadResponse):
        parse_object(body)
