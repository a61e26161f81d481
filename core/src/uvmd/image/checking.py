"""A blob's digest, taken from its bytes as they pass by on their way to somewhere else.

Whoever makes an image of a layer reads nearly all of its archive, in the archive's order.
So the blob need not be read twice; but nothing that was made of it counts before
:meth:`Check.require`.
"""

from __future__ import annotations

import hashlib
from typing import Final

from uvmd.image.content import WINDOW_BYTES, Region, read_into
from uvmd.image.errors import BadSource

#: Digesting in one go takes less than block by block; of use where work is divided.
COST: Final = 0.7


class Check:
    """Holds the bytes of *region* against *digest*; see the module."""

    def __init__(self, region: Region, digest: str) -> None:
        self.region = region
        #: Whether what passes by counts. Not where another process reads half of it.
        self.watches = False
        #: Whether the digest was right.
        self.proven = False
        self._digest = digest
        self._hash = hashlib.new(digest.partition(":")[0])
        self._done = 0

    def saw(self, at: int, piece: memoryview) -> None:
        """Be told of bytes that were read at an offset of the file; what lies between is read here."""
        if not self.watches:
            return
        begin = at - self.region.offset
        end = begin + len(piece)
        if end <= self._done:
            return
        self._read_to(begin)
        self._hash.update(piece[self._done - begin :])
        self._done = end

    def require(self) -> None:
        """Read the rest, and compare.

        Raises:
            BadSource: the blob is not what its digest says.
        """
        if self.proven:
            return
        self._read_to(self.region.size)
        require_digest(self._digest, self._hash.hexdigest())
        self.proven = True

    def _read_to(self, end: int) -> None:
        if end <= self._done:
            return
        # Memory that is new for every piece costs as much as hashing a third of it.
        view = memoryview(bytearray(min(end - self._done, WINDOW_BYTES)))
        while self._done < end:
            piece = view[: end - self._done]
            read_into(self.region.fd, piece, self.region.offset + self._done)
            self._hash.update(piece)
            self._done += len(piece)


def require_digest(digest: str, found: str, what: str = "blob") -> None:
    """Raise BadSource when *found*, in hex, is not what *digest* says."""
    algorithm, _, value = digest.partition(":")
    if found != value:
        raise BadSource(f"{what} {digest} is damaged: its digest is {algorithm}:{found}")
