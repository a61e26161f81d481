"""Turns on one address, and accepting the daemon."""

from __future__ import annotations

import os
import socket

import pytest

from unit.client.conftest import sockets_in
from uvmd.client import listener as listener_module
from uvmd.client.address import Address
from uvmd.client.errors import AddressError, ConnectTimeout
from uvmd.client.listener import Listener


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "PATIENCE_S", 0.0)


def dial(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return sock


def test_the_daemon_is_accepted_and_nothing_stays(address: Address) -> None:
    with Listener(address) as listener, dial(address.path), listener.accept(10):
        pass
    assert sockets_in(address) == []


def test_a_long_wait_is_announced_with_the_command_that_ends_it(address: Address) -> None:
    said: list[str] = []
    with Listener(address, on_wait=said.append) as listener:
        with pytest.raises(ConnectTimeout):
            listener.accept(0)
    assert said == [
        f"waiting for uvmd to connect to unix:{address.path} "
        f"(start it with: uvmd serve --transport unix:{address.path})"
    ]


def test_the_second_in_turn_is_told_who_works(address: Address) -> None:
    with Listener(address):
        with pytest.raises(ConnectTimeout, match=f"process {os.getpid()}.*uvmctl host"):
            Listener(address, timeout_s=0)
    Listener(address, timeout_s=0).close()


def test_the_turn_is_kept_when_listening_ends(address: Address) -> None:
    with Listener(address) as listener:
        listener.stop_listening()
        assert sockets_in(address) == ["b.sock.lock"]
        with pytest.raises(ConnectTimeout):
            Listener(address, timeout_s=0)
        with pytest.raises(AddressError):
            listener.accept(0)
    assert sockets_in(address) == []


def test_the_socket_of_a_killed_command_is_replaced(address: Address) -> None:
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(address.path)
    with Listener(address) as listener, dial(address.path), listener.accept(10):
        pass


def test_a_file_in_the_way_is_left_alone(address: Address) -> None:
    with open(address.path, "w", encoding="ascii") as file:
        file.write("precious")
    with pytest.raises(AddressError):
        Listener(address)
    assert sockets_in(address) == ["b.sock"]


def test_another_programs_listener_is_left_alone(address: Address) -> None:
    listening = address.listen()
    with pytest.raises(AddressError, match="another program"):
        Listener(address)
    listening.close()
