"""A listening socket that answers ``GET /metrics``, and nothing else of HTTP.

One connection after another, each with a time limit: a reader that is slow or malicious
holds up other readers, never the daemon.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

CONNECTION_S: Final = 2.0
_MOST_REQUEST_BYTES: Final = 8192
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}

#: Makes the answer: status, content type and body.
Page = Callable[[], tuple[int, str, str]]


def parse_address(text: str) -> tuple[str, str | int]:
    """Split ``unix:PATH`` or ``vsock:PORT``.

    Raises:
        ValueError: it is neither.
    """
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest.startswith("/") and len(os.fsencode(rest)) <= 107:
        return kind, rest
    if kind == "vsock" and rest.isascii() and rest.isdigit() and int(rest) <= 0xFFFFFFFF:
        return kind, int(rest)
    raise ValueError("say unix:/PATH (107 bytes at most) or vsock:PORT")


def listen(address: str) -> socket.socket:
    """Listen at an address; the socket of a path is for its owner only.

    Raises:
        OSError: it is in use, or cannot be made.
    """
    kind, where = parse_address(address)
    if kind == "vsock":
        made = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        try:
            made.bind((socket.VMADDR_CID_ANY, where))
            made.listen(8)
        except BaseException:
            made.close()
            raise
        return made
    path = str(where)
    _remove_left_over(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Before anybody can connect: bind makes the file by the daemon's umask, 077.
        made.bind(path)
        os.chmod(path, 0o600)
        made.listen(8)
    except BaseException:
        made.close()
        raise
    return made


def _remove_left_over(path: str) -> None:
    """Remove the socket of a daemon that is no more; anything else stays, and is in the way."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def serve(listener: socket.socket, page: Page, ending: threading.Event) -> None:
    """Answer connections until ``ending`` is set; close the listener to wake it."""
    while not ending.is_set():
        try:
            connection, _ = listener.accept()
        except OSError:
            if ending.is_set():
                return
            raise
        with connection:
            try:
                _answer(connection, page)
            except (OSError, ValueError) as error:
                log.debug("a reader of metrics left", extra={"error": type(error).__name__})


def _answer(connection: socket.socket, page: Page) -> None:
    latest = time.monotonic() + CONNECTION_S
    status, kind, body = _response(_request_line(connection, latest), page)
    data = body.encode()
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
    connection.settimeout(max(0.01, latest - time.monotonic()))
    connection.sendall(f"{head}Connection: close\r\n\r\n".encode() + data)


def _request_line(connection: socket.socket, latest: float) -> str:
    """Read a whole request head; return its first line.

    Raises:
        ValueError: it does not end, or has too many bytes.
        OSError: the time is up, or the peer left.
    """
    head = b""
    while b"\r\n\r\n" not in head and b"\n\n" not in head:
        left = latest - time.monotonic()
        if left <= 0 or len(head) > _MOST_REQUEST_BYTES:
            raise ValueError("no request")
        connection.settimeout(left)
        more = connection.recv(4096)
        if not more:
            raise ValueError("no request")
        head += more
    return head.split(b"\n", 1)[0].decode("ascii", "replace").strip()


def _response(line: str, page: Page) -> tuple[int, str, str]:
    words = line.split(" ")
    plain = "text/plain; charset=utf-8"
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return 400, plain, "not an HTTP request\n"
    if words[0] != "GET":
        return 405, plain, "only GET\n"
    if words[1].partition("?")[0] != "/metrics":
        return 404, plain, "metrics are at /metrics\n"
    return page()
