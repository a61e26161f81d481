"""A scratch disk that only this VM, and only until it is removed, can read: dm-crypt by cryptsetup.

The key is made for one mount and lives in a memory file that the child reads; it is never
in a file system, on a command line or in an environment, and is wiped when the disk is
open. So is everything on the disk lost with the mount, which is what a scratch is for.

The LUKS header is in a memory file too. One on the disk would be read back from the host,
which may give another: one whose cipher changes nothing opens with any key (CVE-2025-59054).
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from uvmd.api import Run, Undo
from uvmd.errors import DeadlineExceeded, Failed
from uvmd.linux import devmapper, filesystems

KEY_BYTES: Final = 1024
#: cryptsetup makes it as long as it needs, 16 MiB, but takes no empty one for a header.
_HEADER_BYTES: Final = 4096
#: The descriptors that ``env.run`` gives a child.
_KEY_FILE: Final = "/proc/self/fd/3"
_HEADER_FILE: Final = "/proc/self/fd/4"
#: Every write carries a hash of its sector; nothing is written over the whole disk before,
#: which takes minutes, so what was never written cannot be read.
_FORMAT: Final = (
    "--type",
    "luks2",
    "--key-file",
    _KEY_FILE,
    "--header",
    _HEADER_FILE,
    # From the first sector on: a file system from before must not be found again, half overwritten.
    "--offset",
    "0",
    "--batch-mode",
    "--cipher",
    "aes-xts-plain64",
    "--integrity",
    "hmac-sha256",
    "--integrity-no-wipe",
    "--sector-size",
    "4096",
    # The key is random: there is no passphrase to be made hard to guess.
    "--pbkdf",
    "pbkdf2",
    "--pbkdf-force-iterations",
    "1000",
)
_OPEN: Final = (
    "--key-file",
    _KEY_FILE,
    "--header",
    _HEADER_FILE,
    "--integrity-no-journal",
    "--persistent",
)
_CLOSE_S: Final = 30.0
_AGAIN_S: Final = 0.5
#: Exit codes of cryptsetup: a device that is missing or not accessible, and one in use.
_PASSING: Final = (4, 5)


class _Tool(Failed):
    """cryptsetup said no. ``passing``: it may say yes in a moment."""

    def __init__(self, text: str, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


def open_encrypted(run: Run, device: str, name: str, deadline: float, undo: Undo) -> str:
    """Encrypt a device under a new key and open it; return the path of what can be read.

    Everything that was on it is lost. Its opposite is registered.

    Raises:
        Failed: cryptsetup says no, with its words. Nothing is open.
        DeadlineExceeded: it was killed at ``deadline`` (monotonic clock).
    """
    try:
        try:
            path = _open_once(run, device, name, deadline)
        except _Tool as error:
            if not error.passing or time.monotonic() + _AGAIN_S > deadline:
                raise
            time.sleep(_AGAIN_S)
            path = _open_once(run, device, name, deadline)
    except DeadlineExceeded as error:
        raise DeadlineExceeded(f"failed to mount encrypted device {device}: {error}") from error
    except Failed as error:
        raise Failed(f"failed to mount encrypted device {device}: {error}") from error
    undo.callback(close, run, name, step=f"close {name}")
    return path


def _open_once(run: Run, device: str, name: str, deadline: float) -> str:
    with _key() as key, _memory_file("header", _HEADER_BYTES) as header:
        fds = (key, header)
        _cryptsetup(run, ("luksFormat", device, *_FORMAT), f"luksFormat failed: {device}", deadline, fds)
        try:
            _cryptsetup(run, ("luksOpen", device, name, *_OPEN), f"luksOpen failed: {device}", deadline, fds)
            path = f"{devmapper.DIRECTORY}/{name}"
            _zero_first_block(path)
        except BaseException:
            take_away(run, name)
            raise
    return path


@contextmanager
def _memory_file(what: str, size: int) -> Iterator[int]:
    """Give the descriptor of a file without a name: it goes with the last process that has it."""
    try:
        fd = os.memfd_create(what, os.MFD_CLOEXEC)
    except OSError as error:
        raise Failed(f"failed to generate {what}: {(error.strerror or '').lower()}") from error
    try:
        os.ftruncate(fd, size)
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _key() -> Iterator[int]:
    """Give the descriptor of a memory file with a new key in it, which is wiped at the end."""
    with _memory_file("keyfile", KEY_BYTES) as fd, mmap.mmap(fd, KEY_BYTES) as memory:
        # Straight into the file's page: no copy of it is left in this process.
        with open("/dev/urandom", "rb", buffering=0) as random, memoryview(memory) as view:
            got = random.readinto(view)
        if got != KEY_BYTES:
            raise Failed(f"failed to generate keyfile: {got} of {KEY_BYTES} random bytes")
        try:
            yield fd
        finally:
            memory[:] = bytes(KEY_BYTES)


def _zero_first_block(path: str) -> None:
    """Write the first block, which mkfs.xfs reads: what was never written does not verify."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            size = os.lseek(fd, 0, os.SEEK_END)
            if size < 4096:
                raise Failed(f"failed to zero first block: {path} has {size} bytes")
            os.pwrite(fd, bytes(4096), 0)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise Failed(f"failed to zero first block: {path}: {(error.strerror or '').lower()}") from error


def close(run: Run, name: str) -> None:
    """Close an encrypted device; fine if it is not open.

    Raises:
        Failed: it is in use, or cryptsetup says no.
    """
    if devmapper.exists(name):
        deadline = time.monotonic() + _CLOSE_S
        _cryptsetup(run, ("luksClose", name), f"luksClose failed: {name}", deadline)


def take_away(run: Run, name: str) -> None:
    """Remove whatever a cryptsetup that failed or was killed left of a device."""
    try:
        close(run, name)
    except Failed:
        devmapper.remove(name)
    # The part that checks the hashes, below the one that decrypts.
    devmapper.remove(f"{name}_dif")


def _cryptsetup(
    run: Run, arguments: Sequence[str], what: str, deadline: float, fds: Sequence[int] = ()
) -> None:
    try:
        done = run(["cryptsetup", *arguments], deadline=deadline, fds=fds)
    except OSError as error:
        raise Failed(f"{what}: cryptsetup: {(error.strerror or str(error)).lower()}") from error
    if done.timed_out:
        raise DeadlineExceeded(f"{what}: cryptsetup was killed at its deadline")
    if done.status != 0:
        text = f"{what}: {filesystems.last_words(done.output)}: exit status {done.status}"
        raise _Tool(text, done.status in _PASSING)
