"""The security context directory in a container's root (spec containers.md 7.12)."""

from __future__ import annotations

import os
import posixpath
from typing import Final

from uvmd.api.transaction import Undo
from uvmd.errors import Failed
from uvmd.host.containers import Container
from uvmd.linux import paths
from uvmd.linux.files import write_all
from uvmd.linux.trees import remove_tree, remove_tree_beneath

# 16.32: readable for whoever the container runs as, written by nobody.
_DIRECTORY_MODE: Final = 0o755
_FILE_MODE: Final = 0o644
#: What each file is called where it cannot be written (spec policy.md 3.6).
_CALLED: Final = {
    "security-policy-base64": "security policy",
    "reference-info-base64": "UVM reference info",
    "transparent-reference-info-base64": "UVM hash envelope reference info",
    "tcb-reference-info-base64": "TCB reference info",
    "platform-reference-info-base64": "platform reference info",
    "host-amd-cert-base64": "host AMD certificate",
}
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def make(container: Container, files: dict[str, str], undo: Undo) -> None:
    """Make the directory that the record names, with its files; nothing without files.

    Raises:
        Failed: naming the step; a root that is read-only, say.
    """
    if not files:
        return
    path = container.security_context
    step = "create security context directory"
    try:
        fd = _make_directory(path, undo)
        try:
            step = "chmod security context directory"
            os.fchmod(fd, _DIRECTORY_MODE)
            for file, content in files.items():
                step = f"write {_CALLED.get(file, file)}"
                _write(fd, file, content)
        finally:
            os.close(fd)
    except OSError as error:
        raise Failed(
            f"failed to write security context dir: failed to {step}: {path}: {error.strerror}"
        ) from error


def _make_directory(path: str, undo: Undo) -> int:
    root, name = posixpath.split(path)
    root_fd = paths.open_beneath("/", root[1:], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.mkdir(name, 0o700, dir_fd=root_fd)
        undo.callback(remove_tree, path, step="remove the security context directory")
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root_fd)
    finally:
        os.close(root_fd)


def _write(directory_fd: int, name: str, content: str) -> None:
    fd = os.open(name, _NEW, _FILE_MODE, dir_fd=directory_fd)
    os.fchmod(fd, _FILE_MODE)  # the daemon's umask is 077
    write_all(fd, content.encode())


def remove(container: Container) -> None:
    """Remove the directory; with an overlay as the root it has gone already.

    Raises OSError.
    """
    if container.security_context:
        remove_tree_beneath(container.security_context)
