"""The image that guests boot: built by packaging/guest-image, plus what tests put on top."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from support.machine import CACHE, ROOT
from uvmd.api.testing.guest.image import PRODUCT_TARGET, UNITS_FOLDER, helpers_archive

if TYPE_CHECKING:
    from guestimage.layers import Builder, Image

#: A target of the tests' own, in which uvmd does not start by itself, and options for its unit.
TARGET = "testbed.target"
UNITS = {TARGET: "testbed.target", "uvmd.service.d/testbed.conf": "testbed.conf"}
FOLDER = CACHE / "guest"


def recipe() -> None:
    """Make the modules of packaging/guest-image importable."""
    where = str(ROOT / "packaging" / "guest-image")
    if where not in sys.path:
        sys.path.append(where)


@cache
def builder() -> Builder:
    """The recipe of the image, with its cache."""
    recipe()
    from guestimage.layers import Builder

    return Builder(FOLDER)


@cache
def base() -> Image:
    """The image without uvmd; a run of tests asks once."""
    return builder().base()


@cache
def product() -> Image:
    """The image as it is delivered, with this source tree's uvmd."""
    return builder().uvm()


def helpers(settings: str = "") -> bytes:
    """Return the second initramfs archive, which puts the tests' helpers on top of the root.

    ``settings`` are lines of TOML, appended to the image's own settings of uvmd.
    """
    archive = helpers_archive((TARGET, PRODUCT_TARGET), settings=settings)
    for unit, file in UNITS.items():
        archive.file(f"{UNITS_FOLDER}/{unit}", (Path(__file__).parent / file).read_bytes())
    return archive.to_bytes()
