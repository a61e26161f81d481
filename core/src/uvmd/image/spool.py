"""Archives made readable at any place: compressed ones, and pipes, become unnamed files.

The only room beside the monitor that starts a program: ``zstd -dc``, in uvmctl's own process,
for which Python has no module before 3.14. The daemon never comes here.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import IO, BinaryIO, Final

from uvmd.image.content import WINDOW_BYTES, Region
from uvmd.image.errors import BadSource, system_error
from uvmd.image.output import write_all

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_FRAME: Final = b"\x2a\x4d\x18"
_OTHERS: Final = {b"\xfd7zXZ\0": "xz", b"BZh": "bzip2", b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "unzip"}
#: A gzip member (RFC 1952), with zlib's largest window.
_GZIP_WINDOW: Final = 31
_INPUT_BYTES: Final = 256 << 10

Tell = Callable[[bytes], None]


def find_compression(start: bytes) -> str:
    """Return ``gzip``, ``zstd`` or nothing, by the first bytes of a file.

    Raises:
        BadSource: it is compressed in a way that is not read here.
    """
    if start.startswith(_GZIP):
        return "gzip"
    if start.startswith(_ZSTD) or (start[1:4] == _SKIPPABLE_FRAME and start[0] & 0xF0 == 0x50):
        return "zstd"
    for magic, tool in _OTHERS.items():
        if start.startswith(magic):
            raise BadSource(f"the archive is packed by {tool}; gzip and zstd are read, so unpack it first")
    return ""


def decompressed(
    source: Region, kind: str, stack: ExitStack, directory: str, on_input: Tell, on_output: Tell
) -> Region:
    """Decompress into an unnamed file in *directory*, which *stack* closes.

    Args:
        on_input: called with the compressed bytes in their order, *on_output* with the others.

    Raises:
        BadSource: the data is damaged or cut off.
        NoSpace: it does not fit.
    """
    size = 0
    with _saying(source.name, directory):
        fd = stack.enter_context(_unnamed(directory)).fileno()
        chunks = _gunzip(source, on_input) if kind == "gzip" else _unzstd(source, on_input)
        for chunk in chunks:
            on_output(chunk)
            write_all(fd, chunk, size)
            size += len(chunk)
    return Region(fd, 0, size, source.name)


def spooled(pipe: BinaryIO, name: str, stack: ExitStack, directory: str) -> Region:
    """Copy what a pipe gives into an unnamed file, which *stack* closes."""
    size = 0
    with _saying(name, directory):
        fd = stack.enter_context(_unnamed(directory)).fileno()
        while chunk := pipe.read(WINDOW_BYTES):
            write_all(fd, chunk, size)
            size += len(chunk)
    return Region(fd, 0, size, name)


def _unnamed(directory: str) -> AbstractContextManager[IO[bytes]]:
    return tempfile.TemporaryFile(dir=directory)


@contextmanager
def _saying(name: str, directory: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise system_error(error, f"cannot keep the contents of {name} below {directory}") from error


def _gunzip(source: Region, on_input: Tell) -> Iterator[bytes]:
    member = zlib.decompressobj(_GZIP_WINDOW)
    begun = False
    for at in range(0, source.size, _INPUT_BYTES):
        data = source.read(at, min(_INPUT_BYTES, source.size - at))
        on_input(data)
        while data:
            # Several members behind each other are one file; zeros between and behind are padding.
            if not begun and not (data := data.lstrip(b"\0")):
                break
            begun = True
            try:
                # Bounded, or a few KiB could ask for GiB of memory.
                if found := member.decompress(data, WINDOW_BYTES):
                    yield found
            except zlib.error as error:
                raise BadSource(f"{source.name}: its gzip data is damaged ({error})") from error
            data = member.unused_data if member.eof else member.unconsumed_tail
            if member.eof:
                member, begun = zlib.decompressobj(_GZIP_WINDOW), False
    if begun:
        while found := member.decompress(member.unconsumed_tail, WINDOW_BYTES):
            yield found
        if not member.eof:
            raise BadSource(f"{source.name} is cut off: its gzip data does not end")


def _unzstd(source: Region, on_input: Tell) -> Iterator[bytes]:
    try:
        program = subprocess.Popen(
            ["zstd", "-dcq", "--no-progress"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise BadSource(f"{source.name} is packed by zstd, and the program zstd is not installed") from error
    failures: list[BadSource] = []
    with program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stderr is not None
        feeder = threading.Thread(target=_feed, args=(source, program.stdin, on_input, failures), daemon=True)
        feeder.start()
        try:
            while chunk := program.stdout.read(WINDOW_BYTES):
                yield chunk
            words = program.stderr.read(4096).decode(errors="replace").strip()
        except BaseException:
            program.kill()
            raise
        finally:
            feeder.join()
    if failures:
        raise failures[0]
    if program.returncode:
        raise BadSource(f"{source.name}: its zstd data is damaged or cut off ({words})")


def _feed(source: Region, pipe: BinaryIO, on_input: Tell, failures: list[BadSource]) -> None:
    try:
        with pipe:
            for chunk in source.chunks():
                on_input(chunk)
                pipe.write(chunk)
    except BrokenPipeError:
        # It gave up on the data and says why itself.
        pass
    except BadSource as failure:
        failures.append(failure)
