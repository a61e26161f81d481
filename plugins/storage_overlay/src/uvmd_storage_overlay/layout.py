"""Where an overlay's parts are, and the steps that make it and take it away.

Each step that changed something registers its opposite; what a failed Add undoes is what
it made, and nothing that was there before (the reference removes those too, which for a
repeated Add is the running container's).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

from uvmd.api import Keep, Record, Undo
from uvmd.errors import Failed
from uvmd.linux import mount_points, mounts, paths
from uvmd.linux.files import close_all
from uvmd_storage_overlay import directories, overlay
from uvmd_storage_overlay.settings import bundle_of

log = logging.getLogger(__name__)


class Layout(NamedTuple):
    """The paths of one overlay."""

    target: str
    #: The topmost first.
    layers: tuple[str, ...]
    #: Empty: read-only.
    scratch: str
    #: The bundle is to be bound onto the scratch.
    binds: bool

    @property
    def backing(self) -> str:
        """What is bound at the bundle."""
        return f"{self.scratch}/bundle"


class Ready(NamedTuple):
    """What of an overlay there is before anything is made: descriptors, which somebody else closes."""

    #: The topmost ones, as many as could be opened.
    layers: Sequence[int] = ()
    #: Of all layers.
    begun: int | None = None
    #: On the way to the scratch, and to the target.
    to_scratch: paths.Known | None = None
    to_target: paths.Known | None = None


def get_ready(layout: Layout, keep: Keep) -> Ready:
    """Do what waits for nothing and nobody sees. What fails here :func:`combine` tries again."""
    opener = directories.Opener(keep)
    layers = opener.open_known(layout.layers)
    try:
        begun = overlay.begin(layers) if len(layers) == len(layout.layers) else None
    except OSError:
        begun = None
    if begun is not None:
        keep(begun)
    to_scratch = opener.known_on_the_way(layout.scratch) if layout.scratch else None
    # What is bound at the bundle will lie over what is known of it.
    to_target = None if layout.binds else opener.known_on_the_way(bundle_of(layout.target))
    return Ready(layers, begun, to_scratch, to_target)


def combine(layout: Layout, undo: Undo, ready: Ready | None = None) -> Record:
    """Mount the overlay; return what a removal must know.

    Raises:
        Failed: naming the step, the path and the reason.
    """
    ready = ready or Ready()
    opened: list[int] = []
    keep = opened.append
    try:
        made_of = overlay.Directories(_open_layers(layout, ready.layers, keep))
        if layout.scratch:
            made_of = _make_writable(layout.scratch, made_of, undo, keep, ready.to_scratch)
        bundle_made = _bind_bundle(layout, undo, keep) if layout.binds else 0
        what = "failed to create directory for container root filesystem"
        where, made = directories.make(layout.target, what, undo, keep, ready.to_target)
        try:
            overlay.mount(where, made_of, ready.begun)
        except OSError as error:
            text = directories.told(error)
            raise Failed(f"failed to mount overlayfs at {layout.target}: {text}") from error
        undo.callback(unmount, layout.target, step=f"unmount {layout.target}")
    finally:
        close_all(opened)
    return {"made": made, "bundle_made": bundle_made}


def _open_layers(layout: Layout, there: Sequence[int], keep: Keep) -> list[int]:
    total = len(layout.layers)
    if len(there) == total:
        return [*there]
    opener, missing = directories.Opener(keep), layout.layers[len(there) :]
    numbered = enumerate(missing, 1 + len(there))
    return [*there, *(opener.open(path, f"layer {number} of {total}") for number, path in numbered)]


def _make_writable(
    scratch: str, made_of: overlay.Directories, undo: Undo, keep: Keep, known: paths.Known | None
) -> overlay.Directories:
    what = "failed to create upper directory in scratch space"
    here = paths.Known(directories.make(scratch, what, undo, keep, known)[0], scratch.count("/"))
    upper, _ = directories.make(f"{scratch}/upper", what, undo, keep, here)
    work_path = f"{scratch}/work"
    work, made = directories.make(
        work_path, "failed to create workdir in scratch space", undo, keep, here
    )
    if made:
        undo.callback(directories.empty_work, work_path, step=f"empty {work_path}")
    return made_of._replace(upper=upper, work=work)


def _bind_bundle(layout: Layout, undo: Undo, keep: Keep) -> int:
    """Put the bundle onto the scratch (spec storage.md 8.2); return how many directories it took."""
    bundle = bundle_of(layout.target)
    backing, _ = directories.make(layout.backing, "create bundle backing dir", undo, keep)
    where, made = directories.make(bundle, "create bundle dir", undo, keep)
    try:
        mounts.bind(backing, where)
    except OSError as error:
        text = directories.told(error)
        raise Failed(f"bind bundle dir {layout.backing} to {bundle}: {text}") from error
    undo.callback(unmount, bundle, step=f"unmount {bundle}")
    return made


def unmount(path: str) -> None:
    """Unmount the topmost mount at a path, none of whose parents is a symlink. Raises OSError."""
    with mounts.parent_beneath(path) as where:
        mounts.unmount(where)


def take_apart(target: str, made: int) -> None:
    """Unmount the overlay, if it is still there, and remove its directories while they are empty.

    Raises:
        Failed: it cannot be unmounted.
    """
    try:
        mounts.unmount_beneath(target)
    except OSError as error:
        raise Failed(f"unmounting overlay at {target} failed: {directories.told(error)}") from error
    mount_points.remove_last(target, made)


def unbind(bundle: str, backing: str, made: int) -> None:
    """Take a bundle off the scratch, for want of a container whose delete would.

    Raises:
        Failed: it cannot be unmounted.
    """
    try:
        if is_bound(bundle, backing):
            unmount(bundle)
    except OSError as error:
        raise Failed(f"unmounting bundle at {bundle} failed: {directories.told(error)}") from error
    mount_points.remove_last(bundle, made)
    mount_points.remove_last(backing, 1)


def is_bound(bundle: str, backing: str) -> bool:
    """Tell whether two paths are one directory by a mount at the first. Raises OSError."""
    try:
        return os.path.samestat(os.lstat(bundle), os.lstat(backing))
    except (FileNotFoundError, NotADirectoryError):
        return False


def take_away(target: str, facts: Record) -> None:
    """Remove what a daemon left that was killed in the middle of an Add. Raises OSError, Failed."""
    if any(mount.fstype == "overlay" for mount in mounts.mounted_at(target)):
        take_apart(target, 1)
    if facts["backing"]:
        unbind(bundle_of(target), facts["backing"], 1)
