"""Whose request is whose, whatever the order of events."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from uvmd.bridge.identifiers import Message
from uvmd.client.remap import Remap


class SharedConnection(RuleBasedStateMachine):
    """Clients send with ids of their own choice, leave, and answers come in any order."""

    @initialize(first=st.integers(1, 2**62))
    def begin(self, first: int) -> None:
        self.remap = Remap(first)
        # What is open: the ids on the shared connection, and who asked.
        self.open: list[tuple[set[int], int, int]] = []
        self.given_out: set[int] = set()

    def give_out(self, upstream: int) -> None:
        assert upstream not in self.given_out
        self.given_out.add(upstream)

    @rule(client=st.integers(0, 3), id_=st.integers(0, 5))
    def send(self, client: int, id_: int) -> None:
        upstream = self.remap.forward(client, id_)
        self.give_out(upstream)
        self.open.append(({upstream}, client, id_))

    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        requests = self.remap.open_requests()
        assert [(set(item.upstream), item.client, item.id) for item in requests] == self.open
        if requests:
            index = data.draw(st.integers(0, len(requests) - 1))
            upstream = self.remap.again(requests[index])
            self.give_out(upstream)
            self.open[index][0].add(upstream)

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        if self.given_out:
            upstream = data.draw(st.sampled_from(sorted(self.given_out)))
            answered = self.remap.answer(upstream)
            expected = next((item for item in self.open if upstream in item[0]), None)
            if expected is None:
                assert answered is None
            else:
                assert answered is not None
                assert (answered.client, answered.id) == expected[1:]
                self.open.remove(expected)

    @rule(stranger=st.integers(-(2**63), 0))
    def answer_nobody(self, stranger: int) -> None:
        assert self.remap.answer(stranger) is None

    @rule(client=st.integers(0, 3))
    def leave(self, client: int) -> None:
        theirs = [item for item in self.open if item[1] == client]
        assert self.remap.drop(client) == len(theirs)
        self.open = [item for item in self.open if item[1] != client]

    @invariant()
    def knows_what_is_open(self) -> None:
        assert len(self.remap) == len(self.open)
        waiting = {client for _, client, _ in self.open}
        assert {client for client in range(4) if self.remap.has_open(client)} == waiting


TestSharedConnection = SharedConnection.TestCase


def test_a_lost_connection_keeps_waits_and_what_was_never_sent() -> None:
    remap = Remap(1)
    sent, unsent, wait = (
        remap.forward(7, 1, Message.DELETE),
        remap.forward(7, 2, Message.DELETE),
        remap.forward(7, 3, Message.WAIT, b"body"),
    )
    assert [request.id for request in remap.lose([unsent])] == [1]
    assert remap.answer(sent) is None
    ((again, request),) = remap.repeat([unsent])
    assert (request.id, request.body) == (3, b"body")
    assert remap.answer(wait) is request
    assert remap.answer(again) is None
    assert [request.id for request in remap.open_requests()] == [2]


def test_a_wait_that_was_never_sent_is_not_repeated() -> None:
    remap = Remap(1)
    wait = remap.forward(7, 3, Message.WAIT)
    assert remap.lose([wait]) == []
    assert remap.repeat([wait]) == []
