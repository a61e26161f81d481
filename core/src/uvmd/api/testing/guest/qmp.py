"""QEMU's control socket (docs/interop/qmp-spec): commands, their answers, and events."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from uvmd.api.testing.guest.errors import GuestError


class QmpError(GuestError):
    """QEMU refused a command."""


class Qmp:
    """One control connection, which QEMU has made to us. Used by one thread."""

    def __init__(self, connection: socket.socket, timeout_s: float = 20) -> None:
        self._connection = connection
        self._buffer = b""
        self._timeout_s = timeout_s
        self.events: list[dict[str, Any]] = []
        self._receive(time.monotonic() + timeout_s)  # the greeting
        self("qmp_capabilities")

    def __call__(self, command: str, /, **arguments: Any) -> Any:
        """Run a command; underscores in argument names become hyphens.

        Raises:
            QmpError: QEMU refused, or did not answer in time.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            self._connection.sendall(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"QEMU is gone ({error.strerror})") from None
        deadline = time.monotonic() + self._timeout_s
        while True:
            message = self._receive(deadline)
            if "error" in message:
                raise QmpError(f"QEMU refused {command} {named}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]
            self.events.append(message)

    def wait_for_event(self, name: str, timeout_s: float = 20, **data: Any) -> dict[str, Any]:
        """Take the first event of a name whose data has these values, waiting for it."""
        deadline = time.monotonic() + timeout_s
        while True:
            for event in self.events:
                if event.get("event") == name and data.items() <= event.get("data", {}).items():
                    self.events.remove(event)
                    return event
            self.events.append(self._receive(deadline))

    def close(self) -> None:
        self._connection.close()

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            self._connection.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._connection.recv(1 << 16)
            except TimeoutError:
                raise QmpError("QEMU said nothing before the deadline") from None
            except OSError:
                data = b""
            if not data:
                raise QmpError("QEMU is gone")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message
