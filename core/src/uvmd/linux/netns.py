"""Network namespaces: hold one, and do something inside.

A thread cannot be trusted to come back from a namespace: should the way back fail, a pool
would go on with a thread that is somewhere else. So whoever enters is a thread of its own
that ends afterwards. What it brings back may stay inside: a netlink socket belongs for
good to the namespace in which it was made.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from uvmd.linux import proc

T = TypeVar("T")


def hold(pid: int, started: int = 0) -> int:
    """Return a descriptor that keeps the network namespace of a process alive.

    Args:
        started: the start time (``proc.start_time``) of the process that is meant; 0 for
            whichever has the pid now.

    Raises:
        ProcessLookupError: the process is gone, or another one has its pid.
        OSError: the kernel refused.
    """
    try:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ProcessLookupError(3, os.strerror(3), f"process {pid}") from None
    # After the open: had the pid changed hands before, the start time would tell.
    if started and proc.start_time(pid) != started:
        os.close(fd)
        raise ProcessLookupError(3, os.strerror(3), f"process {pid}")
    return fd


def hold_own() -> int:
    """Return a descriptor of the calling thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def run_in(namespace: int, function: Callable[[], T]) -> T:
    """Call ``function`` inside a network namespace and return what it returns.

    Raises:
        OSError: the namespace could not be entered. What the function raises is raised.
    """
    result: list[T] = []
    failed: list[BaseException] = []

    def visit() -> None:
        # Late: ctypes is nothing for the path of the start.
        from uvmd.linux import syscalls

        try:
            syscalls.setns(namespace, syscalls.CLONE_NEWNET)
            result.append(function())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=visit, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed.pop()
    return result[0]
