"""Where the blobs of an OCI layout lie: files of a directory, or members of a tar."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import ExitStack
from typing import Final, Protocol

from uvmd.image.checking import require_digest
from uvmd.image.content import Region
from uvmd.image.errors import BadSource
from uvmd.image.tar_headers import read_members
from uvmd.image.tree import parse_path

LAYOUT_FILES: Final = ("oci-layout", "index.json")
#: What else lies at the root of a layout, or of what ``docker save`` writes.
_AT_ROOT: Final = re.compile(r"blobs|oci-layout|(index|manifest)\.json|repositories|[0-9a-f]{64}(\.json)?")
_MAX_FILE_BYTES: Final = 4 << 20


class Files(Protocol):
    """Opens files of a layout by their path in it."""

    def region(self, path: str) -> Region | None:
        """Return a file's bytes, or None when there is none."""


class DirectoryFiles:
    """A layout as a directory; what is opened stays open until *stack* ends."""

    def __init__(self, root_fd: int, stack: ExitStack) -> None:
        self._root_fd, self._stack = root_fd, stack

    def region(self, path: str) -> Region | None:
        """Open a file."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._root_fd)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise BadSource(f"cannot read {path}: {error.strerror}") from error
        self._stack.callback(os.close, fd)
        return Region(fd, 0, os.fstat(fd).st_size, path)


class ArchiveFiles:
    """A layout in a tar archive that is not compressed."""

    def __init__(self, archive: Region, found: dict[str, tuple[int, int]]) -> None:
        self._archive, self._found = archive, found

    def region(self, path: str) -> Region | None:
        """Return a member's bytes."""
        if path not in self._found:
            return None
        at, size = self._found[path]
        return Region(self._archive.fd, self._archive.offset + at, size, path)


def find_layout(archive: Region) -> ArchiveFiles | None:
    """Return the files of an archive that holds an OCI layout; None for any other.

    Raises:
        BadSource: it is no tar, or what older Dockers save.
    """
    found: dict[str, tuple[int, int]] = {}
    for member in read_members(archive):
        path = [os.fsdecode(part) for part in parse_path(member.name, "entry")]
        # The first name that no layout has ends the search, so a root file system is not read twice.
        if path and not _AT_ROOT.fullmatch(path[0]):
            return None
        if member.kind in (b"0", b"\0", b"7") and len(member.spans) <= 1:
            found["/".join(path)] = (member.spans[0].at if member.spans else 0, member.size)
    if all(name in found for name in LAYOUT_FILES):
        return ArchiveFiles(archive, found)
    if "manifest.json" in found:
        raise BadSource(
            f"{archive.name} is a docker-archive, not an OCI layout: save it with Docker 25 or later,"
            " or convert it: skopeo copy docker-archive:IN oci:OUT"
        )
    return None


class Blobs:
    """The files of a layout, checked against their digests."""

    def __init__(self, files: Files, name: str) -> None:
        self._files = files
        self.name = name

    def file(self, path: str) -> bytes:
        """Return a small file of the layout that no digest protects."""
        region = self._files.region(path)
        if region is None:
            raise BadSource(f"{self.name} is no OCI layout: it has no {path}")
        if region.size > _MAX_FILE_BYTES:
            raise BadSource(f"{self.name}: {path} has {region.size} bytes: refused")
        return region.read(0, region.size)

    def blob(self, digest: str, size: int) -> Region:
        """Return a blob whose size is right; its digest is the reader's to check.

        Raises:
            BadSource: it is missing or has another size.
        """
        algorithm, _, value = digest.partition(":")
        region = self._files.region(f"blobs/{algorithm}/{value}")
        if region is None:
            raise BadSource(f"{self.name} lacks the blob {digest}: copy the image whole, with all platforms")
        if region.size != size:
            raise BadSource(f"blob {digest} has {region.size} bytes, and {size} are claimed for it")
        return Region(region.fd, region.offset, region.size, f"blob {digest}")

    def checked(self, digest: str, size: int) -> bytes:
        """Return a small blob after checking its digest."""
        region = self.blob(digest, size)
        content = region.read(0, region.size)
        require_digest(digest, hashlib.new(digest.partition(":")[0], content).hexdigest())
        return content
