from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from unit.client.fakes import DialingDaemon, FakeDaemon
from uvmd.client.address import Address
from uvmd.client.client import Client
from uvmd.client.connection import Connection


@pytest.fixture
def address(tmp_path_factory: pytest.TempPathFactory) -> Address:
    # Short: a socket's path has 107 bytes.
    return Address(str(tmp_path_factory.mktemp("b") / "b.sock"))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    yield left, right
    left.close()
    right.close()


@pytest.fixture
def daemon(pair: tuple[socket.socket, socket.socket], address: Address) -> Iterator[FakeDaemon]:
    fake = FakeDaemon(pair[1], address.path)
    yield fake
    fake.close()


@pytest.fixture
def client(
    pair: tuple[socket.socket, socket.socket], daemon: FakeDaemon, address: Address
) -> Iterator[Client]:
    with Client(Connection(pair[0]), address, timeout_s=10) as connected:
        yield connected


@pytest.fixture
def dialing(address: Address) -> Iterator[DialingDaemon]:
    """A daemon that comes as soon as somebody listens at ``address``."""
    fake = DialingDaemon(address.path)
    yield fake
    fake.close()


def sockets_in(address: Address) -> list[str]:
    """The names left beside the address."""
    return sorted(entry.name for entry in Path(address.path).parent.iterdir())
