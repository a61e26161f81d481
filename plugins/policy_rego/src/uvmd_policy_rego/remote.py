"""The daemon's end of policyd: ask, wait no longer than allowed, and put another in its place.

What does not answer is killed. Whoever asks next finds a new one, made from the policy's
text and from what the daemon has kept.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from uvmd.api import Limits, MakeService, Service
from uvmd_policy_rego import protocol
from uvmd_policy_rego.protocol import Broken, receive_answer, send_question

#: A service that was just started has to import the engine first.
_START_S = 20.0


class Unanswered(Exception):
    """policyd did not answer and is gone; the text says why."""


def nothing() -> None:
    """There is nothing to do meanwhile."""


class Channel(Protocol):
    """A way to a desk (``desk.py``), wherever it is."""

    def attach(self) -> bool:
        """Reach one that runs already; False if none does."""

    def start(self) -> None:
        """Make a new one.

        Raises:
            Unanswered: it could not be started.
        """

    def ask(
        self, op: int, body: bytes, timeout_s: float, meanwhile: Callable[[], None] = nothing
    ) -> dict[str, Any]:
        """Ask one question; ``meanwhile`` is called before its answer is waited for.

        Raises:
            Unanswered: it did not answer, and has been ended.
        """

    def end(self) -> None:
        """End it, if it runs."""


class Remote:
    """A desk in the process of a service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._socket: socket.socket | None = None

    def attach(self) -> bool:
        """Reach the process that an earlier daemon has started."""
        try:
            self._connect()
        except OSError:
            return False
        return True

    def start(self) -> None:
        """Start a new process.

        Raises:
            Unanswered: it could not be started.
        """
        self._hang_up()
        try:
            self._service.start()
            self._connect()
        except OSError as error:
            raise Unanswered(f"policyd could not be started: {error.strerror or error}") from error
        self.ask(protocol.HELLO, b"", _START_S)

    def ask(
        self, op: int, body: bytes, timeout_s: float, meanwhile: Callable[[], None] = nothing
    ) -> dict[str, Any]:
        """Ask one question.

        Raises:
            Unanswered: it did not answer, and has been killed.
        """
        sock = self._socket
        if sock is None:
            raise Unanswered("policyd does not run")
        try:
            send_question(sock, op, body, time.monotonic() + timeout_s)
            meanwhile()
            answer: dict[str, Any] = json.loads(receive_answer(sock, time.monotonic() + timeout_s))
            return answer
        except TimeoutError:
            why = f"no answer within {timeout_s:g} s"
        except (OSError, Broken):
            why = "policyd has ended, of a limit or a fault"
        except ValueError:
            why = "policyd's answer makes no sense"
        self.end()
        raise Unanswered(why)

    def end(self) -> None:
        """Kill the process, if it runs."""
        self._hang_up()
        self._service.kill()

    def _connect(self) -> None:
        self._socket = socket.socket(fileno=self._service.connect(time.monotonic() + 1))

    def _hang_up(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()


class Local:
    """A desk on a thread of this process: for tools and tests, where nobody is to be guarded from it."""

    def __init__(self) -> None:
        self._call: Callable[[int, bytes], bytes] | None = None
        self._close: Callable[[], None] = lambda: None

    def attach(self) -> bool:
        """There is none."""
        return False

    def start(self) -> None:
        """Make a new one."""
        from uvmd_policy_rego.worker import Worker

        self.end()
        worker = Worker()
        self._call, self._close = worker.handle, worker.close

    def ask(
        self, op: int, body: bytes, timeout_s: float, meanwhile: Callable[[], None] = nothing
    ) -> dict[str, Any]:
        """Ask one question; it may take as long as it will.

        Raises:
            Unanswered: an error that nobody foresaw.
        """
        if self._call is None:
            raise Unanswered("policyd does not run")
        meanwhile()
        try:
            answer: dict[str, Any] = json.loads(self._call(op, body))
        except Exception as error:
            self.end()
            raise Unanswered(f"the policy could not be evaluated: {type(error).__name__}") from error
        return answer

    def end(self) -> None:
        """Let it go."""
        self._close()
        self._call, self._close = None, lambda: None


def policyd(make_service: MakeService, digest: str, memory_mib: int) -> Remote:
    """Return the way to the policyd of one policy; nothing is started."""
    import uvmd
    import uvmd_policy_rego

    main = f"{os.path.dirname(__file__)}/policyd/__main__.py"
    folders = [_parent(uvmd_policy_rego.__file__), _parent(uvmd.__file__), _engine_folder()]
    argv = [sys.executable, "-I", "-S", main, *dict.fromkeys(folders)]
    # One a policy: two that are being set at once do not take each other's place.
    return Remote(make_service(f"policyd-{digest[:16]}", argv, Limits(memory_mib << 20)))


def _parent(init_file: str | None) -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(init_file or "")))


def _engine_folder() -> str:
    """Return the folder that holds the engine, without importing it here."""
    from importlib.util import find_spec

    found = find_spec("regorus")
    return _parent(found.origin if found is not None else None)
