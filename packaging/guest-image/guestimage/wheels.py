"""uvmd in the image: a virtual environment from pinned wheels, and our own distributions.

Third-party wheels come by `pip download --require-hashes` from the workshop's pins; inside
the image everything is installed by the guest's own Python without a network.
"""

from __future__ import annotations

import configparser
import importlib.metadata
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from guestimage import recipe
from guestimage.tools import BuildError, remove, run

VENV = "opt/uvmd"
#: Plugins, by folder and with commas between, that are not put into an image: one that is half
#: built must not stop the work on the others.
WITHOUT = "UVMD_GUEST_WITHOUT"
#: Not part of a distribution's source.
LEFT_OUT = ("__pycache__", ".egg-info", "build", "tests", ".pytest_cache")


def normal(name: str) -> str:
    """Return a distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Distribution:
    """One of our own distributions, as its setup.cfg describes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        parser = configparser.ConfigParser()
        if not parser.read(folder / "setup.cfg"):
            raise BuildError(f"{folder} is no distribution: it has no setup.cfg")
        self._parser = parser
        self.name = parser["metadata"]["name"]

    @property
    def requirements(self) -> list[str]:
        """What it needs to run, without extras."""
        text = self._parser.get("options", "install_requires", fallback="")
        return [line.strip() for line in text.splitlines() if line.strip()]

    @property
    def source(self) -> Path:
        return self.folder / "src"

    @property
    def entry_points(self) -> str:
        """Its entry points as an installation has them, in entry_points.txt."""
        lines = []
        if self._parser.has_section("options.entry_points"):
            for group, text in self._parser["options.entry_points"].items():
                lines += [f"[{group}]", *(line.strip() for line in text.splitlines() if line.strip())]
        return "".join(f"{line}\n" for line in lines)


def find_distributions(repository: Path) -> list[Distribution]:
    """Return core and every plugin of the repository, core first, without those in WITHOUT."""
    left_out = os.environ.get(WITHOUT, "").split(",")
    plugins = sorted(path.parent for path in repository.glob("plugins/*/setup.cfg"))
    folders = [repository / "core", *(folder for folder in plugins if folder.name not in left_out)]
    return [Distribution(folder) for folder in folders]


def parse_pins(text: str) -> dict[str, str]:
    """Split a file of pinned requirements into blocks (version and hashes) by name."""
    blocks = re.split(r"\n(?=[A-Za-z0-9])", "\n" + text)
    return {normal(block.partition("==")[0]): block.strip() for block in blocks if "==" in block}


def third_parties(distributions: Iterable[Distribution]) -> list[str]:
    """Return the names of all that our distributions need of others, needs of needs included.

    Read from what is installed in the workshop, so that no resolver runs here.
    """
    from pip._vendor.packaging.requirements import Requirement

    ours = {normal(distribution.name) for distribution in distributions}
    waiting = [text for distribution in distributions for text in distribution.requirements]
    found: set[str] = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = normal(requirement.name)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if not wanted or name in ours or name in found:
            continue
        found.add(name)
        try:
            waiting += importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            raise BuildError(
                f"{name} is not installed in the workshop; either make setup, "
                f"or leave the plugin out: {WITHOUT}=NAME,..."
            ) from None
    return sorted(found)


def pins_for(distributions: Iterable[Distribution], constraints: Path) -> str:
    """Return the part of the workshop's pins that the image needs, as a requirements file."""
    pins = parse_pins(constraints.read_text())
    names = third_parties(distributions)
    if missing := [name for name in names if name not in pins]:
        raise BuildError(
            f"not pinned in {constraints}: {', '.join(missing)}; either make constraints, "
            f"or leave the plugin out: {WITHOUT}=NAME,..."
        )
    return "\n".join(pins[name] for name in names) + "\n"


def download(pins: str, folder: Path) -> None:
    """Download the pinned wheels for the guest's Python; pip checks every hash."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(pins)
        file.flush()
        options = ("--require-hashes", "--no-deps", "--only-binary=:all:", "--python-version", recipe.PYTHON)
        run(sys.executable, "-m", "pip", "download", "-q", *options, "-d", folder, "-r", file.name)


def build_wheels(distributions: Iterable[Distribution], folder: Path) -> None:
    """Build wheels of our own distributions from copies: setuptools leaves things in the source."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as room:
        copies = []
        for number, distribution in enumerate(distributions):
            copy = Path(room) / str(number)
            ignore = shutil.ignore_patterns(*(f"*{name}" for name in LEFT_OUT))
            shutil.copytree(distribution.folder, copy, ignore=ignore)
            copies.append(copy)
        run(
            sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
            "--no-index", "-w", folder, *copies,
        )  # fmt: skip


def make_environment(root: Path, wheels: Path) -> None:
    """Make the virtual environment with the wheels in a root file system.

    The guest's own Python does it, so scripts, byte code and paths are the guest's.
    """
    chroot(root, "/usr/bin/python3", "-m", "venv", "--without-pip", f"/{VENV}")
    install(root, wheels)


def install(root: Path, wheels: Path) -> None:
    """Install every wheel of a folder into the image's environment."""
    import pip

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
