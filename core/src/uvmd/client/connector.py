"""Getting to a daemon: through a running ``uvmctl host``, else by listening for it."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Callable

from uvmd.client.address import Address, default_address
from uvmd.client.client import Client
from uvmd.client.connection import DEFAULT_TIMEOUT_S, Connection
from uvmd.client.errors import BadResponse, ConnectTimeout
from uvmd.client.listener import PATIENCE_S, Listener
from uvmd.client.protocol import SHARE_PORTS

OnWait = Callable[[str], None]
_PORTS_AT_ONCE = 6


def connect(
    address: Address | None = None,
    *,
    timeout_s: float = 60.0,
    request_timeout_s: float = DEFAULT_TIMEOUT_S,
    on_wait: OnWait | None = None,
    events: bool = False,
) -> Client:
    """Return a negotiated client, shared or own; closing it gives everything back.

    Args:
        address: where; by default ``UVMD_HOST``, else unix:/run/uvmd/host.sock.
        timeout_s: for the daemon (and, before it, for other commands' turns) to come.
        request_timeout_s: for each later request but waits.
        on_wait: called with a sentence when it takes longer than a second.
        events: ask for uvmd's own event frames.

    Raises:
        ConnectTimeout: the daemon did not connect.
        AddressError: the address cannot be used.
        RemoteError, ConnectionLost: it connected and would not negotiate.
    """
    address = address or default_address()
    sock = _join(address)
    if sock is not None:
        return _shared(sock, address, timeout_s, request_timeout_s, on_wait, events)
    listener = Listener(address, timeout_s=timeout_s, on_wait=on_wait)
    try:
        connection = Connection(listener.accept(timeout_s))
        # Only the lock is kept: the next in turn sees that we are at work.
        listener.stop_listening()
        client = Client(connection, address, timeout_s=request_timeout_s)
        client.on_close(listener.close)
    except BaseException:
        listener.close()
        raise
    return _negotiated(client, events)


def _join(address: Address) -> socket.socket | None:
    """Connect to a ``uvmctl host`` at this address; None when there is none."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.connect(address.control_path)
    except OSError:
        sock.close()
        return None
    return sock


def _shared(
    sock: socket.socket,
    address: Address,
    timeout_s: float,
    request_timeout_s: float,
    on_wait: OnWait | None,
    events: bool,
) -> Client:
    connection = Connection(sock)
    ports = _SharedPorts(connection)
    client = Client(connection, address, next_port=ports.next, timeout_s=request_timeout_s)
    try:
        # Answered once the daemon is there; until then the host does not read us.
        probe = connection.submit(SHARE_PORTS, json.dumps({"Count": _PORTS_AT_ONCE}).encode())
        if not probe.wait(min(PATIENCE_S, timeout_s)):
            text = f"waiting for uvmd to connect to the `uvmctl host` at {address}"
            if on_wait is not None:
                on_wait(text)
            if not probe.wait(timeout_s - min(PATIENCE_S, timeout_s)):
                raise ConnectTimeout(f"{text}: nothing came in {timeout_s:g} s")
        ports.take(probe.result())
    except BaseException:
        client.close()
        raise
    return _negotiated(client, events)


def _negotiated(client: Client, events: bool) -> Client:
    try:
        client.negotiate(events=events)
    except BaseException:
        client.close()
        raise
    return client


class _SharedPorts:
    """Port numbers from the process that shares its connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ports: deque[int] = deque()
        self._lock = threading.Lock()

    def take(self, answer: dict[str, object]) -> None:
        """Add the ports of an answer."""
        ports = answer.get("Ports")
        if not isinstance(ports, list) or not all(isinstance(port, int) for port in ports):
            raise BadResponse("the sharing process answered without port numbers")
        self._ports.extend(ports)

    def next(self) -> int:
        """Return a port that nobody else has."""
        with self._lock:
            if not self._ports:
                body = json.dumps({"Count": _PORTS_AT_ONCE}).encode()
                self.take(self._connection.request(SHARE_PORTS, body))
            return self._ports.popleft()
