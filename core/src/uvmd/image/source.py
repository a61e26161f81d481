"""From a path to the trees it holds: a directory, a tar, or an OCI layout's layers."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from uvmd.image import layers, oci, spool
from uvmd.image.blobs import LAYOUT_FILES, Blobs, DirectoryFiles, find_layout
from uvmd.image.checking import Check, require_digest
from uvmd.image.content import Region
from uvmd.image.directory import read_directory
from uvmd.image.errors import BadSource
from uvmd.image.progress import Meter, Progress, silent
from uvmd.image.tars import Layer, read_tar
from uvmd.image.tree import Tree

_STDIN: Final = 0
_MAGIC_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class SourceLayer:
    """One layer, not read yet."""

    #: The blob's digest and that of its tar, where the source has them.
    digest: str
    diff_id: str
    #: How much is read for it: a blob's length, 0 where that is not known ahead.
    size: int
    #: Reads it; what must stay open for the tree's files is closed by the stack.
    parse: Callable[[ExitStack], Layer]

    @contextmanager
    def tree(self) -> Iterator[Tree]:
        """Give the layer's tree, whiteouts as overlayfs wants them.

        Raises:
            BadSource: it is damaged, or holds what no tree can hold. That it is damaged may
                come out at the end: what was made of the tree counts only then.
        """
        with ExitStack() as stack:
            yield _checked(layers.as_overlay(self.parse(stack)), stack)


@dataclass(frozen=True, slots=True)
class Source:
    """What a path turned out to be."""

    #: ``directory``, ``tar`` or ``oci``.
    kind: str
    #: Base first.
    layers: Sequence[SourceLayer]
    #: An OCI image's configuration: its command, environment and so on stand under ``config``.
    config: Mapping[str, Any] = field(default_factory=dict)

    @contextmanager
    def squashed(self) -> Iterator[Tree]:
        """Give the one tree that all layers make together; raises as ``SourceLayer.tree``."""
        with ExitStack() as stack:
            yield _checked(layers.squash(layer.parse(stack) for layer in self.layers), stack)


def _checked(tree: Tree, stack: ExitStack) -> Tree:
    """Require the tree's digests when the stack ends, before what they are read from is closed."""

    def require(kind: object, error: object, trace: object) -> None:
        if error is None:
            for check in tree.checks:
                check.require()

    stack.push(require)
    return tree


@contextmanager
def open_source(
    path: str,
    *,
    platform: str = "",
    reference: str = "",
    spool_directory: str = "",
    progress: Progress = silent,
) -> Iterator[Source]:
    """Open a directory, a tar (plain, gzip or zstd; ``-`` is stdin) or an OCI layout.

    Args:
        platform: which image of a layout, like ``linux/arm64``; this machine's by default.
        reference: which image of a layout, by its name.
        spool_directory: where compressed archives are unpacked, into unnamed files; by
            default the system's place for temporary files.

    Raises:
        BadSource: it is none of these, or is damaged.
        NoSpace: what is unpacked does not fit.
    """
    with ExitStack() as stack:
        opener = _Opener(stack, spool_directory or tempfile.gettempdir(), progress)
        yield opener.open(path, platform, reference)


class _Opener:
    def __init__(self, stack: ExitStack, spool_directory: str, progress: Progress) -> None:
        self._stack, self._spool_directory, self._progress = stack, spool_directory, progress

    def open(self, path: str, platform: str, reference: str) -> Source:
        fd = _STDIN if path == "-" else self._open_file(path)
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            files = DirectoryFiles(fd, self._stack)
            if all(files.region(name) is not None for name in LAYOUT_FILES):
                return self._layout(Blobs(files, path), platform, reference)
            layer = SourceLayer("", "", 0, lambda _: Layer(read_directory(fd)))
            return _single("directory", layer, path, platform, reference)
        archive = self._archive(fd, mode, "stdin" if path == "-" else path)
        found = find_layout(archive)
        if found is not None:
            return self._layout(Blobs(found, archive.name), platform, reference)
        layer = SourceLayer("", "", 0, lambda _: read_tar(archive))
        return _single("tar", layer, path, platform, reference)

    def _open_file(self, path: str) -> int:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise BadSource(f"cannot open {path}: {error.strerror}") from error
        self._stack.callback(os.close, fd)
        return fd

    def _archive(self, fd: int, mode: int, name: str) -> Region:
        if stat.S_ISREG(mode):
            archive = Region(fd, 0, os.fstat(fd).st_size, name)
        elif fd == _STDIN:
            archive = spool.spooled(sys.stdin.buffer, name, self._stack, self._spool_directory)
        elif stat.S_ISFIFO(mode):
            pipe = self._stack.enter_context(os.fdopen(os.dup(fd), "rb"))
            archive = spool.spooled(pipe, name, self._stack, self._spool_directory)
        else:
            raise BadSource(f"{name} is neither a directory nor a tar archive")
        kind = spool.find_compression(archive.read(0, min(archive.size, _MAGIC_BYTES)))
        if not kind:
            return archive
        meter = Meter("unpack", archive.size, self._progress)
        unpacked = spool.decompressed(
            archive,
            kind,
            self._stack,
            self._spool_directory,
            lambda chunk: meter.advance(len(chunk)),
            lambda _: None,
        )
        meter.end()
        return unpacked

    def _layout(self, blobs: Blobs, platform: str, reference: str) -> Source:
        found = oci.find_image(blobs, platform=platform, reference=reference)
        return Source("oci", [self._source_layer(blobs, one) for one in found.layers], found.config)

    def _source_layer(self, blobs: Blobs, one: oci.LayerBlob) -> SourceLayer:
        return SourceLayer(
            one.blob.digest, one.diff_id, one.blob.size, lambda stack: self._layer(blobs, one, stack)
        )

    def _layer(self, blobs: Blobs, one: oci.LayerBlob, stack: ExitStack) -> Layer:
        packed = blobs.blob(one.blob.digest, one.blob.size)
        if not one.compression:
            return self._plain(packed, one)
        meter = Meter("unpack", packed.size, self._progress)
        digest = hashlib.new(one.blob.digest.partition(":")[0])

        def on_input(chunk: bytes | memoryview) -> None:
            digest.update(chunk)
            meter.advance(len(chunk))

        archive = self._unpacked(packed, one, stack, on_input)
        require_digest(one.blob.digest, digest.hexdigest())
        meter.end()
        return read_tar(archive, sealed=True)

    @staticmethod
    def _plain(archive: Region, one: oci.LayerBlob) -> Layer:
        check = Check(archive, one.blob.digest)
        try:
            layer = read_tar(archive, sealed=True, check=check)
        except BadSource:
            check.require()  # what is damaged is not called odd
            raise
        if one.diff_id not in ("", one.blob.digest):
            check.require()
            raise BadSource(f"layer {one.blob.digest} is not packed, yet its diff_id is {one.diff_id}")
        return layer

    def _unpacked(self, packed: Region, one: oci.LayerBlob, stack: ExitStack, on_input: spool.Tell) -> Region:
        # A manifest may call gzip what is not packed at all; the bytes know.
        kind = spool.find_compression(packed.read(0, min(packed.size, _MAGIC_BYTES)))
        if kind != one.compression:
            raise BadSource(f"layer {one.blob.digest} is not {one.compression}, as its media type says")
        unpacked_digest = hashlib.new((one.diff_id or "sha256").partition(":")[0])
        archive = spool.decompressed(
            packed, kind, stack, self._spool_directory, on_input, unpacked_digest.update
        )
        if one.diff_id:
            require_digest(one.diff_id, unpacked_digest.hexdigest(), "the unpacked layer")
        return archive


def _single(kind: str, layer: SourceLayer, path: str, platform: str, reference: str) -> Source:
    if platform or reference:
        raise BadSource(f"{path} is no OCI layout: there is no image to choose with --platform or --ref")
    return Source(kind, [layer])
