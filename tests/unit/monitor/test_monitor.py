"""The monitor's own command line; all else of it is in the tests of the live monitor."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from uvmd.monitor import monitor, wire


@pytest.mark.parametrize("argv", [[], ["--"]])
def test_without_a_daemon_it_says_how_it_is_used(monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    said: list[bytes] = []
    monkeypatch.setattr(sys, "argv", ["monitor", *argv])
    monkeypatch.setattr(os, "write", lambda fd, text: said.append(text))
    assert monitor.main() == 2
    assert said[0].startswith(b"usage:")


def test_a_daemon_is_greeted_with_more_slots_than_a_list_has_items(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slot:
        def __init__(self, number: int) -> None:
            self.number = number

        def state(self) -> bytes:
            return wire.encode_slot(self.number, 0, 3, True, False, b"a container")

    class Channel:
        greeted = False
        sent: bytes = b""

        def send(self, op: int, tag: int, *fields: Any) -> None:
            self.sent = wire.encode(op, tag, *fields)

    made, channel = monitor.Monitor([b"nobody"]), Channel()
    monkeypatch.setattr(wire, "MAX_ITEMS", 100)
    for count in (100, 101):
        made._table.slots = {number: Slot(number) for number in range(count)}  # type: ignore[misc]
        made._greet(channel, 7, wire.VERSION)  # type: ignore[arg-type]
        _, _, (version, _, states, _, _) = wire.decode(channel.sent)
        assert version == wire.VERSION
        assert [wire.decode_slot(state)[0] for state in wire.decode_slots(states)] == list(range(count))
        # What an earlier release understands, as long as it can be said so.
        assert isinstance(states, list) == (count == 100)
    scratch = made._tools.scratch
    for fd in (made._spawner.devnull, scratch.read_end, scratch.write_end, scratch._sink):
        os.close(fd)
