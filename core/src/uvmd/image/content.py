"""Where the bytes of files lie before they are in an image: windows on open or named files.

A ``Content`` is a list of spans of data; between them a file reads as zeros. The image is
made in two passes over it (``scan``, ``build``), so it must say when it changed in between.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from uvmd.image.errors import BadSource

if TYPE_CHECKING:
    from uvmd.image.checking import Check

#: ext4's block size here, dm-verity's too (spec storage.md 6.1).
BLOCK: Final = 4096
#: How much is read at once.
WINDOW_BYTES: Final = 1 << 20
#: Logical block numbers of ext4 have 32 bits, and the last one is reserved.
MAX_FILE_BYTES: Final = ((1 << 32) - 1) * BLOCK


@dataclass(frozen=True, slots=True)
class Span:
    """*length* bytes that a file has at *logical*, found at *at* of the opened descriptor."""

    logical: int
    length: int
    at: int

    @property
    def end(self) -> int:
        return self.logical + self.length


class Content(Protocol):
    """The bytes of one regular file."""

    @property
    def size(self) -> int:
        """Its length in bytes."""

    @property
    def spans(self) -> Sequence[Span]:
        """Where data is, ascending and apart from each other."""

    @property
    def check(self) -> Check | None:
        """What is to be told of the bytes that are read, if somebody is."""

    def opened(self) -> AbstractContextManager[int]:
        """Give a descriptor for the spans; raises BadSource when the file is not what it was."""


@dataclass(frozen=True, slots=True)
class Region:
    """A window on an open file: an archive, or a blob in one. Closing is the opener's business."""

    fd: int
    offset: int
    size: int
    name: str

    def read(self, at: int, count: int) -> bytes:
        """Return exactly *count* bytes from *at*.

        Raises:
            BadSource: the window or its file ends before.
        """
        if at < 0 or count < 0 or at + count > self.size:
            raise BadSource(f"{self.name} is cut off: {count} bytes are missing at offset {at}")
        found = os.pread(self.fd, count, self.offset + at)
        while len(found) < count:
            more = os.pread(self.fd, count - len(found), self.offset + at + len(found))
            if not more:
                raise BadSource(f"{self.name} became shorter while it was read")
            found += more
        return found

    def chunks(self) -> Iterator[bytes]:
        """Yield the whole window in order."""
        for at in range(0, self.size, WINDOW_BYTES):
            yield self.read(at, min(WINDOW_BYTES, self.size - at))


@dataclass(frozen=True, slots=True)
class ArchiveContent:
    """A member of an archive that stays open and is not compressed (any more)."""

    region: Region
    size: int
    spans: Sequence[Span]
    check: Check | None = None

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Give the archive's descriptor."""
        yield self.region.fd


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file below a directory that is open; known again by what stat said of it."""

    root_fd: int
    path: bytes
    size: int
    spans: Sequence[Span]
    #: Device, inode, size, mtime and ctime in nanoseconds.
    identity: tuple[int, ...]

    @property
    def check(self) -> None:
        """Nobody is told: the file itself is looked at again."""
        return None

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Open the file, and look again at its end: a live tree must not give a wrong image."""
        fd = open_unchanged(self.root_fd, self.path, self.identity)
        try:
            yield fd
            self._require_unchanged(fd)
        finally:
            os.close(fd)

    def _require_unchanged(self, fd: int) -> None:
        if identity_of(os.fstat(fd)) != self.identity:
            raise changed(self.path)


def identity_of(status: os.stat_result) -> tuple[int, ...]:
    """Return what tells that a file is the same and holds the same."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def open_unchanged(root_fd: int, path: bytes, identity: tuple[int, ...]) -> int:
    """Open *path* below *root_fd*; what stands there must be what was seen before.

    Raises:
        BadSource: it is gone, cannot be read, or is another file (a race, or an attack with
            a symbolic link on the way).
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY, dir_fd=root_fd)
    except OSError as error:
        hint = "; run as root" if isinstance(error, PermissionError) and os.geteuid() else ""
        raise BadSource(f"cannot read '{os.fsdecode(path)}': {error.strerror}{hint}") from error
    if identity_of(os.fstat(fd)) != identity:
        os.close(fd)
        raise changed(path)
    return fd


def changed(path: bytes) -> BadSource:
    """Return the error for a tree that somebody writes to."""
    return BadSource(f"'{os.fsdecode(path)}' changed while it was read: make the image of a tree at rest")


def windows(content: Content, fd: int) -> Iterator[tuple[int, memoryview]]:
    """Yield (first block, bytes) for every stretch of blocks with data in them.

    A stretch is a whole number of blocks, zero-padded, and only valid until the next one.

    Raises:
        BadSource: the file ends before its spans do.
    """
    spans, check = content.spans, content.check
    # Most files are far smaller than a window, and there are many of them.
    buffer = bytearray(min(WINDOW_BYTES, -(-content.size // BLOCK) * BLOCK))
    view = memoryview(buffer)
    index = block = 0
    while index < len(spans):
        block = max(block, spans[index].logical // BLOCK)
        begin, filled = block * BLOCK, 0
        while index < len(spans):
            span = spans[index]
            first = max(span.logical, begin + filled)
            last = min(span.end, begin + WINDOW_BYTES)
            gap = first - begin - filled
            # Past the window, or so far off that whole blocks between have nothing to offer.
            if first >= last or gap >= BLOCK:
                break
            buffer[filled : filled + gap] = bytes(gap)
            piece, at = view[first - begin : last - begin], span.at + first - span.logical
            read_into(fd, piece, at)
            if check is not None:
                check.saw(at, piece)
            filled = last - begin
            if last < span.end:
                break
            index += 1
        padding = -filled % BLOCK
        buffer[filled : filled + padding] = bytes(padding)
        yield block, view[: filled + padding]
        block += (filled + padding) // BLOCK


def read_into(fd: int, into: memoryview, at: int) -> None:
    """Fill *into* from an offset of an opened content.

    Raises:
        BadSource: the file ends before, or cannot be read.
    """
    done = 0
    while done < len(into):
        try:
            count = os.preadv(fd, [into[done:]], at + done)
        except OSError as error:
            raise BadSource(f"reading at byte {at + done} of a file failed: {error.strerror}") from error
        if not count:
            raise BadSource("a file became shorter while it was read: make the image of a tree at rest")
        done += count
