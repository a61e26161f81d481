"""The image that guests boot: built by packaging/guest-image, plus what tests put on top."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from support.machine import CACHE, ROOT

if TYPE_CHECKING:
    from guestimage.cpio import Archive
    from guestimage.layers import Builder, Image

INSIDE = Path(__file__).parent / "inside"
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


def archive() -> Archive:
    """Return an empty initramfs archive."""
    recipe()
    from guestimage.cpio import Archive

    return Archive()


def helpers_archive(settings: str = "") -> bytes:
    """Return the second initramfs archive, which puts the tests' helpers on top of the root.

    ``settings`` are lines of TOML, appended to the image's own settings of uvmd.
    """
    made = archive()
    if settings:
        own = (ROOT / "packaging" / "guest-image" / "root" / "etc" / "uvmd" / "uvmd.toml").read_text()
        made.file("extra/etc/uvmd/uvmd.toml", f"{own}\n{settings}\n".encode())
    made.tree(INSIDE / "root", "extra")
    for program in ("helper.py", "mirror.py", "mux.py"):
        made.file(f"extra/opt/testbed/{program}", (INSIDE / program).read_bytes())
    return made.to_bytes()
