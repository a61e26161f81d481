from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from unit.client.fakes import FakeDaemon
from uvmd.cli.ctl import foreground
from uvmd.cli.ctl.app import uvmctl
from uvmd.cli.ctl.settings import Settings
from uvmd.client import Address, Client
from uvmd.client.connection import Connection

Invoke = Callable[..., Result]


@pytest.fixture
def address(tmp_path_factory: pytest.TempPathFactory) -> Address:
    return Address(str(tmp_path_factory.mktemp("b") / "b.sock"))


@pytest.fixture
def daemon(address: Address, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    """A daemon that every verb finds connected, without an address to listen on."""
    ours, theirs = socket.socketpair()
    fake = FakeDaemon(theirs, address.path)

    def connect(settings: Settings, *, events: bool = False) -> Client:
        client = Client(Connection(ours), address, timeout_s=10)
        client.negotiate(events=events)
        return client

    monkeypatch.setattr(Settings, "connect", connect)
    yield fake
    fake.close()
    ours.close()


@pytest.fixture
def invoke() -> Invoke:
    """Run uvmctl with arguments."""

    def run(*args: str, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(uvmctl, list(args), input=stdin, prog_name="uvmctl")

    return run


@pytest.fixture
def stdin_pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Replaces descriptor 0 in the foreground module; the returned end is for writing."""
    read, write = os.pipe()
    monkeypatch.setattr(foreground, "_STDIN", read)
    yield write
    for descriptor in (read, write):
        try:
            os.close(descriptor)
        except OSError:
            pass
