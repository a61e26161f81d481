"""Sources of mounts that lie in a pod's directories (spec containers.md 7.9, 7.10), and a strict VM's.

The pod's other containers write there. So each source is opened without following a symlink,
and what was opened is bound to a place of the daemon's own, which is what the runtime is given:
by the source's path it would look again, and find what was put there meanwhile (16.28).

In a strict VM all sources go this way: a host may name what a container writes to, or it itself.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from uvmd.api.transaction import Undo
from uvmd.errors import Refused
from uvmd.host.containers import Container
from uvmd.host.context import Context
from uvmd.linux import mounts, paths
from uvmd.linux.trees import remove_tree
from uvmd.oci.shape.sources import PodSource, Sources

_MODE: Final = 0o777  # whoever the containers run as
_STAGED: Final = "mounts"
#: What may be bound that no container has made: sockets and devices of the VM, too.
_OTHERS: Final = (stat.S_IFDIR, stat.S_IFREG, stat.S_IFSOCK, stat.S_IFIFO, stat.S_IFBLK, stat.S_IFCHR)


def lock_keys(pod_id: str, sources: Sources) -> list[str]:
    """Return names to lock: two creates that make one directory must not undo each other's."""
    return [f"pod:{pod_id}/{source.below}" for source in sources.pod]


def make(ctx: Context, container: Container, sources: Sources, undo: Undo) -> dict[str, str]:
    """Make the sources that are missing; return for each path the place where it is bound.

    Raises:
        OSError: ELOOP for a symlink on the way.
        Refused: the source is neither a directory nor a file.
    """
    places: dict[str, str] = {}
    staged = f"{ctx.work_dir(container.id)}/{_STAGED}"
    for source in sources.pod:
        path = f"{container.sandbox_root}/{source.below}"
        fd = _open(container.sandbox_root, path, source, undo)
        _stage(fd, path, staged, places, (stat.S_IFDIR, stat.S_IFREG))
    for path in sources.others:
        if path not in places:
            _stage(_open_other(path), path, staged, places, _OTHERS)
    return places


def release(ctx: Context, container: Container) -> None:
    """Take the daemon's own places away again: the container has its mounts.

    Raises OSError.
    """
    staged = f"{ctx.work_dir(container.id)}/{_STAGED}"
    if os.path.isdir(staged):
        unmount_below(staged)
        remove_tree(staged)


def remove_work_dir(work: str) -> None:
    """Remove a container's working directory, with whatever a failed create left mounted in it."""
    if os.path.isdir(f"{work}/{_STAGED}"):
        unmount_below(f"{work}/{_STAGED}")
    remove_tree(work)


def unmount_below(staged: str) -> None:
    """Unmount the places; the sources stay, and all that is mounted in them."""
    for name in os.listdir(staged):
        try:
            mounts.detach(f"{staged}/{name}")
        except OSError as error:
            if error.errno != errno.EINVAL:  # not mounted
                raise


def _open(root: str, path: str, source: PodSource, undo: Undo) -> int:
    """Open a source, making its directories where there is nothing."""
    top = f"{root}/{source.directory}"
    if not source.relative:
        return os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return paths.open_beneath(top, source.relative, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        pass
    fd, made = paths.ensure_directory_beneath(top, source.relative, _MODE)
    undo.callback(paths.remove_empty, made, step=f"remove {source.below}")
    if not source.page_size:
        return fd
    try:
        mounts.mount("none", fd, "hugetlbfs", data=f"pagesize={source.page_size}")
        undo.callback(mounts.unmount, path, mounts.MNT_DETACH, step=f"unmount {source.below}")
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)
    return paths.open_beneath(top, source.relative, os.O_PATH | os.O_CLOEXEC)


def _open_other(path: str) -> int:
    try:
        return paths.open_in_vm(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"mount source {path:.200}") from None


def _stage(fd: int, path: str, staged: str, places: dict[str, str], kinds: tuple[int, ...]) -> None:
    """Bind what was opened to the next place, and close it. Its undo is the working directory's removal."""
    try:
        kind = stat.S_IFMT(os.fstat(fd).st_mode)
        if kind not in kinds:
            raise Refused(f"mount source {path}: neither a directory nor a file")
        place = f"{staged}/{len(places)}"
        os.makedirs(staged, mode=0o700, exist_ok=True)
        if kind == stat.S_IFDIR:
            os.mkdir(place, 0o700)
        else:
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        mounts.bind(fd, place, recursive=True)
        places[path] = place
    finally:
        os.close(fd)
