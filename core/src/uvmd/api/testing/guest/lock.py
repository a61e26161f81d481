"""One test run with guests at a time on a machine: two would both miss their deadlines.

The lock belongs to the process and is held while any of its guests runs.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
import time
from pathlib import Path

#: Of the machine, not of a checkout; nobody can open the file of another user in a sticky folder.
PATH = Path(tempfile.gettempdir()) / f"uvmd-guests-{os.getuid()}.lock"
PATIENCE_S = 900

_fd = -1
_holders: set[int] = set()


def acquire(guest: int) -> None:
    """Take the lock, or add one more guest of ours; says whom it waits for."""
    global _fd
    if _fd < 0:
        _fd = _wait()
    _holders.add(guest)


def release(guest: int) -> None:
    """Give up one guest's share; a second call for the same guest does nothing."""
    global _fd
    _holders.discard(guest)
    if not _holders and _fd >= 0:
        os.close(_fd)
        _fd = -1


def _wait() -> int:
    fd = os.open(PATH, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + PATIENCE_S
    told = False
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                told = True
                holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
                print(f"\nwaiting for process {holder}, which runs guests", file=sys.stderr, flush=True)
            if time.monotonic() > deadline:
                os.close(fd)
                raise AssertionError(f"another run kept its guests for {PATIENCE_S} s") from None
            time.sleep(0.2)
        else:
            os.truncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
            return fd
