"""Root hashes of layers: given, read from an image that a host made, or computed for ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from uvmd.image import SourceLayer, build_image, open_source, read_info, verify
from uvmd.image.helper import shared
from uvmd.image.progress import Progress, silent
from uvmd_policy_rego.tools.errors import PolicyToolError

_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Layers:
    """Root hashes, base first; where they are from; an OCI image's configuration."""

    hashes: list[str]
    origins: list[str]
    image_config: Mapping[str, Any] = field(default_factory=dict)


def listed_layers(
    listed: Sequence[str], folder: Path, *, check: bool = False, progress: Progress = silent
) -> Layers:
    """Return the layers of a list whose entries are root hashes or files of layer images.

    Args:
        folder: what the files' names are relative to.
        check: hold every block of the files against their hash tree.

    Raises:
        PolicyToolError: an entry is neither.
        BadImage: a file is no layer image, or is damaged.
    """
    hashes, origins = [], []
    for one in listed:
        if _HASH.fullmatch(one):
            hashes.append(one.lower())
            origins.append("given")
            continue
        path = folder / one
        if not path.is_file():
            raise PolicyToolError(f"layer {one!r} is neither a root hash of 64 hexadecimal digits nor a file")
        found = verify(path, progress=progress) if check else read_info(path)
        if not found.root_hash:
            raise PolicyToolError(
                f"{path} has no hash tree ({found.why_no_tree}):"
                " give the image that the host attaches, or its hash"
            )
        hashes.append(found.root_hash)
        origins.append(f"read from {one}" + (", verified" if check else ""))
    return Layers(hashes, origins)


def computed_layers(
    source: str, folder: Path, *, platform: str = "", reference: str = "", progress: Progress = silent
) -> Layers:
    """Return the layers that ``uvmctl image build`` would make of a directory, tar or OCI layout.

    Raises:
        ImageError: it cannot be turned into images.
    """

    def root_hash(layer: SourceLayer) -> str:
        with layer.tree() as tree:
            # Of several layers each process takes some; of one, some of its files.
            return build_image(tree, None, alone=len(found.layers) > 1, progress=progress).root_hash

    with open_source(
        str(folder / source), platform=platform, reference=reference, progress=progress
    ) as found:
        hashes = shared(root_hash, found.layers, [one.size for one in found.layers], root_hash)
        config = found.config.get("config")
        origin = f"computed from {source}"
        return Layers(hashes, [origin] * len(hashes), config if isinstance(config, dict) else {})
