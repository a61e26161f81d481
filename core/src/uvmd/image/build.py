"""From a tree to a layer image (spec storage.md 6): scan, place, write, seal."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from uvmd.image import vhd
from uvmd.image.checking import COST, Check
from uvmd.image.content import BLOCK, Content
from uvmd.image.ext4.plan import Plan, plan
from uvmd.image.ext4.writer import block_zero, content_uuid, write_metadata
from uvmd.image.helper import shared
from uvmd.image.output import Blocks, replacing, write_all
from uvmd.image.progress import Meter, Progress, silent
from uvmd.image.scan import Scanned, scan
from uvmd.image.tree import Tree
from uvmd.image.verity import DIGEST_BYTES, digest_of, encode_superblock, level_blocks, tree_levels


@dataclass(frozen=True, slots=True)
class Image:
    """A layer image that was made, or only computed."""

    root_hash: str
    #: The filesystem's length, which is where the hash tree begins.
    ext4_bytes: int
    #: The whole file's length.
    size: int
    #: Files of all kinds, a hard-linked one counted once.
    files: int
    uuid: str


def build_image(
    tree: Tree,
    path: Path | None,
    *,
    with_vhd_footer: bool = False,
    alone: bool = False,
    progress: Progress = silent,
) -> Image:
    """Make the image of a tree that ``finish()`` was called on.

    The bytes depend on the tree alone: not on the order of its entries, the day, the
    machine, or whether files were sparse.

    Args:
        path: the file to make or replace; None computes the root hash and writes nothing.
        with_vhd_footer: end it as a fixed VHD; the root hash is the same.
        alone: hash in this process; without, half of it is a helper's.

    Raises:
        BadSource: the tree does not fit into ext4, or changed meanwhile.
        NoSpace: there is not enough room for the file.
    """
    scanned = _scan_files(tree, alone, progress)
    layout = plan(tree, scanned)
    if path is None:
        return _write(layout, None, with_vhd_footer, progress)
    size = _image_bytes(layout.geometry.blocks, with_vhd_footer)
    with replacing(path, size) as fd:
        return _write(layout, fd, with_vhd_footer, progress)


def _scan_files(tree: Tree, alone: bool, progress: Progress) -> dict[int, Scanned]:
    found = {id(inode): inode.content for _, inode in tree.walk() if inode.content is not None}
    sizes = {which: sum(span.length for span in content.spans) for which, content in found.items()}
    meter = Meter("hash", sum(sizes.values()), progress)
    if alone:
        for check in tree.checks:
            check.watches = True
        # In the archive's order nothing has to be read again for its digest.
        order = sorted(found, key=lambda which: found[which].spans[0].at if sizes[which] else 0)
        scanned = {which: scan(found[which], meter.advance) for which in order}
        for check in tree.checks:
            check.require()
    else:
        scanned = _scan_shared(found, sizes, tree.checks, meter)
    meter.end()
    return scanned


def _scan_shared(
    found: dict[int, Content], sizes: dict[int, int], checks: list[Check], meter: Meter
) -> dict[int, Scanned]:
    def work(one: Content | Check, advance: Callable[[int], None]) -> Scanned:
        if not isinstance(one, Check):
            return scan(one, advance)
        one.require()
        return Scanned()

    items: list[Content | Check] = [*found.values(), *checks]
    costs = [*sizes.values(), *(int(check.region.size * COST) for check in checks)]
    # The helper is about as far, and cannot say so.
    done = shared(
        lambda one: work(one, lambda _: None),
        items,
        costs,
        lambda one: work(one, lambda count: meter.advance(2 * count)),
    )
    for check in checks:
        check.proven = True  # by the helper, perhaps
    return dict(zip(found, done, strict=False))


def _write(layout: Plan, fd: int | None, with_vhd_footer: bool, progress: Progress) -> Image:
    blocks = Blocks(fd, layout.geometry.blocks)
    meter = Meter("write", layout.data_blocks * BLOCK if fd is not None else 0, progress)
    write_metadata(layout, blocks)
    for one in layout.placed:
        if one.inode.content is not None and one.scanned.blocks:
            blocks.put_file(
                layout.data + one.data_at, one.inode.content, one.scanned.runs, one.scanned.digests
            )
            meter.advance(one.scanned.blocks * BLOCK)
    meter.end()
    seal = hashlib.sha256(memoryview(blocks.digests)[DIGEST_BYTES:]).digest()
    blocks.put(0, block_zero(layout, seal))
    ext4_bytes = layout.geometry.blocks * BLOCK
    levels = tree_levels(blocks.digests)
    root = digest_of(levels[0])
    if fd is not None:
        superblock = encode_superblock(content_uuid(b"verity", root), layout.geometry.blocks)
        write_all(fd, superblock + b"".join(levels), ext4_bytes)
        if with_vhd_footer:
            disk = _image_bytes(layout.geometry.blocks, False)
            write_all(fd, vhd.encode_footer(disk, content_uuid(b"vhd", root)), disk)
    return Image(
        root_hash=root.hex(),
        ext4_bytes=ext4_bytes,
        size=_image_bytes(layout.geometry.blocks, with_vhd_footer),
        files=len(layout.placed),
        uuid=content_uuid(b"ext4", seal).hex(),
    )


def _image_bytes(blocks: int, with_vhd_footer: bool) -> int:
    return (blocks + 1 + sum(level_blocks(blocks))) * BLOCK + (vhd.FOOTER_BYTES if with_vhd_footer else 0)
