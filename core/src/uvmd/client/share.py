"""Holding the daemon's connection and letting other processes use it.

A client connects to the control socket and speaks the bridge's own frames, as if this were
the daemon: Negotiate is answered from what the daemon told us, ids are exchanged on the
way, notifications go to everybody. Streams do not pass here: a client listens for them
itself, on ports that it gets from us so that no two clients use the same.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from uvmd.bridge.frames import Frame, split
from uvmd.bridge.hresult import HResult
from uvmd.bridge.identifiers import (
    CONTAINER_NOTIFICATION,
    NOTIFICATION,
    RESPONSE,
    Message,
    kind,
    response_type,
)
from uvmd.client.address import listen_for_clients, unlink_quietly
from uvmd.client.connection import random_id_base
from uvmd.client.errors import BadResponse
from uvmd.client.listener import Listener
from uvmd.client.peer import Peer
from uvmd.client.ports import random_ports
from uvmd.client.protocol import NULL_ID, SHARE_PORTS, lenient_object, name_of_message
from uvmd.client.remap import Remap
from uvmd.errors import ProtocolError

#: A client that lets this much pile up is dropped.
MAX_CLIENT_BACKLOG = 8 << 20
#: While this much waits for the daemon, clients are not read.
MAX_BRIDGE_BACKLOG = 4 << 20
MAX_PORTS = 64
#: How long a daemon may be away before clients with open requests are told; a restart of
#: the daemon under its monitor takes well under a second.
AWAY_S = 10.0
_CREDENTIALS = struct.Struct("3i")
_OUR_CLIENT = 0

_LOST = "the connection to the daemon was lost; this may have been done or not"

Log = Callable[[str], None]


class Sharer:
    """Accepts the daemon on one side and clients on the other, until :meth:`stop`.

    Args:
        listener: where the daemon connects; owned from here on.
        log: takes one line about what happens.
    """

    def __init__(self, listener: Listener, log: Log) -> None:
        self._listener = listener
        self._log = log
        self._remap = Remap(random_id_base())
        self._next_port = random_ports()
        self._clients: dict[int, Peer] = {}
        self._wants_events: set[int] = set()
        self._bridge: Peer | None = None
        # What Negotiate answered on this connection; until then clients are not read.
        self._welcome: dict[str, Any] | None = None
        # Whole frames that a lost connection did not take.
        self._unsent: list[bytes] = []
        # When the daemon left (time.monotonic); 0.0 while it is there or nobody waits for it.
        self._away_since = 0.0
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._stopping = False
        self._control_path = listener.address.control_path
        try:
            self._control = listen_for_clients(listener.address)
        except BaseException:
            os.close(self._wake_read)
            os.close(self._wake_write)
            raise

    def run(self) -> None:
        """Serve until :meth:`stop`, then close everything."""
        try:
            while not self._stopping:
                self._step()
        finally:
            self._close()

    def stop(self) -> None:
        """End :meth:`run`; callable from a signal handler or another thread."""
        self._stopping = True
        os.write(self._wake_write, b"x")

    def _step(self) -> None:
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        if self._bridge is None:
            poll.register(self._listener.fileno(), select.POLLIN)
        else:
            out = select.POLLOUT if self._bridge.backlog_bytes else 0
            poll.register(self._bridge.key, select.POLLIN | out)
        for client in self._clients.values():
            poll.register(client.key, self._interest(client))
        for descriptor, events in poll.poll(self._patience_ms()):
            self._serve(descriptor, events)
        if self._patience_ms() == 0:
            self._give_up()

    def _patience_ms(self) -> int | None:
        if not self._away_since:
            return None
        return max(0, round((self._away_since + AWAY_S - time.monotonic()) * 1000))

    def _give_up(self) -> None:
        """The daemon does not come back: fail what waits for it, as a lost connection would."""
        self._away_since = 0.0
        self._unsent.clear()
        for client in list(self._clients.values()):
            if self._remap.has_open(client.key):
                self._drop(client)

    def _interest(self, client: Peer) -> int:
        bridge = self._bridge
        open_ = self._welcome is not None and bridge is not None and bridge.backlog_bytes < MAX_BRIDGE_BACKLOG
        return (select.POLLIN if open_ else 0) | (select.POLLOUT if client.backlog_bytes else 0)

    def _serve(self, descriptor: int, events: int) -> None:
        if descriptor == self._control.fileno():
            self._accept_client()
        elif self._bridge is None and descriptor == self._listener.fileno():
            self._accept_bridge()
        elif self._bridge is not None and descriptor == self._bridge.key:
            self._serve_bridge(self._bridge, events)
        elif descriptor in self._clients:
            self._serve_client(self._clients[descriptor], events)

    # -- the daemon's side ------------------------------------------------------------

    def _accept_bridge(self) -> None:
        self._bridge = bridge = Peer(self._listener.accept(0))
        body = {
            "ContainerId": "",
            "ActivityId": NULL_ID,
            "MinimumVersion": 4,
            "MaximumVersion": 4,
            "UvmdEvents": True,
        }
        id_ = self._remap.forward(_OUR_CLIENT, 0)
        self._to_bridge(bridge, Frame(Message.NEGOTIATE, id_, json.dumps(body).encode()).encode())

    def _serve_bridge(self, bridge: Peer, events: int) -> None:
        alive = bridge.flush() if events & select.POLLOUT else True
        if alive and events & ~select.POLLOUT:
            alive = bridge.receive()
        try:
            while self._bridge is bridge and (frame := bridge.next_frame()) is not None:
                self._from_bridge(frame)
        except ProtocolError as error:
            self._lose_bridge(f"the daemon broke the framing: {error}")
        if not alive:
            self._lose_bridge("the daemon disconnected")

    def _lose_bridge(self, reason: str) -> None:
        if self._bridge is None:
            return
        if self._welcome is not None:
            self._unsent = self._bridge.unsent()
        self._bridge.close()
        self._bridge, self._welcome = None, None
        self._away_since = self._away_since or time.monotonic()
        self._fail_what_was_sent()
        self._log(f"{reason}; {len(self._remap)} requests wait for it to come back")

    def _fail_what_was_sent(self) -> None:
        body = json.dumps({"Result": HResult.E_FAIL.signed, "ErrorMessage": _LOST}).encode()
        for request in self._remap.lose([split(frame).id for frame in self._unsent]):
            if request.client in self._clients:
                client = self._clients[request.client]
                self._to_client(client, response_type(request.type), request.id, body)

    def _send_again(self, bridge: Peer) -> None:
        unsent, self._unsent = self._unsent, []
        repeated = self._remap.repeat([split(frame).id for frame in unsent])
        for frame in (*unsent, *(Frame(item.type, id_, item.body).encode() for id_, item in repeated)):
            self._to_bridge(bridge, frame)

    def _to_bridge(self, bridge: Peer, frame: bytes) -> None:
        bridge.queue_frame(frame)
        if not bridge.flush():
            self._lose_bridge("the connection broke")

    def _from_bridge(self, frame: Frame) -> None:
        if kind(frame.type) == RESPONSE:
            request = self._remap.answer(frame.id)
            if request is None:
                return
            if request.client == _OUR_CLIENT:
                self._negotiated(frame)
            elif request.client in self._clients:
                self._to_client(self._clients[request.client], frame.type, request.id, frame.body)
        elif kind(frame.type) == NOTIFICATION:
            for peer in list(self._clients.values()):
                if frame.type == CONTAINER_NOTIFICATION or peer.key in self._wants_events:
                    self._to_client(peer, frame.type, frame.id, frame.body)

    def _negotiated(self, frame: Frame) -> None:
        answer = lenient_object(frame.body)
        if answer.get("Result") != 0:
            raise BadResponse(f"the daemon refused Negotiate: {answer.get('ErrorMessage', 'no reason')}")
        self._welcome = answer
        self._away_since = 0.0
        self._log("the daemon is connected")
        if self._bridge is not None:
            self._send_again(self._bridge)
        # Frames that a client had sent in one piece with the last that was passed on.
        for client in list(self._clients.values()):
            self._take_requests(client)

    # -- the clients' side ------------------------------------------------------------

    def _accept_client(self) -> None:
        sock, _ = self._control.accept()
        _, uid, _ = _CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if uid not in (0, os.geteuid()):
            sock.close()
            self._log(f"refused a client of user {uid}")
            return
        peer = Peer(sock)
        self._clients[peer.key] = peer

    def _serve_client(self, client: Peer, events: int) -> None:
        alive = client.flush() if events & select.POLLOUT else True
        if alive and events & ~select.POLLOUT:
            alive = client.receive()
        if not self._take_requests(client) or not alive:
            self._drop(client)

    def _take_requests(self, client: Peer) -> bool:
        """Serve a client's frames while the daemon is there; False when their framing is broken."""
        try:
            while self._welcome is not None and (frame := client.next_frame()) is not None:
                self._from_client(client, frame)
        except ProtocolError:
            return False
        return True

    def _from_client(self, client: Peer, frame: Frame) -> None:
        if frame.type == Message.NEGOTIATE:
            if lenient_object(frame.body).get("UvmdEvents") is True:
                self._wants_events.add(client.key)
            self._to_client(client, response_type(frame.type), frame.id, json.dumps(self._welcome).encode())
        elif frame.type == SHARE_PORTS:
            self._to_client(client, response_type(frame.type), frame.id, self._reserve_ports(frame.body))
        elif self._bridge is not None:
            self._log(f"client {client.key}: {name_of_message(frame.type)}")
            kept = frame.body if frame.type == Message.WAIT else b""
            id_ = self._remap.forward(client.key, frame.id, frame.type, kept)
            self._to_bridge(self._bridge, Frame(frame.type, id_, frame.body).encode())

    def _reserve_ports(self, body: bytes) -> bytes:
        count = lenient_object(body).get("Count")
        count = count if isinstance(count, int) else 1
        ports = [self._next_port() for _ in range(max(1, min(count, MAX_PORTS)))]
        return json.dumps({"Result": 0, "Ports": ports}).encode()

    def _to_client(self, client: Peer, type_word: int, id_: int, body: bytes) -> None:
        client.queue(type_word, id_, body)
        if not client.flush() or client.backlog_bytes > MAX_CLIENT_BACKLOG:
            self._drop(client)

    def _drop(self, client: Peer) -> None:
        if self._clients.pop(client.key, None) is not None:
            self._wants_events.discard(client.key)
            self._remap.drop(client.key)
            client.close()

    def _close(self) -> None:
        unlink_quietly(self._control_path)
        self._control.close()
        for client in list(self._clients.values()):
            self._drop(client)
        if self._bridge is not None:
            self._bridge.close()
            self._bridge = None
        self._listener.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
