"""Whose request is whose, whatever the order of events."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from uvmd.client.remap import Remap


class SharedConnection(RuleBasedStateMachine):
    """Clients send with ids of their own choice, leave, and answers come in any order."""

    @initialize(first=st.integers(1, 2**62))
    def begin(self, first: int) -> None:
        self.remap = Remap(first)
        self.open: dict[int, tuple[int, int]] = {}
        self.given_out: set[int] = set()

    @rule(client=st.integers(0, 3), id_=st.integers(0, 5))
    def send(self, client: int, id_: int) -> None:
        upstream = self.remap.forward(client, id_)
        assert upstream not in self.given_out
        self.given_out.add(upstream)
        self.open[upstream] = (client, id_)

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        if self.given_out:
            upstream = data.draw(st.sampled_from(sorted(self.given_out)))
            assert self.remap.answer(upstream) == self.open.pop(upstream, None)

    @rule(stranger=st.integers(-(2**63), 0))
    def answer_nobody(self, stranger: int) -> None:
        assert self.remap.answer(stranger) is None

    @rule(client=st.integers(0, 3))
    def leave(self, client: int) -> None:
        theirs = [upstream for upstream, origin in self.open.items() if origin[0] == client]
        assert self.remap.drop(client) == len(theirs)
        for upstream in theirs:
            del self.open[upstream]

    @invariant()
    def counts_what_is_open(self) -> None:
        assert len(self.remap) == len(self.open)
        waiting = {client for client, _ in self.open.values()}
        assert {client for client in range(4) if self.remap.has_open(client)} == waiting


TestSharedConnection = SharedConnection.TestCase
