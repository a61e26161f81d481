"""Work shared with a forked helper: hashing is nearly all of what ``uvmctl image`` does.

Not threads: SHA-256 of a block takes two microseconds, and handing the interpreter's lock
over and back for each costs, when both cores are free, more than the second core gives.
A fork has the open files and the trees without any copying. For ``uvmctl`` alone: a daemon
does not spawn.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Final, TypeVar

from uvmd.errors import UvmdError
from uvmd.image.errors import ImageError

T = TypeVar("T")
R = TypeVar("R")
#: Less work than this is done before a helper has begun.
_WORTH_BYTES: Final = 32 << 20


def shared(
    work: Callable[[T], R], items: Sequence[T], sizes: Sequence[int], own: Callable[[T], R]
) -> list[R]:
    """Return what *work* gives for each item, in their order.

    Args:
        sizes: how much work an item is, in bytes to hash.
        own: *work* as this process does it; it may tell of progress, which a helper cannot.

    Raises:
        UvmdError: the first of the errors that the work raised.
        ImageError: the helper was killed.
    """
    mine, theirs = _halves(sizes)
    if sum(sizes) < _WORTH_BYTES or not theirs or (os.cpu_count() or 1) < 2:
        return [own(item) for item in items]
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    helper = context.Process(target=_help, args=(work, [items[at] for at in theirs], sender), daemon=True)
    helper.start()
    sender.close()
    try:
        found = {at: own(items[at]) for at in mine}
        found.update(zip(theirs, _received(receiver), strict=True))
    finally:
        helper.kill()
        helper.join()
        receiver.close()
    return [found[at] for at in range(len(items))]


def _halves(sizes: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return two lists of places with about as much work in each."""
    mine, theirs, balance = list[int](), list[int](), 0
    for at in sorted(range(len(sizes)), key=lambda at: -sizes[at]):
        if balance <= 0:
            mine.append(at)
            balance += sizes[at]
        else:
            theirs.append(at)
            balance -= sizes[at]
    return sorted(mine), sorted(theirs)


def _help(work: Callable[[Any], Any], items: Sequence[Any], sender: Connection) -> None:
    # The terminal's Ctrl-C reaches both; the other one then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        answer: Any = [work(item) for item in items]
    except Exception as error:
        answer = error if isinstance(error, UvmdError) else ImageError(f"a helper failed: {error!r}")
    try:
        sender.send(answer)
    except BrokenPipeError:
        pass  # nobody waits for it any more


def _received(receiver: Connection) -> list[Any]:
    try:
        answer = receiver.recv()
    except EOFError:
        raise ImageError("a helper process was killed: is there enough memory?") from None
    if isinstance(answer, BaseException):
        raise answer
    found: list[Any] = answer
    return found
