"""Our end of the helper in the guest: shell commands, and functions that run there."""

from __future__ import annotations

import inspect
import itertools
import json
import socket
import textwrap
import time
from collections.abc import Callable
from typing import Any, TypeVar

from uvmd.api.testing.guest.errors import CommandFailed

T = TypeVar("T")
#: What a reply may take beyond the time that the guest itself enforces.
GRACE_S = 20


class Late(Exception):
    """No reply before the deadline."""


class Agent:
    """Requests over the helper's channel, one at a time."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._buffer = b""
        self._ids = itertools.count(1)

    def ping(self, timeout_s: float) -> None:
        """Return once the helper answers.

        Raises:
            Late: it does not.
        """
        self._ask({"do": "ping"}, timeout_s)

    def shell(self, command: str, timeout_s: float) -> tuple[int | str, str, str]:
        """Run a command; return its status (or ``timeout``), its output and its errors."""
        reply = self._ask({"do": "shell", "command": command, "timeout_s": timeout_s}, timeout_s + GRACE_S)
        return reply["status"], reply["out"], reply["error"]

    def call(self, function: Callable[..., T], *args: Any, fork: bool = False, timeout_s: float) -> T:
        """Run a function in the guest and return what it returned.

        Its source is sent, so it must import what it uses and touch nothing around it; arguments
        and result are JSON.
        """
        source = textwrap.dedent(inspect.getsource(function))
        request = {"do": "function", "source": source, "name": function.__name__, "args": args, "fork": fork}
        reply = self._ask(request, timeout_s)
        result: T = reply["value"]
        return result

    def _ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        number = next(self._ids)
        deadline = time.monotonic() + timeout_s
        self._channel.settimeout(timeout_s)
        try:
            self._channel.sendall(json.dumps({"id": number, **request}).encode() + b"\n")
            while True:
                reply = self._receive(deadline)
                if reply["id"] == number:
                    break
        except TimeoutError as error:
            raise Late(f"no answer to {request['do']} within {timeout_s:g} s") from error
        except OSError as error:
            raise Late(f"the guest ended ({error})") from error
        if "raised" in reply:
            raise CommandFailed(f"in the guest:\n{reply['raised']}")
        return reply

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            self._channel.settimeout(max(0.001, deadline - time.monotonic()))
            data = self._channel.recv(1 << 16)
            if not data:
                raise OSError("end of file")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply
