"""Layers over each other: as overlayfs reads them one by one, or pressed into one tree.

overlayfs knows a whiteout as a character device 0:0 and an opaque directory by the attribute
``trusted.overlay.opaque`` (Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import Final

from uvmd.image.tars import Layer
from uvmd.image.tree import Inode, Path, Tree, implied_directory

_OPAQUE: Final = b"trusted.overlay.opaque"
_ATTRIBUTES: Final = ("mode", "uid", "gid", "mtime", "xattrs", "implied")


def as_overlay(layer: Layer) -> Tree:
    """Return the layer's tree with its whiteouts as overlayfs wants them.

    Raises:
        BadSource: a whiteout lies below something that is no directory.
    """
    tree = layer.tree
    # Deepest first: a whiteout in a directory that is itself taken away and made anew.
    for path in sorted(layer.gone, reverse=True):
        own = tree.find(path)
        if own is None:
            tree.put(path, Inode(mode=stat.S_IFCHR, mtime=layer.gone[path]))
        elif own.is_directory:
            own.xattrs[_OPAQUE] = b"y"
    for path in layer.opaque:
        tree.make_directory(path).xattrs[_OPAQUE] = b"y"
    return tree


def squash(layers: Iterable[Layer]) -> Tree:
    """Return the tree that the layers make together, base first; it has no whiteouts.

    The layers' own trees are used up. Whiteouts in overlayfs' form count as well.
    """
    merged = Tree()
    for layer in layers:
        for path in layer.gone:
            _remove(merged, path)
        for path in layer.opaque:
            below = merged.find(path)
            if below is not None:
                below.children = {}
        _merge(merged.root, layer.tree.root)
        merged.root = layer.tree.root
        merged.warnings += layer.tree.warnings
        merged.checks += layer.tree.checks
    return merged


def _remove(tree: Tree, path: Path) -> None:
    parent = tree.find(path[:-1])
    if parent is not None:
        parent.children.pop(path[-1], None)


def _merge(lower: Inode, upper: Inode) -> None:
    """Add to *upper* what shows through from *lower*; both are directories."""
    todo = [(lower, upper)]
    while todo:
        below, above = todo.pop()
        if above.implied:
            for attribute in _ATTRIBUTES:
                setattr(above, attribute, getattr(below, attribute))
        if above.xattrs.pop(_OPAQUE, None):
            below = implied_directory()
        for name, child in list(above.children.items()):
            covered = below.children.get(name)
            if child.is_whiteout:
                del above.children[name]
            elif child.is_directory:
                both = covered is not None and covered.is_directory
                todo.append((covered if both and covered else implied_directory(), child))
            below.children.pop(name, None)
        above.children.update(below.children)
