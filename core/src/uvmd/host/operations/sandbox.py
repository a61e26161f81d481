"""What the containers of a pod share: files, directories of mounts, the cgroup (spec containers.md 6.2).

A standalone container has the files and the logs for itself.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import Final

from uvmd.api.transaction import Undo
from uvmd.errors import Failed, UvmdError
from uvmd.host.containers import Container
from uvmd.host.context import Context
from uvmd.host.operations import runtime_undo
from uvmd.host.operations.places import root_above
from uvmd.host.operations.planning import Planned
from uvmd.host.operations.written import take_back, write_new
from uvmd.host.pods import Pod
from uvmd.linux import cgroup_limits, mounts, paths
from uvmd.linux.trees import remove_tree, remove_tree_beneath
from uvmd.oci.role import Kind
from uvmd.oci.shape.network_files import NAMES as FILES
from uvmd.oci.shape.sources import HUGEPAGE_MOUNTS, SANDBOX_MOUNTS, TMPFS_MOUNTS

log = logging.getLogger(__name__)

LOGS: Final = "logs"
#: Directories that are mounts of their own, so that what is mounted below one shows in its copies.
SHARED: Final = (SANDBOX_MOUNTS, TMPFS_MOUNTS, HUGEPAGE_MOUNTS)
NAMES: Final = (*FILES, LOGS, *SHARED)

_MODE: Final = 0o755
_FILE_MODE: Final = 0o644


def make_shared(ctx: Context, container: Container, planned: Planned, wants_logs: bool, undo: Undo) -> None:
    """Make what is shared, if the container is the one to make it.

    Raises OSError.
    """
    wants_logs = wants_logs or bool(container.tee_log) or container.is_sandbox
    if container.role.kind is Kind.WORKLOAD or not (planned.files or wants_logs):
        return
    path = container.sandbox_root
    top = root_above(path, ctx.settings.bundle_roots, "the pod's directory")
    fd, made = paths.ensure_directory_beneath(top, os.path.relpath(path, top), _MODE)
    try:
        undo.callback(paths.remove_empty, made, step="remove the pod's directory")
        for name, text in planned.files.items():
            write_new(fd, path, name, text.encode(), _FILE_MODE, undo)
        if wants_logs:
            _make_directory(fd, path, LOGS, undo)
        if container.is_sandbox:
            for name in SHARED:
                _make_mount(fd, path, name, undo)
            _make_cgroup(ctx, container, planned, undo)
    finally:
        os.close(fd)


def _make_directory(root_fd: int, root: str, name: str, undo: Undo) -> bool:
    """Make a directory, and tell whether it was not there. Refuses anything else of that name."""
    try:
        os.mkdir(name, _MODE, dir_fd=root_fd)
        undo.callback(remove_tree, f"{root}/{name}", step=f"remove {name}")
        made = True
    except FileExistsError:
        made = False
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root_fd)
    try:
        if made:
            os.fchmod(fd, _MODE)  # the daemon's umask is 077
    finally:
        os.close(fd)
    return made


def _make_mount(root_fd: int, root: str, name: str, undo: Undo) -> None:
    made = _make_directory(root_fd, root, name, undo)
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root_fd)
    path = f"{root}/{name}"
    try:
        if name == TMPFS_MOUNTS:
            mounts.mount("tmpfs", fd, "tmpfs", data="mode=0755")
        else:
            mounts.bind(fd, fd, recursive=not made)
        undo.callback(mounts.detach, path, step=f"unmount {name}")
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)
    # Opened anew: the descriptor above is of what lies below the mount.
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root_fd)
    try:
        mounts.make_shared(fd)
    finally:
        os.close(fd)


def _make_cgroup(ctx: Context, container: Container, planned: Planned, undo: Undo) -> None:
    group = ctx.pod_cgroup(container.role.pod_id)
    undo.callback(runtime_undo.remove_cgroup, ctx, group, step="remove the pod's cgroup")
    ctx.cgroups.ensure_group(group)
    cgroup_limits.write(ctx.cgroups, group, planned.pod_limits)


# Taking down


def take_down_mounts(container: Container) -> None:
    """Unmount everything in the shared directories, the newest first, and remove their mount points.

    Nobody of the pod is left; what is busy all the same is detached, to go with its last user.

    Raises:
        Failed: something stays mounted.
    """
    if container.is_sandbox:
        _unmount_shared(container.sandbox_root)


def _unmount_shared(root: str) -> None:
    # The kernel's names of mounts have no symlinks; an operator's bundle root may be one.
    root = os.path.realpath(root)
    for name in SHARED:
        path = f"{root}/{name}"
        try:
            _unmount_tree(path)
        except OSError as error:
            raise Failed(f"unmount {error.filename or path}: {error.strerror}") from error


def _unmount_tree(path: str) -> None:
    try:
        mounts.unmount_tree(path)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        mounts.unmount_tree(path, mounts.MNT_DETACH)


def remove_root(ctx: Context, container: Container) -> None:
    """Remove the directory of a virtual pod, which no bundle contains, and the one above if empty.

    Raises OSError, ELOOP for a symlink on the way.
    """
    if not container.is_sandbox or container.sandbox_root == container.bundle:
        return
    root = root_above(container.sandbox_root, ctx.settings.bundle_roots, "the pod's directory")
    remove_tree_beneath(container.sandbox_root, root)
    paths.remove_empty([os.path.dirname(container.sandbox_root)])


def remove_cgroup(ctx: Context, container: Container) -> None:
    """Remove the pod's cgroup.

    Raises:
        Failed: it will not go.
    """
    if not container.is_sandbox:
        return
    group = ctx.pod_cgroup(container.role.pod_id)
    try:
        runtime_undo.remove_cgroup(ctx, group)
    except OSError as error:
        raise Failed(f"cgroup {group}: {error.filename}: {error.strerror}") from error


def take_down_lost(ctx: Context, pod: Pod) -> None:
    """Take down a pod whose sandbox nobody knows any more. What fails is logged."""
    try:
        _unmount_shared(pod.root)
        runtime_undo.remove_cgroup(ctx, pod.cgroup)
    except (UvmdError, OSError) as error:
        log.error(
            "pod without a sandbox could not be taken down, ignoring",
            extra={"pod": pod.id, "error": str(error)},
        )


def undo_interrupted(ctx: Context, container: Container) -> None:
    """Take back what a create that was interrupted had made, however far it came.

    Raises OSError, Failed.
    """
    take_down_mounts(container)
    if container.role.kind is Kind.WORKLOAD:
        return
    for name in FILES:
        take_back(container.sandbox_root, name, name in container.existed)
    for name in (LOGS, *SHARED):
        if name not in container.existed and (name == LOGS or container.is_sandbox):
            remove_tree(f"{container.sandbox_root}/{name}")
    remove_cgroup(ctx, container)
    if container.made_root and container.sandbox_root != container.bundle:
        paths.remove_empty([os.path.dirname(container.sandbox_root), container.sandbox_root])
