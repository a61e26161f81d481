"""The environment of the base image: pinned wheels of others, room for the code under test.

Inside the image everything is installed by the guest's own Python, without a network.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from building.distributions import (
    LEFT_OUT,
    VENV,
    Distribution,
    download,
    find_distributions,
    parse_pins,
    pins_for,
)
from building.tools import remove, run

# The names are this module's too: a recipe, and whoever tests one, needs no other.
__all__ = [
    "LEFT_OUT",
    "VENV",
    "Distribution",
    "chroot",
    "compile_all",
    "download",
    "find_distributions",
    "make_environment",
    "parse_pins",
    "pins_for",
]


def make_environment(root: Path, wheels: Path) -> None:
    """Make the virtual environment with the wheels in a root file system.

    The guest's own Python does it, so scripts, byte code and paths are the guest's.
    """
    import pip

    chroot(root, "/usr/bin/python3", "-m", "venv", "--without-pip", f"/{VENV}")
    room = root / "tmp" / "build"
    room.mkdir(parents=True)
    try:
        shutil.copytree(Path(pip.__file__).parent, room / "pip")
        shutil.copytree(wheels, room / "wheels")
        names = [f"/tmp/build/wheels/{path.name}" for path in sorted(wheels.glob("*.whl"))]
        options = ("-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir")
        pip_install = (f"/{VENV}/bin/python", "-m", "pip", "install", "--root-user-action=ignore")
        chroot(root, *pip_install, *options, *names)
    finally:
        remove(room)


def compile_all(root: Path, *folders: str) -> None:
    """Write byte code that is valid whatever the time of its source.

    The image gives all files one time; what pip and Debian compile would be compiled anew at
    every start, which took five seconds of a guest's boot.
    """
    options = ("-q", "-f", "--invalidation-mode", "unchecked-hash")
    chroot(root, "/usr/bin/python3", "-m", "compileall", *options, *(f"/{folder}" for folder in folders))


def chroot(root: Path, *command: str) -> None:
    """Run a program of the image; nothing of the workshop's settings reaches it."""
    clean = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH=/tmp/build", "HOME=/root")
    run("chroot", root, "/usr/bin/env", "-i", *clean, *command)
