"""The kernel's log: one record a read of /dev/kmsg (Documentation/ABI/testing/dev-kmsg)."""

from __future__ import annotations

import errno
import os
import re
from typing import Final, NamedTuple

DEVICE: Final = "/dev/kmsg"
#: A read with less room than the record fails; the kernel's largest is far smaller.
_RECORD_BYTES: Final = 128 << 10
PRIORITIES: Final = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
_PREFIX: Final = re.compile(rb"([0-9]{1,9}),([0-9]{1,20}),([0-9]{1,20}),([^,;\n]*)(?:,[^;\n]*)?;")
_ESCAPE: Final = re.compile(rb"\\x([0-9a-f]{2})")


class Record(NamedTuple):
    """One record. ``priority`` is 0 (emerg) to 7 (debug), ``facility`` 0 for the kernel itself."""

    priority: int
    facility: int
    sequence: int
    boot_us: int
    flags: str
    text: str

    @property
    def priority_name(self) -> str:
        """The name of the priority, as dmesg(1) has it."""
        return PRIORITIES[self.priority]


class Overwritten(Exception):
    """The kernel overwrote records before they were read."""


def parse_record(data: bytes) -> Record:
    """Return the record of one read. The lines below the first (``KEY=value``) are left out.

    Raises:
        ValueError: it does not begin as a record does.
    """
    found = _PREFIX.match(data)
    if found is None:
        raise ValueError("no record of the kernel's log")
    number = int(found[1])
    line = data[found.end() :].partition(b"\n")[0]
    text = _ESCAPE.sub(lambda escape: bytes.fromhex(escape[1].decode()), line)
    return Record(
        number & 7,
        number >> 3,
        int(found[2]),
        int(found[3]),
        found[4].decode("utf-8", "replace"),
        text.decode("utf-8", "replace").strip(),
    )


class KernelLog:
    """The log, from its oldest record on, or from now on.

    Raises OSError: there is none, or it may not be read.
    """

    def __init__(self, *, from_start: bool, path: str = DEVICE) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if not from_start:
            os.lseek(self._fd, 0, os.SEEK_END)

    def next_record(self) -> bytes:
        """Wait for the next record; nothing at the end of a log that has one (a file).

        Raises:
            Overwritten: some are missing; the next call goes on behind them.
            OSError: it cannot be read any more.
        """
        try:
            return os.read(self._fd, _RECORD_BYTES)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise Overwritten from error
            raise

    def close(self) -> None:
        """Close the log."""
        os.close(self._fd)


def is_the_log(fd: int) -> bool:
    """Tell whether what is written to ``fd`` becomes a record: to forward those would never end."""
    try:
        return os.fstat(fd).st_rdev == os.stat(DEVICE).st_rdev != 0
    except OSError:
        return False
