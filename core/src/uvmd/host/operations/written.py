"""Files that a create writes, and putting back what was there before."""

from __future__ import annotations

import os

from uvmd.api.transaction import Undo
from uvmd.linux.files import write_all

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_new(directory_fd: int, directory: str, name: str, data: bytes, mode: int, undo: Undo) -> None:
    """Write a file; one that was there before is put aside for the undo.

    Never through an existing name: a symlink there would be a way to overwrite any file.
    """
    try:
        fd = os.open(name, _FLAGS, 0o600, dir_fd=directory_fd)
        undo.callback(os.unlink, f"{directory}/{name}", step=f"remove {name}")
    except FileExistsError:
        os.rename(name, f"{name}.before", src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        undo.callback(os.rename, f"{directory}/{name}.before", f"{directory}/{name}", step=f"put {name} back")
        fd = os.open(name, _FLAGS, 0o600, dir_fd=directory_fd)
    if mode != 0o600:
        os.fchmod(fd, mode)  # the daemon's umask is 077
    write_all(fd, data)


def take_back(directory: str, name: str, existed: bool) -> None:
    """Undo an earlier daemon's :func:`write_new`, however far that came."""
    path, before = f"{directory}/{name}", f"{directory}/{name}.before"
    if os.path.lexists(before):
        os.replace(before, path)
    elif not existed and os.path.lexists(path):
        os.unlink(path)
