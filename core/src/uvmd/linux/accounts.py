"""The passwd and group files of a container's image, read as its own processes would see them.

Tolerant of what images hold: short lines and bad numbers count as empty and 0 (spec
containers.md 7.2, policy.md 9.9). What a match means is the caller's business.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from uvmd.linux import paths

# An image decides the size of its files; the daemon's memory is not the image's.
_MAX_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class User:
    """A line of passwd."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Group:
    """A line of group."""

    name: str
    gid: int


@dataclass(frozen=True, slots=True)
class Accounts:
    """Both files; None stands for a file that is not there."""

    users: tuple[User, ...] | None
    groups: tuple[Group, ...] | None


def _number(text: str) -> int:
    # int() also takes underscores and other scripts' digits.
    digits = text[1:] if text[:1] in ("+", "-") else text
    return int(text) if digits.isascii() and digits.isdigit() else 0


def _lines(text: str) -> Iterable[list[str]]:
    for line in text.split("\n"):
        if stripped := line.strip():
            fields = stripped.split(":")
            yield fields + [""] * (4 - len(fields))


def parse_passwd(text: str) -> tuple[User, ...]:
    """Parse /etc/passwd. A line that starts with ``#`` is a line like any other."""
    return tuple(User(f[0], _number(f[2]), _number(f[3])) for f in _lines(text))


def parse_group(text: str) -> tuple[Group, ...]:
    """Parse /etc/group; lines that start with ``#`` are skipped."""
    return tuple(Group(f[0], _number(f[2])) for f in _lines(text) if not f[0].startswith("#"))


def read_accounts(root: str) -> Accounts:
    """Read both files beneath the container's root directory, symlinks resolved inside it."""
    try:
        root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Accounts(None, None)
    try:
        passwd, group = _read(root_fd, "/etc/passwd"), _read(root_fd, "/etc/group")
    finally:
        os.close(root_fd)
    return Accounts(
        None if passwd is None else parse_passwd(passwd),
        None if group is None else parse_group(group),
    )


def _read(root_fd: int, path: str) -> str | None:
    try:
        # Looked at before it is opened: opening a device of the image could do anything.
        found = paths.open_in_root(root_fd, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        about = os.fstat(found)
        if not stat.S_ISREG(about.st_mode):
            return None
        size = min(about.st_size, _MAX_BYTES)
        with open(f"/proc/self/fd/{found}", "rb") as file:
            # Room for what may be read is made first, so not for the most in any case.
            data = file.read(size + 1)
            if len(data) > size:
                data += file.read(_MAX_BYTES + 1 - len(data))
    finally:
        os.close(found)
    if len(data) > _MAX_BYTES:
        raise OSError(errno.EFBIG, f"larger than {_MAX_BYTES} bytes", path)
    return data.decode("utf-8", "replace")
