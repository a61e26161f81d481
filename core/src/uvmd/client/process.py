"""One started process: its pid, its streams, its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uvmd.client.connection import Pending
from uvmd.client.errors import BadResponse
from uvmd.client.streams import Stdio, Streams

if TYPE_CHECKING:
    from uvmd.client.client import Client

#: A wait without end, as the wire says it.
INFINITE_MS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Output:
    """What a process that ran to its end left behind."""

    status: int
    stdout: bytes
    stderr: bytes


class Process:
    """A process that the daemon started for us.

    Made by the client's ``run_init``, ``exec`` and ``run_external``. Leaving it as a
    context manager closes its streams; it does not end the process.
    """

    def __init__(self, client: Client, container_id: str, pid: int, streams: Streams) -> None:
        self.container_id = container_id
        #: In the VM's root pid namespace.
        self.pid = pid
        self.streams = streams
        #: time.monotonic() when the exit code arrived; 0.0 until then.
        self.ended = 0.0
        self._client = client
        self._waiting: Pending | None = None

    def attach(self, stdio: Stdio, *, on_broken: Callable[[], None] | None = None) -> None:
        """Copy between our descriptors and the streams, in the background."""
        self.streams.copy(stdio, on_broken=on_broken)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Return the exit code, or None when the time is up. May be repeated until it came.

        The streams must be attached, collected or closed: the exit code comes only after
        the outputs were read to their end.

        Raises:
            RemoteError: nobody can say any more; another wait has fetched the code.
        """
        if self._waiting is None:
            self._waiting = self._client.submit_wait(self.container_id, self.pid)
        if not self._waiting.wait(timeout_s):
            return None
        status = exit_code(self._waiting)
        self.ended = self.ended or time.monotonic()
        self.streams.finish()
        return status

    def collect(self, stdin: bytes = b"") -> Output:
        """Feed *stdin*, gather all output, wait for the end."""
        stdout, stderr = self.streams.collect(stdin)
        status = self.wait()
        if status is None:
            raise BadResponse("a wait without limit ended without an exit code")
        return Output(status, stdout, stderr)

    def signal(self, number: int) -> None:
        """Send a signal; 0 is SIGKILL."""
        self._client.signal(self.container_id, self.pid, number)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the process's terminal."""
        self._client.resize(self.container_id, self.pid, rows=rows, columns=columns)

    def close(self) -> None:
        """Close the streams and forget an unfinished wait."""
        if self._waiting is not None and not self._waiting.done:
            self._waiting.abandon()
            self._waiting = None
        self.streams.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def exit_code(pending: Pending) -> int:
    """Return the exit code of an answered WaitForProcess.

    Raises:
        RemoteError: the wait failed.
        BadResponse: the answer carries no number.
    """
    code = pending.result().get("ExitCode")
    if not isinstance(code, int):
        raise BadResponse("WaitForProcess was answered without an ExitCode")
    return code
