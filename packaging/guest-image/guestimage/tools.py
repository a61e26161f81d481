"""The tools that all recipes share, under the name by which the image's know them."""

from __future__ import annotations

from building.tools import (
    KEY_DIGITS,
    BuildError,
    Progress,
    digest,
    keep_latest,
    place,
    remove,
    run,
    whole_folder,
)

__all__ = [
    "KEY_DIGITS",
    "BuildError",
    "Progress",
    "digest",
    "keep_latest",
    "place",
    "remove",
    "run",
    "whole_folder",
]
