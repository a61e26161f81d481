"""What a guest is given of this environment: installed distributions, as files below site-packages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from uvmd.api.testing.guest.errors import GuestError

_LEFT_OUT = "__pycache__"
_METADATA = ("METADATA", "entry_points.txt")


def find_files(names: Iterable[str]) -> dict[str, bytes]:
    """Return packages and metadata of distributions, installed or linked (``pip install -e``).

    Raises:
        GuestError: one is not installed, or has no package.
    """
    found: dict[str, bytes] = {}
    for name in names:
        try:
            one = distribution(name)
        except PackageNotFoundError:
            raise GuestError(f"{name} is not installed here: pip install -e .") from None
        packages = dict(_packages(one))
        if not packages:
            raise GuestError(f"{name} has no package that could be brought into the guest")
        found |= packages
        # The folder's name is where uvmd looks up name and version.
        info = f"{one.name.replace('-', '_')}-{one.version}.dist-info"
        found |= {f"{info}/{file}": (one.read_text(file) or "").encode() for file in _METADATA}
    return found


def _packages(one: Distribution) -> Iterator[tuple[str, bytes]]:
    """Yield the files of everything that is imported under a name of the distribution's own."""
    for name in sorted(_names(one)):
        spec = find_spec(name)
        if spec is None:
            continue
        if spec.submodule_search_locations is None:
            yield f"{name}.py", Path(spec.origin or "").read_bytes()
        for folder in map(Path, spec.submodule_search_locations or ()):
            for path in sorted(folder.rglob("*")):
                if path.is_file() and _LEFT_OUT not in path.parts:
                    yield f"{name}/{path.relative_to(folder)}", path.read_bytes()


def _names(one: Distribution) -> set[str]:
    """The top names of its modules: those of its files, and those that its entry points refer to."""
    listed = (path for path in one.files or () if path.suffix == ".py" and ".." not in path.parts)
    # A linked distribution's only module is the one that finds the others.
    names = {path.parts[0].removesuffix(".py") for path in listed if not path.name.startswith("__editable__")}
    return names | {entry.module.partition(".")[0] for entry in one.entry_points}
