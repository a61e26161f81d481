"""The bundle directory and what a create writes into it and into the run directory."""

from __future__ import annotations

import json
import os
from typing import Final

from uvmd.api.transaction import Undo
from uvmd.host.containers import Container
from uvmd.host.context import Context
from uvmd.host.operations.places import root_above
from uvmd.linux import paths
from uvmd.linux.files import write_all
from uvmd.linux.trees import remove_tree
from uvmd.oci.shape.tee import wants_log_mount
from uvmd.oci.spec import Spec

# With a user namespace the container's root is not the VM's and must get through to its rootfs.
_BUNDLE_MODE: Final = 0o755


def prepare(ctx: Context, container: Container, spec: Spec, undo: Undo) -> None:
    """Make the working directory, the journal entry, the bundle and its ``config.json``.

    Raises OSError, ELOOP if a component of the bundle's path is a symlink.
    """
    work = ctx.work_dir(container.id)
    root = root_above(container.bundle, ctx.settings.bundle_roots, "OciBundlePath")
    os.makedirs(root, mode=0o755, exist_ok=True)
    _refuse_symlinks(ctx, container.scratch)
    container.made_bundle = not os.path.isdir(container.bundle)
    os.mkdir(work, 0o700)
    undo.callback(remove_tree, work, step="remove the working directory")
    ctx.journal.save(container)
    undo.callback(ctx.journal.remove, container.id, step="remove the journal entry")
    fd, made = paths.ensure_directory_beneath(root, os.path.relpath(container.bundle, root), _BUNDLE_MODE)
    try:
        undo.callback(paths.remove_empty, made, step="remove the bundle")
        if container.tee_log or wants_log_mount(spec):
            _make_logs(fd, container.logs, undo)
        _write_config(fd, container.bundle, spec, undo)
    finally:
        os.close(fd)


def _refuse_symlinks(ctx: Context, scratch: str) -> None:
    """Delete will remove the scratch directory, so the way to it must be what it says."""
    if not scratch:
        return
    root = root_above(scratch, ctx.settings.bundle_roots, "ScratchDirPath")
    try:
        os.close(paths.open_beneath(root, os.path.relpath(scratch, root), os.O_PATH))
    except FileNotFoundError:
        pass


def _make_logs(bundle_fd: int, path: str, undo: Undo) -> None:
    try:
        os.mkdir("logs", 0o755, dir_fd=bundle_fd)
    except FileExistsError:
        return
    os.chmod("logs", 0o755, dir_fd=bundle_fd)
    undo.callback(remove_tree, path, step="remove the logs directory")


def _write_config(bundle_fd: int, bundle: str, spec: Spec, undo: Undo) -> None:
    """Write ``config.json``; one that was there before is put aside for the undo.

    Never through an existing name: a symlink there would be a way to overwrite any file.
    """
    name = "config.json"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, 0o600, dir_fd=bundle_fd)
        undo.callback(os.unlink, f"{bundle}/{name}", step="remove config.json")
    except FileExistsError:
        os.rename(name, f"{name}.before", src_dir_fd=bundle_fd, dst_dir_fd=bundle_fd)
        undo.callback(os.rename, f"{bundle}/{name}.before", f"{bundle}/{name}", step="put config.json back")
        fd = os.open(name, flags, 0o600, dir_fd=bundle_fd)
    write_all(
        fd, (json.dumps(spec, ensure_ascii=False, separators=(",", ":")) + "\n").encode("utf-8", "replace")
    )
