"""Event frames go to a host that asked, on the connection on which it asked, and nowhere else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.fake_host import FakeHost
from support.peer import Peer
from uvmd.bridge.events import OUT_OF_MEMORY, event_frame
from uvmd.bridge.frames import split
from uvmd.bridge.identifiers import CONTAINER_NOTIFICATION, EVENT, NOTIFICATION, Message, kind


def asking(fake: FakeHost | None = None) -> Peer:
    peer = Peer(fake or FakeHost()).connect(negotiate=False)
    assert ask(peer)["Result"] == 0
    return peer


def ask(peer: Peer, **fields: Any) -> dict[str, Any]:
    return peer.ask(
        Message.NEGOTIATE,
        container_id="",
        MinimumVersion=4,
        MaximumVersion=4,
        **{"UvmdEvents": True, **fields},
    )


def events(peer: Peer) -> list[dict[str, Any]]:
    return [json.loads(frame.body) for _, frame in peer.sent if frame.type == EVENT]


def test_the_type_word_is_a_notification_and_none_of_the_protocols() -> None:
    assert kind(EVENT) == NOTIFICATION
    assert EVENT & 0x0FF0_0000 != CONTAINER_NOTIFICATION & 0x0FF0_0000


def test_a_host_that_asked_is_told() -> None:
    peer = asking()
    assert peer.bridge.wants_events
    peer.bridge.tell(OUT_OF_MEMORY, "c", {"Kills": 1, "LimitBytes": None})
    assert events(peer) == [{"ContainerId": "c", "Type": "OutOfMemory", "Kills": 1}]


def test_a_host_that_did_not_ask_is_not_told(host: Peer) -> None:
    host.bridge.tell("Created", "c", {})
    assert not host.bridge.wants_events
    assert events(host) == []


@pytest.mark.parametrize("value", [False, None])
def test_only_true_asks(value: bool | None) -> None:
    peer = Peer(FakeHost()).connect(negotiate=False)
    assert ask(peer, UvmdEvents=value)["Result"] == 0
    assert not peer.bridge.wants_events


def test_another_type_is_refused_like_any_field() -> None:
    peer = Peer(FakeHost()).connect(negotiate=False)
    assert ask(peer, UvmdEvents="yes")["ErrorMessage"].startswith("body.UvmdEvents")


def test_a_later_connection_that_did_not_ask_gets_nothing_of_the_earlier_ones() -> None:
    peer = asking()
    lost = event_frame("Created", "c", {})
    peer.disconnect()
    peer.bridge.tell("Started", "c", {})
    peer.bridge.bridge_unsent(0, 0, lost)
    peer.connect()
    peer.bridge.tell("Exited", "c", {})
    assert events(peer) == []


def test_between_two_connections_nothing_is_kept() -> None:
    peer = asking()
    peer.disconnect()
    peer.bridge.tell("Started", "c", {})
    peer.connect(negotiate=False)
    ask(peer)
    assert events(peer) == []


def test_a_vm_under_a_policy_tells_no_figures() -> None:
    fake = FakeHost()
    peer = asking(fake)
    fake.strict = True
    peer.bridge.tell(OUT_OF_MEMORY, "c", {"Kills": 1, "UsageBytes": 7})
    assert events(peer) == [{"ContainerId": "c", "Type": "OutOfMemory"}]


def test_an_event_carries_no_id() -> None:
    assert split(event_frame("Created", "c", {"Time": 1.5})).id == 0
