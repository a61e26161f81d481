"""A non-blocking end of a framed connection, for the loop in ``share``."""

from __future__ import annotations

import socket
from collections import deque

from uvmd.bridge.frames import HEADER, HEADER_BYTES, Decoder, Frame

_RECEIVE_BYTES = 1 << 16


class Peer:
    """Collects frames from, and queues frames to, one socket. Owns the socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        #: The descriptor, remembered: the loop's key also after the close.
        self.key = sock.fileno()
        self._decoder = Decoder()
        self._out: deque[bytes] = deque()
        self._sent_of_first = 0
        #: How much is queued because the other end does not read.
        self.backlog_bytes = 0

    def queue(self, type_word: int, id_: int, body: bytes) -> None:
        """Append a frame to what is to be sent."""
        self.queue_frame(HEADER.pack(type_word, HEADER_BYTES + len(body), id_) + body)

    def queue_frame(self, frame: bytes) -> None:
        """Append a whole frame, header and body."""
        self._out.append(frame)
        self.backlog_bytes += len(frame)

    def flush(self) -> bool:
        """Send what the socket takes; False when the connection is broken."""
        try:
            while self._out:
                sent = self.sock.send(memoryview(self._out[0])[self._sent_of_first :])
                self.backlog_bytes -= sent
                self._sent_of_first += sent
                if self._sent_of_first == len(self._out[0]):
                    self._out.popleft()
                    self._sent_of_first = 0
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def unsent(self) -> list[bytes]:
        """Return the frames that were not wholly sent; the other end drops a torn one."""
        return list(self._out)

    def receive(self) -> bool:
        """Take what has come; False at the end of the connection."""
        try:
            data = self.sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._decoder.feed(data)
        return bool(data)

    def next_frame(self) -> Frame | None:
        """Return the next whole frame, or None until more is received.

        Raises:
            ProtocolError: the other end broke the framing.
        """
        return self._decoder.next_frame()

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()
