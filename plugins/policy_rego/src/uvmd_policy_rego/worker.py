"""The one thread on which a policy lives: the engine refuses to be touched by another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from uvmd_policy_rego.session import Session

_T = TypeVar("_T")
#: The engine recurses; the daemon's own threads have small stacks.
_STACK_BYTES = 16 << 20
_Job = tuple[Callable[[Session], Any], "SimpleQueue[tuple[Any, BaseException | None]]"]


class Worker:
    """Makes a session on its thread and runs there what is to be done with it.

    Raises:
        whatever making the session raises.
    """

    def __init__(self, make: Callable[[], Session]) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        made: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        # The size is the process's, for threads to come; it is read when one starts.
        before = threading.stack_size(_STACK_BYTES)
        try:
            threading.Thread(target=_serve, args=(make, made, self._jobs), name="policy", daemon=True).start()
        finally:
            threading.stack_size(before)
        _received(made)

    def call(self, act: Callable[[Session], _T]) -> _T:
        """Run ``act`` with the session, wait, and return or raise what it does."""
        answer: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._jobs.put((act, answer))
        result: _T = _received(answer)
        return result

    def close(self) -> None:
        """Let the session go."""
        self._jobs.put(None)


def _received(answer: SimpleQueue[tuple[Any, BaseException | None]]) -> Any:
    value, error = answer.get()
    if error is not None:
        raise error
    return value


def _serve(
    make: Callable[[], Session],
    made: SimpleQueue[tuple[Any, BaseException | None]],
    jobs: SimpleQueue[_Job | None],
) -> None:
    try:
        session = make()
    except BaseException as error:
        made.put((None, error.with_traceback(None)))
        return
    made.put((None, None))
    while (job := jobs.get()) is not None:
        act, answer = job
        try:
            answer.put((act(session), None))
        except BaseException as error:
            # Without the frames, which would hold parts of the engine in another thread.
            answer.put((None, error.with_traceback(None)))
        del act, answer, job
    session.close()
