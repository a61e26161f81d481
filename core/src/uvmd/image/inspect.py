"""What a layer image is, and whether it holds what it claims; ours or another tool's."""

from __future__ import annotations

import os
import uuid as uuids
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from uvmd.errors import Failed
from uvmd.image import vhd
from uvmd.image.content import BLOCK, WINDOW_BYTES
from uvmd.image.errors import BadImage
from uvmd.image.ext4 import superblock
from uvmd.image.progress import Meter, Progress, silent
from uvmd.image.verity import DIGEST_BYTES, ZERO_BLOCK, Digest, level_blocks, salted_digest
from uvmd.linux import verity

_PIECE_BYTES: Final = 64 << 20
#: Bad blocks that a verification names; the rest it counts.
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What a file says of itself; nothing of it is checked."""

    size: int
    ext4_bytes: int
    block_size: int
    #: In hexadecimal; empty when there is no hash tree, and then *why_no_tree* says why.
    root_hash: str
    salt: str
    algorithm: str
    why_no_tree: str
    tree_bytes: int
    inodes: int
    label: str
    uuid: str
    read_only: bool
    journal: bool
    vhd_footer: bool

    @property
    def is_ours(self) -> bool:
        """Whether uvmctl made it, by the label."""
        return self.label == superblock.LABEL.decode()


def read_info(path: Path) -> ImageInfo:
    """Look at an image.

    Raises:
        BadImage: it cannot be read, or is no ext4 filesystem.
    """
    with _opened(path) as file:
        return _info(path, file)


def dm_table(path: Path, device: str) -> str:
    """Return the line that ``dmsetup create --table`` takes, for an image that lies on *device*.

    Raises:
        BadImage: it has no hash tree.
    """
    with _opened(path) as file:
        target = verity.table(_verity(path, file), device)
    return f"{target.start} {target.length} {target.type} {target.params}"


def verify(path: Path, *, root_hash: str = "", progress: Progress = silent) -> ImageInfo:
    """Check every block against the tree, the tree against its root, and the root if it is given.

    Raises:
        BadImage: something does not match; says which blocks.
    """
    with _opened(path) as file:
        info = _verity(path, file)
        if root_hash and info.root_digest != root_hash.lower():
            raise BadImage(f"{path} has the root hash {info.root_digest}, and not {root_hash.lower()}")
        digest = salted_digest(bytes.fromhex(info.salt))
        leaves = _checked_tree(path, file, info, digest)
        _check_data(path, file, leaves, digest, Meter("verify", info.ext4_bytes, progress))
        return _info(path, file)


def _opened(path: Path) -> BinaryIO:
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise BadImage(f"cannot open {path}: {error.strerror}") from error


def _info(path: Path, file: BinaryIO) -> ImageInfo:
    fd = file.fileno()
    try:
        found = superblock.parse_superblock(os.pread(fd, superblock.SIZE, superblock.OFFSET))
    except BadImage as error:
        raise BadImage(f"{path}: {error}") from error
    size = os.lseek(fd, 0, os.SEEK_END)
    info, why = None, ""
    try:
        info = verity.read_info(fd)
    except Failed as error:
        why = str(error)
    return ImageInfo(
        size=size,
        ext4_bytes=found.block_size * found.blocks,
        block_size=found.block_size,
        root_hash=info.root_digest if info else "",
        salt=info.salt if info else "",
        algorithm=info.algorithm if info else "",
        why_no_tree=why,
        tree_bytes=sum(level_blocks(found.blocks)) * BLOCK if info else 0,
        inodes=found.inodes - found.free_inodes,
        label=found.label,
        uuid=str(uuids.UUID(bytes=found.uuid)),
        read_only=found.read_only,
        journal=found.journal,
        vhd_footer=size >= vhd.FOOTER_BYTES
        and vhd.is_footer(os.pread(fd, vhd.FOOTER_BYTES, size - vhd.FOOTER_BYTES)),
    )


def _verity(path: Path, file: BinaryIO) -> verity.VerityInfo:
    try:
        return verity.read_info(file.fileno())
    except Failed as error:
        raise BadImage(f"{path}: {error}") from error


def _checked_tree(path: Path, file: BinaryIO, info: verity.VerityInfo, digest: Digest) -> bytes:
    """Return the digests of the data blocks, after checking every level against the one above."""
    expected = bytes.fromhex(info.root_digest)
    at = info.ext4_bytes + BLOCK
    for depth, count in enumerate(level_blocks(info.ext4_bytes // BLOCK)):
        # In pieces: one call reads no more than 2 GiB.
        level = b"".join(
            os.pread(file.fileno(), min(_PIECE_BYTES, count * BLOCK - done), at + done)
            for done in range(0, count * BLOCK, _PIECE_BYTES)
        )
        if len(level) != count * BLOCK:
            raise BadImage(f"{path} is cut off: its hash tree ends at byte {at + len(level)}")
        for block in range(count):
            found = digest(level[block * BLOCK : (block + 1) * BLOCK])
            if found != expected[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES]:
                raise BadImage(
                    f"{path}: block {block} of level {depth} of the hash tree (byte {at + block * BLOCK})"
                    " does not match the level above"
                )
        expected, at = level, at + len(level)
    return expected


def _check_data(path: Path, file: BinaryIO, leaves: bytes, digest: Digest, meter: Meter) -> None:
    bad: list[int] = []
    zeros = digest(ZERO_BLOCK)
    for begin in range(0, meter.total, WINDOW_BYTES):
        window = os.pread(file.fileno(), min(WINDOW_BYTES, meter.total - begin), begin)
        view = memoryview(window)
        for at in range(0, len(window), BLOCK):
            block = view[at : at + BLOCK]
            found = digest(block) if window[at] or block != ZERO_BLOCK else zeros
            number = (begin + at) // BLOCK
            if found != leaves[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]:
                bad.append(number)
        meter.advance(len(window))
    meter.end()
    if bad:
        named = ", ".join(str(number) for number in bad[:_NAMED])
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise BadImage(f"{path}: blocks that do not match the hash tree (of {BLOCK} bytes): {named}{more}")
