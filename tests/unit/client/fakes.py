"""A daemon's end of the bridge in a thread: answers by table, runs pretended processes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

from uvmd.bridge.frames import Decoder, Frame
from uvmd.bridge.identifiers import CONTAINER_NOTIFICATION, Message, response_type

NULL_ID = "00000000-0000-0000-0000-000000000000"
Body = dict[str, Any]
#: Takes all of stdin, returns exit code, stdout, stderr.
Program = Callable[[bytes], tuple[int, bytes, bytes]]
Answers = dict[int, Callable[[Body], Body | None]]

NEGOTIATED = {"Version": 4, "Capabilities": {"SupportedSchemaVersions": [{"Major": 2, "Minor": 1}]}}


def refusal(code: int, message: str) -> Body:
    """An error answer."""
    signed = code - (1 << 32)
    return {
        "Result": signed,
        "ErrorMessage": message,
        "ErrorRecords": [{"Result": signed, "Message": message}],
    }


def ends_with(status: int, stdout: bytes = b"", stderr: bytes = b"") -> Program:
    return lambda _: (status, stdout, stderr)


class FakeDaemon:
    """Serves one connection until it is closed.

    Args:
        sock: our end of the bridge.
        streams: the path that stdio ports are appended to.
    """

    def __init__(self, sock: socket.socket, streams: str = "", answers: Answers | None = None) -> None:
        self._sock = sock
        self._streams = streams
        self._sending = threading.Lock()
        self.requests: list[tuple[int, Body]] = []
        #: Overrides by type word: a body, or None for no answer at all.
        self.answers: Answers = dict(answers or {})
        self.program: Program = ends_with(0)
        self.deny_stdio = False
        #: Whether a program gets its input; one at a terminal never sees its end.
        self.reads_stdin = True
        self._next_pid = 100
        self._exits: dict[int, int] = {}
        self.waits: dict[int, Frame] = {}
        self._state = threading.Lock()
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Disconnect and wait for every thread."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        for thread in self._threads:
            thread.join(10)
        self._sock.close()

    def bodies(self, message: int) -> list[Body]:
        """What was sent under this type word."""
        return [body for type_word, body in self.requests if type_word == message]

    def notify(
        self, container_id: str, event: str = "UnexpectedExit", type_word: int = CONTAINER_NOTIFICATION
    ) -> Body:
        """Tell of an event. Returns an empty answer."""
        body = {
            "ContainerId": container_id,
            "ActivityId": NULL_ID,
            "Type": event,
            "Operation": "None",
            "Result": 0,
        }
        self.send(Frame(type_word, 0, json.dumps(body).encode()))
        return {}

    def send(self, frame: Frame) -> None:
        with self._sending:
            try:
                self._sock.sendall(frame.encode())
            except OSError:
                pass  # The client left before its answer came.

    def exit(self, pid: int, status: int) -> Body:
        """Let a process end: answers its wait, now or later. Returns an empty answer."""
        with self._state:
            self._exits[pid] = status
            wait = self.waits.pop(pid, None)
        if wait is not None:
            self.answer(wait, {"ExitCode": status})
        return {}

    def _serve(self) -> None:
        decoder = Decoder()
        while True:
            try:
                data = self._sock.recv(65536)
            except OSError:
                return
            if not data:
                return
            decoder.feed(data)
            while (frame := decoder.next_frame()) is not None:
                self._handle(frame)

    def _handle(self, frame: Frame) -> None:
        body = json.loads(frame.body)
        self.requests.append((frame.type, body))
        if frame.type in self.answers:
            answer = self.answers[frame.type](body)
            if answer is not None:
                self.answer(frame, answer)
        elif frame.type == Message.NEGOTIATE:
            self.answer(frame, NEGOTIATED)
        elif frame.type == Message.EXECUTE:
            self.answer(frame, {"ProcessId": self._execute(body)})
        elif frame.type == Message.WAIT:
            self._wait(frame, body["ProcessId"])
        else:
            self.answer(frame, {})

    def answer(self, request: Frame, fields: Body) -> None:
        body = {"Result": 0, "ActivityId": NULL_ID, **fields}
        self.send(Frame(response_type(request.type), request.id, json.dumps(body).encode()))

    def _wait(self, frame: Frame, pid: int) -> None:
        with self._state:
            status = self._exits.get(pid)
            if status is None:
                self.waits[pid] = frame
        if status is not None:
            self.answer(frame, {"ExitCode": status})

    def _execute(self, body: Body) -> int:
        self._next_pid += 1
        ports = body["Settings"].get("VsockStdioRelaySettings", {})
        sockets = {}
        if not self.deny_stdio:
            for name in ("StdIn", "StdOut", "StdErr"):
                if name in ports:
                    sockets[name] = socket.socket(socket.AF_UNIX)
                    sockets[name].connect(f"{self._streams}_{ports[name]}")
        arguments = (self._next_pid, sockets)
        thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return self._next_pid

    def _run(self, pid: int, sockets: dict[str, socket.socket]) -> None:
        given = b""
        if "StdIn" in sockets and self.reads_stdin:
            while data := sockets["StdIn"].recv(65536):
                given += data
        status, stdout, stderr = self.program(given)
        for name, data in (("StdOut", stdout), ("StdErr", stderr)):
            if name in sockets:
                try:
                    sockets[name].sendall(data)
                    sockets[name].shutdown(socket.SHUT_WR)
                    # The host answers the end by closing; the exit code waits for that.
                    sockets[name].recv(1)
                except OSError:
                    pass
        for sock in sockets.values():
            sock.close()
        self.exit(pid, status)


class DialingDaemon:
    """Dials a path as the monitor does, again and again until somebody listens, and serves."""

    def __init__(self, path: str, answers: Answers | None = None) -> None:
        self._path = path
        self._answers = answers
        self._closing = threading.Event()
        self.connected = threading.Event()
        self.daemon: FakeDaemon | None = None
        self._thread = threading.Thread(target=self._dial, daemon=True)
        self._thread.start()

    def _dial(self) -> None:
        while not self._closing.is_set():
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(self._path)
            except OSError:
                sock.close()
                self._closing.wait(0.002)
                continue
            self.daemon = FakeDaemon(sock, self._path, self._answers)
            self.connected.set()
            return

    def close(self) -> None:
        self._closing.set()
        self._thread.join(10)
        if self.daemon is not None:
            self.daemon.close()
