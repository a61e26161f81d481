"""From a source tree to a folder of packages: wheels, bill of materials, Debian package, checksums."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from building.distributions import (
    Distribution,
    build_wheels,
    download,
    find_distributions,
    pins_for,
)
from building.tools import BuildError, Progress, digest, keep_latest, remove, whole_folder

from making import debian
from making.sbom import bill_of_materials
from making.wheel import Wheel, read_wheel

REPOSITORY = Path(__file__).parents[3]
#: Of the Debian package; grows when one is made anew from the same source.
REVISION = 1
SUMS = "SHA256SUMS"


def epoch_of(repository: Path) -> int:
    """Return the time that all files get: SOURCE_DATE_EPOCH, else that of the last commit.

    Raises:
        BuildError: neither is there, or the variable is no number.
    """
    if text := os.environ.get("SOURCE_DATE_EPOCH"):
        if not text.isdigit():
            raise BuildError(f"SOURCE_DATE_EPOCH={text} is no number of seconds since 1970")
        return int(text)
    command = ["git", "-C", str(repository), "log", "-1", "--format=%ct"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError("neither a git repository nor SOURCE_DATE_EPOCH: the files need a time")
    return int(done.stdout)


def make_packages(
    cache: Path, output: Path, *, deb: bool = True, repository: Path = REPOSITORY
) -> list[Path]:
    """Make everything and put it into ``output``, which holds nothing else afterwards.

    Raises:
        BuildError: something cannot be built, or ``output`` holds what this did not make.
    """
    if output.exists() and any(output.iterdir()) and not (output / SUMS).exists():
        raise BuildError(f"{output} holds other things than packages; name an empty or a new folder")
    progress = Progress()
    epoch = epoch_of(repository)
    distributions = find_distributions(repository)
    version = f"{distributions[0].version}-{REVISION}"
    with whole_folder(output) as room, tempfile.TemporaryDirectory() as work:
        with progress.step("pinned wheels of others"):
            theirs = _pinned(distributions, cache, repository)
        with progress.step(f"wheels of uvmd and {len(distributions) - 1} plugins"):
            build_wheels(distributions, room, epoch)
        with progress.step("bill of materials (CycloneDX)"):
            wheels = _wheels(room, theirs)
            bill = bill_of_materials(wheels, version, epoch)
            (room / "uvmd.cdx.json").write_text(bill)
        if deb:
            with progress.step("Debian package"):
                contents = debian.Contents(wheels, version, epoch, bill, repository)
                debian.build(contents, Path(work), room)
        (room / SUMS).write_text(checksums(room))
        remove(output)
    return sorted(output.iterdir())


def checksums(folder: Path) -> str:
    """Return what `sha256sum -c` reads."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


def _pinned(distributions: list[Distribution], cache: Path, repository: Path) -> Path:
    pins = pins_for(distributions, repository / ".ci" / "constraints.txt")
    folder = cache / f"wheels-{digest([pins])}"
    if not folder.exists():
        with whole_folder(folder) as room:
            download(pins, room)
    keep_latest("wheels", folder)
    return folder


def _wheels(ours: Path, theirs: Path) -> list[Wheel]:
    found = [read_wheel(path, ours=True) for path in ours.glob("*.whl")]
    found += [read_wheel(path, ours=False) for path in theirs.glob("*.whl")]
    return sorted(found, key=lambda wheel: wheel.key)
