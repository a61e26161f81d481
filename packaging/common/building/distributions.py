"""Our own distributions: found, described, built as wheels; and the pinned wheels that they need.

Third-party wheels come by `pip download --require-hashes` from the workshop's pins, and always
for Debian 12, whatever machine builds.
"""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from building.tools import BuildError, run

#: Where uvmd lives once it is installed: an environment of its own.
VENV = "opt/uvmd"
#: The Python of what we build for, Debian 12, and the platforms whose wheels its glibc 2.36 runs.
PYTHON = "3.11"
PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in range(36, 16, -1)), "manylinux2014_x86_64")
#: Plugins, by folder and with commas between, that are not put into an image: one that is half
#: built must not stop the work on the others.
WITHOUT = "UVMD_GUEST_WITHOUT"
#: Not part of a distribution's source.
LEFT_OUT = ("__pycache__", ".egg-info", "build", "tests", ".pytest_cache")
_EPOCH = "SOURCE_DATE_EPOCH"


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
    def version(self) -> str:
        """Its version, also one that setup.cfg takes from the package's ``__init__``."""
        text = self._parser["metadata"]["version"]
        if not text.startswith("attr:"):
            return text
        package, _, name = text.removeprefix("attr:").strip().rpartition(".")
        init = self.source / package.replace(".", "/") / "__init__.py"
        for node in ast.parse(init.read_text()).body:
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
                return str(ast.literal_eval(node.value))
        raise BuildError(f"{init} has no {name}")

    @property
    def requirements(self) -> list[str]:
        """What it needs to run, without extras."""
        text = self._parser.get("options", "install_requires", fallback="")
        return [line.strip() for line in text.splitlines() if line.strip()]

    @property
    def source(self) -> Path:
        return self.folder / "src"

    @property
    def licence(self) -> Path:
        """The text of its licence: its own, or that of the repository, which no wheel would find."""
        for folder in (self.folder, *self.folder.parents):
            if (folder / "LICENSE").is_file():
                return folder / "LICENSE"
        raise BuildError(f"{self.folder} has no LICENSE, nor a folder above it")

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


# -- the pinned wheels of others


def parse_pins(text: str) -> dict[str, str]:
    """Split a file of pinned requirements into blocks (version and hashes) by name."""
    blocks = re.split(r"\n(?=[A-Za-z0-9])", "\n" + text)
    return {normal(block.partition("==")[0]): block.strip() for block in blocks if "==" in block}


def required_names(requirements: Iterable[str]) -> list[str]:
    """Return the names in requirements, without those that count only elsewhere or with an extra."""
    from pip._vendor.packaging.requirements import Requirement

    parsed = [Requirement(text) for text in requirements]
    return [normal(one.name) for one in parsed if one.marker is None or one.marker.evaluate({"extra": ""})]


def needs_of(name: str) -> list[str]:
    """Return the names of what a distribution of others needs.

    Read from what is installed in the workshop, so that no resolver runs here.
    """
    try:
        return required_names(importlib.metadata.requires(name) or [])
    except importlib.metadata.PackageNotFoundError:
        raise BuildError(
            f"{name} is not installed in the workshop; either make setup, "
            f"or leave the plugin out: {WITHOUT}=NAME,..."
        ) from None


def third_parties(distributions: Sequence[Distribution]) -> list[str]:
    """Return the names of all that our distributions need of others, needs of needs included."""
    ours = {normal(distribution.name) for distribution in distributions}
    waiting = [name for one in distributions for name in required_names(one.requirements)]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in ours and name not in found:
            found.add(name)
            waiting += needs_of(name)
    return sorted(found)


def pins_for(distributions: Sequence[Distribution], constraints: Path) -> str:
    """Return the part of the workshop's pins that our distributions need, as a requirements file."""
    pins = parse_pins(constraints.read_text())
    names = third_parties(distributions)
    if missing := [name for name in names if name not in pins]:
        raise BuildError(
            f"not pinned in {constraints}: {', '.join(missing)}; either make constraints, "
            f"or leave the plugin out: {WITHOUT}=NAME,..."
        )
    return "\n".join(pins[name] for name in names) + "\n"


def download(pins: str, folder: Path) -> None:
    """Download the pinned wheels; pip checks every hash."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(pins)
        file.flush()
        platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
        options = ("--require-hashes", "--no-deps", "--only-binary=:all:", "--python-version", PYTHON)
        command = (sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", *options)
        run(*command, *platforms, "-d", folder, "-r", file.name)


# -- wheels of our own


def build_wheels(distributions: Iterable[Distribution], folder: Path, epoch: int | None = None) -> None:
    """Build wheels of our own distributions from copies: setuptools leaves things in the source.

    With ``epoch`` (seconds since 1970, becomes the time of every file) the same source gives the
    same bytes, whatever the folder, the umask and the time of day.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as room:
        copies = []
        for number, distribution in enumerate(distributions):
            copy = Path(room) / str(number)
            ignore = shutil.ignore_patterns(*(f"*{name}" for name in LEFT_OUT))
            shutil.copytree(distribution.folder, copy, ignore=ignore)
            shutil.copyfile(distribution.licence, copy / "LICENSE")
            # A wheel keeps the modes that it finds; what git does not record, a checkout's umask decides.
            for path in (copy, *copy.rglob("*")):
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            copies.append(copy)
        run(
            sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
            "--no-index", "--disable-pip-version-check", "-w", folder, *copies,
            env={} if epoch is None else {_EPOCH: str(epoch)},
        )  # fmt: skip
