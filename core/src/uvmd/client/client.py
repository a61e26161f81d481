"""The bridge's messages as methods: what a host asks of a daemon.

A thin layer: bodies are spelled as the real host spells them (spec bridge.md 6), answers
come back as Python values, refusals as RemoteError.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uvmd.bridge.identifiers import Message
from uvmd.client.address import Address
from uvmd.client.connection import DEFAULT_TIMEOUT_S, Connection, Pending, parse_object
from uvmd.client.errors import BadResponse
from uvmd.client.ports import NextPort, StreamPorts, random_ports
from uvmd.client.process import INFINITE_MS, Process, exit_code
from uvmd.client.protocol import NULL_ID
from uvmd.client.streams import Streams

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode
_NO_STREAMS = (False, False, False)


@dataclass(frozen=True, slots=True)
class Notification:
    """A frame that no request asked for; ``type`` is its type word."""

    type: int
    body: Mapping[str, Any]

    @property
    def container_id(self) -> str:
        """The container that it is about, if it says so."""
        return str(self.body.get("ContainerId", ""))

    @property
    def event(self) -> str:
        """What happened, in the protocol's word (``UnexpectedExit``, ``ForcedExit``, ...)."""
        return str(self.body.get("Type", ""))


class Client:
    """A negotiated connection to one daemon. Every method may be called from any thread.

    Args:
        connection: owned from here on.
        address: where streams listen; None allows processes without streams only.
        next_port: hands out stdio ports.
        timeout_s: for every request but waits.
    """

    def __init__(
        self,
        connection: Connection,
        address: Address | None = None,
        *,
        next_port: NextPort | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self.connection = connection
        self.address = address
        self.timeout_s = timeout_s
        #: What Negotiate answered; empty before.
        self.capabilities: Mapping[str, Any] = {}
        self._next_port = next_port or random_ports()
        self._on_close: list[Callable[[], None]] = []

    # -- the messages -----------------------------------------------------------------

    def negotiate(self, minimum: int = 4, maximum: int = 4, *, events: bool = False) -> Mapping[str, Any]:
        """Select the protocol version; must come first, once a connection.

        Args:
            minimum, maximum: the offered versions.
            events: ask for uvmd's own event frames, which a foreign host could not read.

        Returns:
            The daemon's capabilities.
        """
        body: dict[str, Any] = {"MinimumVersion": minimum, "MaximumVersion": maximum}
        if events:
            body["UvmdEvents"] = True
        response = self.request(Message.NEGOTIATE, "", body)
        self.capabilities = response.get("Capabilities") or {}
        return self.capabilities

    def create(self, container_id: str, *, bundle: str, spec: Mapping[str, Any], scratch: str = "") -> None:
        """Create a container: afterwards its init exists and is blocked."""
        config = {
            "SchemaVersion": {"Major": 2, "Minor": 1},
            "OciBundlePath": bundle,
            "OciSpecification": spec,
            "ScratchDirPath": scratch,
        }
        self.request(Message.CREATE, container_id, {"ContainerConfig": _encode(config)})

    def start(self, container_id: str) -> None:
        """Send StartContainer. The host sends it between Create and Execute; it does nothing."""
        self.request(Message.START, container_id)

    def execute(
        self,
        container_id: str,
        parameters: Mapping[str, Any],
        ports: tuple[int | None, int | None, int | None] = (None, None, None),
    ) -> int:
        """Start a process whose streams (by port) are already listened for; return its pid.

        Without ``OciProcess`` in *parameters* it is the container's init.
        """
        named = zip(("StdIn", "StdOut", "StdErr"), ports, strict=True)
        streams = {name: port for name, port in named if port is not None}
        flags = {f"Create{name}Pipe": True for name in streams}
        settings: dict[str, Any] = {"ProcessParameters": _encode({**flags, **parameters})}
        if streams:
            settings["VsockStdioRelaySettings"] = streams
        response = self.request(Message.EXECUTE, container_id, {"Settings": settings})
        pid = response.get("ProcessId")
        if not isinstance(pid, int):
            raise BadResponse("ExecuteProcess was answered without a ProcessId")
        return pid

    def wait(self, container_id: str, pid: int, timeout_ms: int = INFINITE_MS) -> int:
        """Return a process's exit code.

        Raises:
            RemoteError: TIMEOUT after *timeout_ms*, NOT_FOUND for an unknown process, ...
        """
        pending = self.submit_wait(container_id, pid, timeout_ms)
        pending.wait(None)
        return exit_code(pending)

    def submit_wait(self, container_id: str, pid: int, timeout_ms: int = INFINITE_MS) -> Pending:
        """Send WaitForProcess and return at once; see :func:`uvmd.client.process.exit_code`."""
        return self.submit(Message.WAIT, container_id, {"ProcessId": pid, "TimeoutInMs": timeout_ms})

    def signal(self, container_id: str, pid: int, number: int) -> None:
        """Send a signal to one process; 0 is SIGKILL."""
        self.request(Message.SIGNAL, container_id, {"ProcessId": pid, "Options": {"Signal": number}})

    def shutdown(self, container_id: str) -> None:
        """Ask the container's init to end (SIGTERM); answered before it does."""
        self.request(Message.SHUTDOWN_GRACEFUL, container_id)

    def terminate(self, container_id: str) -> None:
        """Kill the container's init; answered before it is gone."""
        self.request(Message.SHUTDOWN_FORCED, container_id)

    def resize(self, container_id: str, pid: int, *, rows: int, columns: int) -> None:
        """Set the size of a process's terminal."""
        self.request(Message.RESIZE, container_id, {"ProcessId": pid, "Height": rows, "Width": columns})

    def properties(self, container_id: str, types: Sequence[str]) -> dict[str, Any]:
        """Return the properties that *types* name: ``Statistics``, ``ProcessList``, ``uvmd.*``."""
        query = _encode({"PropertyTypes": list(types)})
        response = self.request(Message.GET_PROPERTIES, container_id, {"Query": query})
        return parse_object(str(response.get("Properties") or "{}").encode())

    def modify(
        self,
        resource_type: str,
        settings: Mapping[str, Any] | None = None,
        *,
        request_type: str = "Add",
        container_id: str = NULL_ID,
    ) -> None:
        """Add, remove or update a resource of the VM or of a container."""
        request: dict[str, Any] = {"RequestType": request_type, "ResourceType": resource_type}
        if settings is not None:
            request["Settings"] = settings
        self.request(Message.MODIFY, container_id, {"Request": request})

    def dump_stacks(self) -> str:
        """Return what the daemon's threads are doing."""
        return str(self.request(Message.DUMP_STACKS, NULL_ID).get("GuestStacks", ""))

    def delete(self, container_id: str) -> None:
        """Delete a stopped container, its bundle and scratch directory."""
        self.request(Message.DELETE, container_id)

    # -- processes with their streams -------------------------------------------------

    def run_init(
        self, container_id: str, *, stdin: bool = False, stdout: bool = True, stderr: bool = True
    ) -> Process:
        """Start a created container's init with the wanted streams connected."""
        return self._run(container_id, {}, (stdin, stdout, stderr))

    def exec(
        self,
        container_id: str,
        process: Mapping[str, Any],
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
    ) -> Process:
        """Start another process, given as an OCI process object, in a running container."""
        return self._run(container_id, {"OciProcess": process}, (stdin, stdout, stderr))

    def run_external(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        terminal: bool = False,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
    ) -> Process:
        """Start a process directly in the VM, outside every container."""
        parameters: dict[str, Any] = {
            "CommandArgs": list(args),
            "WorkingDirectory": cwd,
            "Environment": dict(env or {}),
            "EmulateConsole": terminal,
        }
        return self._run(NULL_ID, parameters, (stdin, stdout, stderr))

    def _run(
        self, container_id: str, parameters: Mapping[str, Any], wanted: tuple[bool, bool, bool]
    ) -> Process:
        if self.address is None or wanted == _NO_STREAMS:
            pid = self.execute(container_id, parameters)
            return Process(self, container_id, pid, Streams(None, None, None))
        stdin, stdout, stderr = wanted
        with StreamPorts(self.address, self._next_port, stdin=stdin, stdout=stdout, stderr=stderr) as ports:
            pid = self.execute(container_id, parameters, ports.ports)
            return Process(self, container_id, pid, ports.accept())

    # -- below the messages -----------------------------------------------------------

    def request(
        self, message: int, container_id: str, fields: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Send any message and return its answer.

        Raises:
            RemoteError: the daemon said no.
            ResponseTimeout, ConnectionLost, BadResponse: there is no usable answer.
        """
        return self.submit(message, container_id, fields).result(self.timeout_s)

    def submit(self, message: int, container_id: str, fields: Mapping[str, Any] | None = None) -> Pending:
        """Send any message and return at once."""
        body: dict[str, Any] = {"ContainerId": container_id, "ActivityId": NULL_ID}
        if fields:
            body.update(fields)
        return self.connection.submit(message, _encode(body).encode())

    def raw(self, message: int, body: bytes) -> bytes:
        """Send bytes as they are and return the answer's body, whatever its result."""
        return self.connection.submit(message, body).raw(self.timeout_s)

    def notification(self, timeout_s: float | None = None) -> Notification | None:
        """Return the next notification, or None when the time is up."""
        frame = self.connection.notification(timeout_s)
        return Notification(frame[0], parse_object(frame[1])) if frame is not None else None

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call *callback* once when the client has been closed."""
        self._on_close.append(callback)

    def close(self) -> None:
        """End the connection. Containers run on."""
        self.connection.close()
        while self._on_close:
            self._on_close.pop()()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
