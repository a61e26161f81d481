"""The bundle directory and what a create writes into it and into the run directory."""

from __future__ import annotations

import json
import os
from typing import Final

from uvmd.api.transaction import Undo
from uvmd.host.containers import Container
from uvmd.host.context import Context
from uvmd.host.operations import context_dir, pod_sources, sandbox
from uvmd.host.operations.places import root_above
from uvmd.host.operations.planning import Planned
from uvmd.host.operations.written import write_new
from uvmd.linux import mount_points, paths
from uvmd.oci.shape.sources import replace_sources
from uvmd.oci.shape.tee import wants_log_mount
from uvmd.oci.spec import Spec

# With a user namespace the container's root is not the VM's and must get through to its rootfs.
BUNDLE_MODE: Final = 0o755
CONFIG: Final = "config.json"


def prepare(ctx: Context, container: Container, planned: Planned, undo: Undo) -> None:
    """Make the working directory, the journal entry, the bundle and all that belongs into it.

    Raises OSError, ELOOP if a component of a path is a symlink.
    """
    work = ctx.work_dir(container.id)
    root = root_above(container.bundle, ctx.settings.bundle_roots, "OciBundlePath")
    os.makedirs(root, mode=0o755, exist_ok=True)
    _refuse_symlinks(ctx, container.scratch)
    _note_what_is_there(ctx, container)
    os.mkdir(work, 0o700)
    undo.callback(pod_sources.remove_work_dir, work, step="remove the working directory")
    undo.callback(ctx.journal.remove, container.id, step="remove the journal entry")
    ctx.journal.save(container)
    fd, made = paths.ensure_directory_beneath(root, os.path.relpath(container.bundle, root), BUNDLE_MODE)
    try:
        undo.callback(paths.remove_empty, made, step="remove the bundle")
        sandbox.make_shared(ctx, container, planned, wants_log_mount(planned.spec), undo)
        places = pod_sources.make(ctx, container, planned.sources, undo)
        context_dir.make(container, planned.context, undo)
        config = _encode(replace_sources(planned.spec, places))
        write_new(fd, container.bundle, CONFIG, config, 0o600, undo)
    finally:
        os.close(fd)


def _note_what_is_there(ctx: Context, container: Container) -> None:
    """Before the journal's first entry: the next daemon must know what not to remove."""
    # What others have made on the way, too: whichever bundle goes last takes it along.
    noted = [other.made_parents for other in ctx.registry.containers()]
    above = mount_points.directories_of(container.bundle, noted)
    container.made_parents = tuple(made for made in above if made != container.bundle)
    container.made_bundle = not os.path.isdir(container.bundle)
    container.made_root = container.is_sandbox and not os.path.isdir(container.sandbox_root)
    names = (*sandbox.NAMES, CONFIG)
    container.existed = tuple(
        name
        for name in names
        if os.path.lexists(f"{container.bundle if name == CONFIG else container.sandbox_root}/{name}")
    )


def _refuse_symlinks(ctx: Context, scratch: str) -> None:
    """Delete will remove the scratch directory, so the way to it must be what it says."""
    if not scratch:
        return
    root = root_above(scratch, ctx.settings.bundle_roots, "ScratchDirPath")
    try:
        os.close(paths.open_beneath(root, os.path.relpath(scratch, root), os.O_PATH))
    except FileNotFoundError:
        pass


def _encode(spec: Spec) -> bytes:
    return (json.dumps(spec, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
