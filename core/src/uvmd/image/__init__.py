"""Layer images: a directory, a tar or an OCI image becomes ext4 with a dm-verity tree behind it.

``open_source()`` finds the trees, ``build_image()`` writes one down or only computes its root
hash, ``read_info()`` and ``verify()`` look at what lies there::

    from uvmd.image import build_image, open_source

    with open_source("oci-layout/", platform="linux/amd64") as source:
        for layer in source.layers:
            with layer.tree() as tree:
                print(layer.diff_id, build_image(tree, None).root_hash)

Needs no root, extracts nothing, and gives the same bytes for the same tree anywhere. Its
hashes hold for its own images: a host's images of the same layers carry the host's own.
Kept out: anything that prints (``cli``), and devices (``linux``, the storage plugins).
"""

from __future__ import annotations

from uvmd.image.build import Image, build_image
from uvmd.image.errors import BadImage, BadSource, ImageError, NoSpace
from uvmd.image.inspect import ImageInfo, dm_table, read_info, verify
from uvmd.image.progress import Progress
from uvmd.image.source import Source, SourceLayer, open_source
from uvmd.image.tree import Inode, Tree

__all__ = [
    "BadImage",
    "BadSource",
    "Image",
    "ImageError",
    "ImageInfo",
    "Inode",
    "NoSpace",
    "Progress",
    "Source",
    "SourceLayer",
    "Tree",
    "build_image",
    "dm_table",
    "open_source",
    "read_info",
    "verify",
]
