"""The last 128 KiB that a stream has sent, to be sent again to a host that comes back.

Kept in a memfd, as a ring: file pages are the kernel's, the monitor's own memory stays
small however many containers run. The live path duplicates pipe buffers (tee(2)) and
splices them into the ring, so nothing passes through the monitor's memory either.
"""

from __future__ import annotations

import fcntl
import os

from uvmd.monitor import _sys

SIZE_BYTES = 131_072

_MOVE_BYTES = 1 << 20


class Scratch:
    """The pipe in which a chunk waits between tee(2) and the ring; one for all streams."""

    def __init__(self, pipe_bytes: int) -> None:
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # Room for whatever the largest pipe that it duplicates can hold; with less, it is
        # duplicated in more steps.
        try:
            fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, pipe_bytes)
        except OSError:
            pass
        self._sink = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)

    def copy_of(self, source: int) -> int:
        """Duplicate what waits in a pipe, as much as fits; return its size, 0 at the end.

        Raises:
            BlockingIOError: nothing waits.
        """
        return _sys.tee(source, self.write_end, _MOVE_BYTES)

    def drop(self, count: int) -> None:
        """Forget the next count bytes."""
        while count > 0:
            count -= os.splice(self.read_end, self._sink, count)


class History:
    """A ring of the last ``SIZE_BYTES`` bytes.

    Remembering never fails: where there is no descriptor or no memory for it, what came so
    far is forgotten. What is remembered then is shorter, and still without a hole.
    """

    __slots__ = ("_memfd", "_written")

    def __init__(self) -> None:
        self._memfd = -1
        self._written = 0

    def take(self, scratch: Scratch, count: int) -> None:
        """Move the next count bytes out of the scratch pipe, into the ring or into nothing."""
        if count > SIZE_BYTES:
            # Not even copied: the rest of this chunk alone fills the ring.
            scratch.drop(count - SIZE_BYTES)
            self._written += count - SIZE_BYTES
            count = SIZE_BYTES
        while count > 0:
            at = self._written % SIZE_BYTES
            try:
                moved = os.splice(scratch.read_end, self._file(), min(count, SIZE_BYTES - at), offset_dst=at)
            except OSError:
                self._written = 0
                # The pipe is everybody's: left there, this would be the next stream's history.
                scratch.drop(count)
                return
            self._written += moved
            count -= moved

    def append(self, data: bytes | memoryview) -> None:
        """Add bytes."""
        view = memoryview(data)[-SIZE_BYTES:]
        try:
            while view:
                at = self._written % SIZE_BYTES
                done = os.pwrite(self._file(), view[: SIZE_BYTES - at], at)
                self._written += done
                view = view[done:]
        except OSError:
            self._written = 0

    def read(self) -> bytes:
        """Return what is remembered, oldest first."""
        if not self._written:
            return b""
        if self._written <= SIZE_BYTES:
            return os.pread(self._file(), self._written, 0)
        at = self._written % SIZE_BYTES
        return os.pread(self._file(), SIZE_BYTES - at, at) + os.pread(self._file(), at, 0)

    def close(self) -> None:
        """Give the memory back."""
        if self._memfd >= 0:
            os.close(self._memfd)
            self._memfd = -1
        self._written = 0

    def _file(self) -> int:
        # Made with the first byte: most streams of most containers stay silent.
        if self._memfd < 0:
            self._memfd = os.memfd_create("uvmd-history", os.MFD_CLOEXEC)
        return self._memfd
