"""Connecting alone, and through a process that shares its connection."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator

import pytest

from unit.client.conftest import sockets_in
from unit.client.fakes import DialingDaemon, FakeDaemon, refusal
from uvmd.bridge.identifiers import Message
from uvmd.client import connector, share
from uvmd.client.address import Address
from uvmd.client.client import Client
from uvmd.client.connector import connect
from uvmd.client.errors import ConnectionLost, ConnectTimeout, RemoteError
from uvmd.client.listener import Listener
from uvmd.client.protocol import SHARE_PORTS
from uvmd.client.share import Sharer


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def sharer(address: Address, said: list[str]) -> Iterator[Sharer]:
    sharer = Sharer(Listener(address), said.append)
    thread = threading.Thread(target=sharer.run)
    thread.start()
    yield sharer
    sharer.stop()
    thread.join(10)
    assert sockets_in(address) == []


@pytest.fixture
def join(address: Address, sharer: Sharer, dialing: DialingDaemon) -> Iterator[Callable[[], Client]]:
    clients: list[Client] = []

    def joined() -> Client:
        clients.append(connect(address, timeout_s=10))
        return clients[-1]

    yield joined
    for client in clients:
        client.close()


def fake(dialing: DialingDaemon) -> FakeDaemon:
    assert dialing.connected.wait(10)
    assert dialing.daemon is not None
    return dialing.daemon


def test_alone_a_client_takes_the_next_connection_and_leaves_nothing(
    address: Address, dialing: DialingDaemon
) -> None:
    with connect(address, timeout_s=10) as client:
        client.start("c1")
        assert sockets_in(address) == ["b.sock.lock"]
    assert sockets_in(address) == []
    assert fake(dialing).bodies(Message.START)


def test_a_refused_negotiation_gives_the_address_back(address: Address) -> None:
    dialing = DialingDaemon(address.path, {Message.NEGOTIATE: lambda _: refusal(0x80004001, "no")})
    with pytest.raises(RemoteError, match="E_NOTIMPL"):
        connect(address, timeout_s=10)
    dialing.close()
    assert sockets_in(address) == []


def test_two_clients_share_one_connection(join: Callable[[], Client], dialing: DialingDaemon) -> None:
    first, second = join(), join()
    daemon = fake(dialing)
    daemon.answers[Message.GET_PROPERTIES] = lambda body: {
        "Properties": json.dumps({"id": body["ContainerId"]})
    }
    waits = [client.submit_wait("c", pid) for client, pid in ((first, 7), (second, 8))]
    assert first.properties("a", [])["id"] == "a"
    assert second.properties("b", [])["id"] == "b"
    daemon.exit(8, 2)
    daemon.exit(7, 1)
    assert [wait.result(10)["ExitCode"] for wait in waits] == [1, 2]
    # Only the sharing process negotiated, and told that it understands event frames.
    assert [body["UvmdEvents"] for body in daemon.bodies(Message.NEGOTIATE)] == [True]
    assert first.capabilities == second.capabilities != {}


def test_clients_get_ports_that_differ(join: Callable[[], Client], dialing: DialingDaemon) -> None:
    ports: list[int] = []
    for client in (join(), join()):
        for _ in range(4):
            with client.run_init("c1") as init:
                init.collect()
    for body in fake(dialing).bodies(Message.EXECUTE):
        ports += body["Settings"]["VsockStdioRelaySettings"].values()
    assert len(set(ports)) == len(ports) == 16


def test_notifications_reach_every_client_and_events_only_who_asked(
    address: Address, join: Callable[[], Client], dialing: DialingDaemon
) -> None:
    plain = join()
    with connect(address, timeout_s=10, events=True) as curious:
        fake(dialing).notify("c1", type_word=0x37F00101)
        fake(dialing).notify("c2")
        seen = [curious.notification(10), curious.notification(10), plain.notification(10)]
        assert [item.container_id for item in seen if item is not None] == ["c1", "c2", "c2"]


def test_a_client_that_leaves_takes_its_requests_along(
    join: Callable[[], Client], dialing: DialingDaemon
) -> None:
    first, second = join(), join()
    first.submit_wait("c", 7)
    second.start("c")
    first.close()
    second.start("c")
    fake(dialing).exit(7, 1)
    second.start("c")


def test_a_wait_survives_a_daemon_that_comes_back(
    address: Address, join: Callable[[], Client], dialing: DialingDaemon, said: list[str]
) -> None:
    client = join()
    pending = [client.submit_wait("c", pid) for pid in (7, 8)]
    client.start("c")
    first = fake(dialing)
    old = first.waits[7]
    first.close()
    again = DialingDaemon(address.path)
    try:
        client.start("after")
        daemon = fake(again)
        # The same daemon answers under the old id, a new one knows only what is repeated.
        daemon.answer(old, {"ExitCode": 1})
        daemon.exit(7, 9)
        daemon.exit(8, 2)
        assert [wait.result(10)["ExitCode"] for wait in pending] == [1, 2]
    finally:
        again.close()
    assert any("disconnected; 2 requests wait" in line for line in said)


def test_other_requests_fail_at_once_because_nobody_knows_what_became_of_them(
    join: Callable[[], Client], dialing: DialingDaemon
) -> None:
    client = join()
    daemon = fake(dialing)
    daemon.answers[Message.DELETE] = lambda _: None
    pending = client.submit(Message.DELETE, "c")
    client.start("c")
    daemon.close()
    with pytest.raises(RemoteError, match="was lost"):
        pending.result(10)


def test_a_client_that_comes_while_the_daemon_is_away_waits_for_it(
    address: Address, join: Callable[[], Client], dialing: DialingDaemon
) -> None:
    client = join()
    fake(dialing).close()
    pending = client.submit(Message.START, "c")
    again = DialingDaemon(address.path)
    try:
        assert pending.result(10)["Result"] == 0
    finally:
        again.close()


def test_a_daemon_that_stays_away_fails_what_waits_for_it(
    join: Callable[[], Client], dialing: DialingDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share, "AWAY_S", 0.01)
    waiting, idle = join(), join()
    pending = waiting.submit_wait("c", 7)
    waiting.start("c")
    fake(dialing).close()
    with pytest.raises(ConnectionLost):
        pending.result(10)
    assert idle.notification(0) is None


def test_a_client_waits_for_the_daemon_of_the_sharing_process(
    address: Address, sharer: Sharer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "PATIENCE_S", 0.0)
    waited: list[str] = []
    with pytest.raises(ConnectTimeout):
        connect(address, timeout_s=0, on_wait=waited.append)
    assert waited == [f"waiting for uvmd to connect to the `uvmctl host` at {address}"]


def test_an_unknown_request_is_the_daemons_to_refuse(
    join: Callable[[], Client], dialing: DialingDaemon
) -> None:
    client = join()
    fake(dialing).answers[0x10100E01] = lambda _: {"Result": -2147467263, "ErrorMessage": "no handler"}
    with pytest.raises(RemoteError, match="E_NOTIMPL"):
        client.request(0x10100E01, "c")


def test_a_demand_for_too_many_ports_is_cut(join: Callable[[], Client]) -> None:
    client = join()
    answer = client.connection.request(SHARE_PORTS, b'{"Count": 100000}', 10)
    assert len(answer["Ports"]) == 64
    assert len(client.connection.request(SHARE_PORTS, b"nonsense", 10)["Ports"]) == 1


def test_a_client_that_breaks_the_framing_is_dropped_alone(
    address: Address, join: Callable[[], Client]
) -> None:
    good, bad = join(), join()
    bad.connection._sock.sendall(bytes(16))
    assert bad.connection._sock.recv(1) == b""
    good.start("c")
