"""A host written from the specification alone: raw frames, listeners for streams.

It shares no code with uvmd, so that a misreading of the specification cannot agree with
itself. It behaves as the real host does (spec bridge.md 11): it treats an oversized frame,
an unknown response id and an unknown notification as fatal, and closes an output stream
once it has read its end.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.streams import Input, Output, listen

HEADER = struct.Struct("<IIQ")
MAX_OUTBOUND = 65536
NULL_ID = "00000000-0000-0000-0000-000000000000"
ZERO_GUID = NULL_ID
FOREVER = 0xFFFFFFFF
NOTIFICATION = 0x30100101
#: uvmd's own: only a connection that asked for it may see one.
EVENT = 0x3F000101

CREATE = 0x10100101
START = 0x10100201
SHUTDOWN_GRACEFUL = 0x10100301
SHUTDOWN_FORCED = 0x10100401
EXECUTE = 0x10100501
WAIT = 0x10100601
SIGNAL = 0x10100701
RESIZE = 0x10100801
GET_PROPERTIES = 0x10100901
MODIFY = 0x10100A01
NEGOTIATE = 0x10100B01
DUMP_STACKS = 0x10100C01
DELETE = 0x10100D01

HRESULTS = {
    0x00000000: "S_OK",
    0x80004001: "E_NOTIMPL",
    0x80004005: "E_FAIL",
    0x80070057: "E_INVALIDARG",
    0x80070490: "NOT_FOUND",
    0xC0370109: "TIMEOUT",
    0xC037010C: "UNSUPPORTED_PROTOCOL_VERSION",
    0xC037010D: "INVALID_JSON",
    0xC037010E: "SYSTEM_NOT_FOUND",
    0xC037010F: "SYSTEM_ALREADY_EXISTS",
    0xC0370110: "SYSTEM_ALREADY_STOPPED",
    0x80370105: "INVALID_STATE",
}


def code(answer: Mapping[str, Any]) -> str:
    """The name of an answer's ``Result``."""
    result = answer["Result"]
    assert -(2**31) <= result < 2**31, f"Result {result} is not a signed 32-bit number"
    return HRESULTS.get(result & 0xFFFFFFFF, hex(result & 0xFFFFFFFF))


def modification(resource: str, request: str = "Add", settings: Any = None) -> dict[str, Any]:
    """The ``Request`` of a ModifySettings message."""
    inner: dict[str, Any] = {"RequestType": request, "ResourceType": resource}
    return inner if settings is None else {**inner, "Settings": settings}


class Refused(AssertionError):
    """An answer that was expected to be a success."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.answer = answer
        super().__init__(f"{code(answer)}: {answer.get('ErrorMessage', '')}")


class Gone(Exception):
    """The daemon closed the connection."""


class Connection:
    """One bridge connection. Used by one thread at a time."""

    def __init__(self, host: Host, read_fd: int, write_fd: int) -> None:
        self.host = host
        self.notifications: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.wants_events = False
        self.order: list[int] = []  # message ids in the order of their answers
        self._read_fd, self._write_fd = read_fd, write_fd
        self._buffer = bytearray()
        #: Answers that nobody has asked for yet, by message id.
        self.answers: dict[int, dict[str, Any]] = {}
        self._ids = itertools.count()
        self.outstanding: dict[int, int] = {}

    @property
    def is_open(self) -> bool:
        """Whether we have not closed it."""
        return self._read_fd >= 0

    # -- frames

    def send_bytes(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._write_fd, view) :]

    def prepare(self, type_: int, body: Any = None, *, id_: int | None = None) -> tuple[int, bytes]:
        """Return the id and the frame of a request that is about to be sent.

        ``body`` is an object, or bytes as they are.
        """
        text = body if isinstance(body, bytes) else json.dumps(body or {}).encode() + b"\n"
        id_ = next(self._ids) if id_ is None else id_
        self.outstanding[id_] = type_
        return id_, HEADER.pack(type_, HEADER.size + len(text), id_) + text

    def send(self, type_: int, body: Any = None, *, id_: int | None = None) -> int:
        """Send one request, and return its id."""
        id_, frame = self.prepare(type_, body, id_=id_)
        self.send_bytes(frame)
        return id_

    def expect(self, id_: int, type_: int) -> None:
        """Take over a request of an earlier connection (spec bridge.md 11.7)."""
        self.outstanding[id_] = type_

    def continue_ids(self, above: int) -> None:
        self._ids = itertools.count(above + 1)

    def hears(self, timeout_s: float) -> bool:
        """Wait until something arrives; False if nothing did within the time."""
        if self._read_fd < 0:
            raise Gone("we closed the bridge")
        return bool(select.select([self._read_fd], [], [], max(timeout_s, 0))[0])

    def pump(self, timeout_s: float) -> bool:
        """Take in what arrives within the time; False if nothing did."""
        if not self.hears(timeout_s):
            return False
        try:
            data = os.read(self._read_fd, MAX_OUTBOUND)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Gone("the daemon closed the bridge")
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            type_, size, id_ = HEADER.unpack_from(self._buffer)
            assert HEADER.size <= size <= MAX_OUTBOUND, f"a frame of {size} bytes kills a real bridge"
            if len(self._buffer) < size:
                break
            body = bytes(self._buffer[HEADER.size : size])
            del self._buffer[:size]
            self._take(type_, id_, body)
        return True

    def _take(self, type_: int, id_: int, body: bytes) -> None:
        value = json.loads(body)
        if type_ == NOTIFICATION:
            assert id_ == 0
            assert len(value["ActivityId"]) == len(ZERO_GUID), "a real host parses this as a GUID"
            self.notifications.append(value)
            return
        if type_ == EVENT:
            assert self.wants_events, "an unknown notification kills a real bridge"
            self.events.append(value)
            return
        assert id_ in self.outstanding, f"a response for the unknown id {id_} kills a real bridge"
        asked = self.outstanding.pop(id_)
        assert type_ == 0x20000000 | (asked & 0x0FFFFFFF), f"response type {type_:#x} to {asked:#x}"
        self.order.append(id_)
        self.answers[id_] = value

    def answer(self, id_: int, timeout_s: float = 30) -> dict[str, Any]:
        """Wait for the answer to a request."""
        deadline = time.monotonic() + timeout_s
        while id_ not in self.answers:
            left = deadline - time.monotonic()
            assert left > 0, f"no answer to request {id_} within {timeout_s} s"
            self.pump(left)
        return self.answers.pop(id_)

    def answered(self, id_: int) -> bool:
        """Whether the answer is there already; takes in what has arrived."""
        while self.pump(0):
            pass
        return id_ in self.answers

    def ask(self, type_: int, body: Any = None, *, timeout_s: float = 30) -> dict[str, Any]:
        """One round trip; whatever the result."""
        return self.answer(self.send(type_, body), timeout_s)

    def call(self, type_: int, container_id: str, timeout_s: float = 30, /, **fields: Any) -> dict[str, Any]:
        """One round trip that must succeed.

        Raises:
            Refused: another ``Result`` than 0.
        """
        answer = self.ask(
            type_, {"ContainerId": container_id, "ActivityId": ZERO_GUID, **fields}, timeout_s=timeout_s
        )
        if answer["Result"]:
            raise Refused(answer)
        return answer

    def wait_for_notification(self, container_id: str, timeout_s: float = 30) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while True:
            for value in self.notifications:
                if value["ContainerId"] == container_id:
                    return value
            left = deadline - time.monotonic()
            assert left > 0, f"no notification for {container_id} within {timeout_s} s"
            self.pump(left)

    def wait_for_event(self, container_id: str, kind: str, timeout_s: float = 30) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while True:
            for value in self.events:
                if (value["ContainerId"], value["Type"]) == (container_id, kind):
                    return value
            left = deadline - time.monotonic()
            assert left > 0, f"no event {kind} for {container_id} within {timeout_s} s: {self.events}"
            self.pump(left)

    def wait_until_closed(self, timeout_s: float = 10) -> None:
        deadline = time.monotonic() + timeout_s
        try:
            while time.monotonic() < deadline:
                self.pump(deadline - time.monotonic())
        except Gone:
            return
        raise AssertionError("the daemon kept the connection open")

    def end_writing(self) -> None:
        """Half-close: nothing more comes from us, and what is on its way to us is still heard."""
        with socket.socket(fileno=os.dup(self._write_fd)) as ours:
            ours.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        for fd in {self._read_fd, self._write_fd} - {-1}:
            os.close(fd)
        self._read_fd = self._write_fd = -1

    # -- messages, as the host sends them

    def negotiate(self, minimum: int = 4, maximum: int = 4, **fields: Any) -> dict[str, Any]:
        self.wants_events = fields.get("UvmdEvents") is True
        return self.call(NEGOTIATE, "", MinimumVersion=minimum, MaximumVersion=maximum, **fields)

    def create(self, container_id: str, spec: Any, **config: Any) -> dict[str, Any]:
        config_text = self.host.container_config(container_id, spec, **config)
        return self.call(CREATE, container_id, ContainerConfig=config_text)

    def start(self, container_id: str) -> dict[str, Any]:
        return self.call(START, container_id)

    def execute(
        self,
        container_id: str,
        oci_process: Mapping[str, Any] | None = None,
        *,
        stdin: bool = False,
        stdout: bool = False,
        stderr: bool = False,
        parameters: Mapping[str, Any] | None = None,
        **of_output: Any,
    ) -> Process:
        """Start init (no process given), an exec, or a process in the VM (``parameters``)."""
        wanted = {"In": stdin, "Out": stdout, "Err": stderr}
        asked: dict[str, Any] = dict(parameters or {})
        if oci_process is not None:
            asked["OciProcess"] = oci_process
        ports: dict[str, int] = {}
        streams: dict[str, Any] = {}
        for name, wants in wanted.items():
            if wants:
                port, listener = self.host.next_port()
                asked[f"CreateStd{name}Pipe"] = True
                ports[f"Std{name}"] = port
                streams[name] = Input(listener) if name == "In" else Output(listener, **of_output)
                self.host.streams.append(streams[name])
        settings = {"ProcessParameters": json.dumps(asked), "VsockStdioRelaySettings": ports}
        try:
            pid = self.call(EXECUTE, container_id, Settings=settings)["ProcessId"]
        except BaseException:
            for stream in streams.values():
                stream.abandon()
            raise
        return Process(self, container_id, pid, streams, ports)

    def send_wait(self, container_id: str, pid: int, timeout_ms: int = FOREVER) -> int:
        fields = {"ProcessId": pid, "TimeoutInMs": timeout_ms}
        return self.send(WAIT, {"ContainerId": container_id, "ActivityId": ZERO_GUID, **fields})

    def wait(self, container_id: str, pid: int, timeout_ms: int = FOREVER, timeout_s: float = 60) -> int:
        return self.call(WAIT, container_id, timeout_s, ProcessId=pid, TimeoutInMs=timeout_ms)["ExitCode"]

    def signal(self, container_id: str, pid: int, signal: int | None = None) -> None:
        options = {} if signal is None else {"Options": {"Signal": signal}}
        self.call(SIGNAL, container_id, ProcessId=pid, **options)

    def properties(self, container_id: str, *types: str) -> dict[str, Any]:
        query = json.dumps({"PropertyTypes": list(types)}) if types else ""
        return json.loads(self.call(GET_PROPERTIES, container_id, Query=query)["Properties"])

    def modify(self, container_id: str, resource: str, request: str = "Add", settings: Any = None) -> None:
        self.call(MODIFY, container_id, Request=modification(resource, request, settings))

    def delete(self, container_id: str) -> None:
        self.call(DELETE, container_id)


class Process:
    """A started process and the host's ends of its streams."""

    def __init__(
        self,
        to: Connection,
        container_id: str,
        pid: int,
        streams: Mapping[str, Any],
        ports: Mapping[str, int],
    ) -> None:
        self._to, self.container_id, self.pid = to, container_id, pid
        self._streams, self.ports = streams, ports

    @property
    def stdin(self) -> Input:
        return self._streams["In"]

    @property
    def stdout(self) -> Output:
        return self._streams["Out"]

    @property
    def stderr(self) -> Output:
        return self._streams["Err"]

    def wait(self, timeout_s: float = 60) -> int:
        return self._to.wait(self.container_id, self.pid, timeout_s=timeout_s)


class Host:
    """Listens for the bridge at ``folder/host`` and for stream N at ``folder/host_N``."""

    #: What a bridge is spoken to by.
    connection = Connection

    def __init__(self, folder: Path, bundles: Path) -> None:
        self.path = folder / "host"
        self.bundles = bundles
        self._ports = itertools.count(0x40000001)
        #: Every stream of every process, closed with the host: tests need not care.
        self.streams: list[Input | Output] = []
        self._listener = listen(self.path)

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    def next_port(self) -> tuple[int, Any]:
        """The next stream port, already listening (spec bridge.md 11.4)."""
        port = next(self._ports)
        return port, self.listen_again(port)

    def listen_again(self, port: int) -> Any:
        return listen(Path(f"{self.path}_{port}"))

    def accept(self, timeout_s: float = 15, *, negotiate: bool = True) -> Connection:
        """Take the daemon's next bridge connection."""
        self._listener.settimeout(timeout_s)
        try:
            connection, _ = self._listener.accept()
        except TimeoutError:
            raise AssertionError(f"the daemon did not dial {self.path} within {timeout_s} s") from None
        fd = connection.detach()
        made = self.connection(self, fd, fd)
        if negotiate:
            made.negotiate()
        return made

    def refuse(self) -> None:
        """Stop listening: further dials are refused."""
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def listen(self) -> None:
        self._listener = listen(self.path)

    def bundle(self, container_id: str) -> Path:
        return self.bundles / "c" / container_id

    def container_config(self, container_id: str, spec: Any, **config: Any) -> str:
        bundle = self.bundle(container_id)
        return json.dumps(
            {
                "SchemaVersion": {"Major": 2, "Minor": 1},
                "OciBundlePath": str(bundle),
                "OciSpecification": spec,
                "ScratchDirPath": str(bundle / "scratch" / container_id),
                **config,
            }
        )

    def close(self) -> None:
        self._listener.close()
        for stream in self.streams:
            stream.abandon()
