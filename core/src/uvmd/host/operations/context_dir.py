"""The security context directory in a container's root (spec containers.md 7.12)."""

from __future__ import annotations

import os
import posixpath
from typing import Final

from uvmd.api.transaction import Undo
from uvmd.host.containers import Container
from uvmd.linux import paths
from uvmd.linux.files import write_all
from uvmd.linux.trees import remove_tree

# 16.32: readable for whoever the container runs as, written by nobody.
_DIRECTORY_MODE: Final = 0o755
_FILE_MODE: Final = 0o644
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def make(container: Container, files: dict[str, str], undo: Undo) -> None:
    """Make the directory that the record names, with its files; nothing without files.

    Raises OSError; EROFS for a root that is read-only.
    """
    if not files:
        return
    path = container.security_context
    root, name = posixpath.split(path)
    root_fd = paths.open_beneath("/", root[1:], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.mkdir(name, 0o700, dir_fd=root_fd)
        undo.callback(remove_tree, path, step="remove the security context directory")
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root_fd)
    finally:
        os.close(root_fd)
    try:
        os.fchmod(fd, _DIRECTORY_MODE)
        for file, content in files.items():
            file_fd = os.open(file, _NEW, _FILE_MODE, dir_fd=fd)
            os.fchmod(file_fd, _FILE_MODE)  # the daemon's umask is 077
            write_all(file_fd, content.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def remove(container: Container) -> None:
    """Remove the directory; with an overlay as the root it has gone already.

    Raises OSError.
    """
    if container.security_context:
        remove_tree(container.security_context)
