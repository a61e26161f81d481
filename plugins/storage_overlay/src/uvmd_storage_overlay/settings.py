"""The settings of CombinedLayers, and what they must be before anything is asked.

Everything here goes by texts alone: whether a path exists is nobody's business before the
policy has said yes.
"""

from __future__ import annotations

import json
import posixpath
import re
from typing import Final

from uvmd.api import Field, Items, WireModel
from uvmd.errors import Refused
from uvmd.linux import paths

#: As many as the kernel stacks in one overlay (OVL_MAX_STACK in fs/overlayfs/params.h).
MAX_LAYERS: Final = 500
_STRICT_ID: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
#: Not made for each container's id: compiling one takes longer than most system calls here.
_STRICT_SCRATCH: Final = re.compile(r"/run/gcs/c/[0-9a-fA-F]{64}/scratch/([0-9a-fA-F-]+)", re.ASCII)
#: The id that stands for the VM itself; the reference lets it through here too.
_VM_ID: Final = "00000000-0000-0000-0000-000000000000"


class Layer(WireModel):
    """A directory that the overlay shows; a host also sends an id, which only it knows."""

    path: str = Field("", alias="Path")


class CombinedLayersSettings(WireModel):
    """The first layer is the topmost. A Remove may send the root path alone."""

    container_id: str = Field("", alias="ContainerID")
    container_root_path: str = Field("", alias="ContainerRootPath")
    layers: Items[Layer] = Field((), alias="Layers")
    scratch_path: str = Field("", alias="ScratchPath")


def bundle_of(root_path: str) -> str:
    """Return the bundle directory in which a container's root lies."""
    return posixpath.dirname(root_path)


def owner_of(settings: CombinedLayersSettings) -> str:
    """Return the id of the container; where a host leaves it out, the bundle is named after it."""
    return settings.container_id or posixpath.basename(bundle_of(settings.container_root_path))


def needs_bind(scratch: str, bundle: str) -> bool:
    """Tell whether the bundle must be put on the scratch disk by a bind (spec storage.md 8.2).

    A scratch that is the bundle, or lies in it, means that it is there already.
    """
    return bool(scratch) and scratch != bundle and not paths.is_below(scratch, bundle)


def require_root_path(path: str) -> None:
    """Refuse a root path at which nothing could be mounted.

    Raises:
        Refused: it is empty, no absolute clean path, or has no directory above it.
    """
    if not path:
        raise Refused("cannot have empty target")
    _require_path("ContainerRootPath", path)
    if bundle_of(path) == "/":
        raise Refused("CombinedLayers: ContainerRootPath lies in no bundle")


def require_addable(settings: CombinedLayersSettings) -> None:
    """Refuse settings of which no overlay can be made, whatever the policy says.

    Raises:
        Refused: naming the field and the reason.
    """
    require_root_path(settings.container_root_path)
    if not 0 < len(settings.layers) <= MAX_LAYERS:
        raise Refused(f"CombinedLayers: {len(settings.layers)} Layers, there must be 1 to {MAX_LAYERS}")
    for number, layer in enumerate(settings.layers):
        _require_path(f"Layers[{number}].Path", layer.path)
    if settings.scratch_path:
        _require_path("ScratchPath", settings.scratch_path)
    elif len(settings.layers) == 1:
        # The kernel's own answer would be "invalid argument".
        raise Refused("CombinedLayers: without ScratchPath there must be two Layers or more")


def _require_path(field: str, path: str) -> None:
    if not paths.is_clean_absolute(path) or path == "/":
        raise Refused(f"CombinedLayers: {field} is not an absolute, clean path")


def require_strict_places(settings: CombinedLayersSettings) -> None:
    """Refuse, in a strict VM, all but the exact paths of a container (spec storage.md 8.1).

    Raises:
        Refused: in the reference's words.
    """
    owner, target, scratch = settings.container_id, settings.container_root_path, settings.scratch_path
    if owner != _VM_ID and not _STRICT_ID.fullmatch(owner):
        raise Refused(f"invalid container id: {owner:.140} (must match ^[0-9a-fA-F]{{64}}$)")
    expected = f"/run/gcs/c/{owner}/rootfs"
    if target != expected:
        raise Refused(
            f"combined layers target {quoted(target)} does not match expected path {quoted(expected)}"
        )
    found = _STRICT_SCRATCH.fullmatch(scratch)
    if scratch and (found is None or found[1] != owner):
        pattern = f"^/run/gcs/c/[0-9a-fA-F]{{64}}/scratch/{owner}$"
        raise Refused(f"scratch path {quoted(scratch)} must match regex {quoted(pattern)}")


def quoted(text: str) -> str:
    """Return a text as the reference writes one of the host's: in quotes, with escapes."""
    return json.dumps(text[:300], ensure_ascii=False)
