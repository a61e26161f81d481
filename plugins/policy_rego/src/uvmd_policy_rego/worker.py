"""The one thread on which a policy lives: the engine refuses to be touched by another."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import Any

from uvmd_policy_rego.desk import Desk

#: The engine recurses; threads usually have small stacks.
_STACK_BYTES = 16 << 20
_Job = tuple[int, bytes, "SimpleQueue[Any]"]


class Worker:
    """A desk on a thread of its own."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        # The size is the process's, for threads to come; it is read when one starts.
        before = threading.stack_size(_STACK_BYTES)
        try:
            threading.Thread(target=_serve, args=(self._jobs,), name="policy", daemon=True).start()
        finally:
            threading.stack_size(before)

    def handle(self, op: int, body: bytes) -> bytes:
        """Have the desk answer, and return or raise what it does."""
        answered: SimpleQueue[Any] = SimpleQueue()
        self._jobs.put((op, body, answered))
        answer = answered.get()
        if isinstance(answer, BaseException):
            raise answer
        result: bytes = answer
        return result

    def close(self) -> None:
        """Let the desk go."""
        self._jobs.put(None)


def _serve(jobs: SimpleQueue[_Job | None]) -> None:
    desk = Desk()
    while (job := jobs.get()) is not None:
        op, body, answered = job
        try:
            answered.put(desk.handle(op, body))
        except BaseException as error:
            # Without the frames, which would hold parts of the engine in another thread.
            answered.put(error.with_traceback(None))
        del answered, job
    desk.close()
