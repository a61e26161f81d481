"""The virtual environment as files: what `python -m venv` and pip would leave, made elsewhere.

pip installs for the machine that it runs on, as root and into its final place. A package's
files are made by anybody and anywhere, so the wheels are unpacked by `installer`, and the
environment's own few files are written here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from building.distributions import PYTHON, VENV
from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.records import RecordEntry
from installer.sources import WheelFile

from making.wheel import Wheel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from installer.utils import Scheme

#: Where modules go.
SITE = f"{VENV}/lib/python{PYTHON}/site-packages"
_NOT_WRITTEN = RecordEntry("none", None, None)
_SETTINGS = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {PYTHON}\n"


class _Destination(SchemeDictionaryDestination):
    """Below a folder, with the paths and the interpreter of the final place; no byte code."""

    def __init__(self, root: Path, *, scripts: bool) -> None:
        places = {"purelib": SITE, "platlib": SITE, "scripts": f"{VENV}/bin", "data": VENV, "headers": VENV}
        super().__init__(
            {scheme: f"/{place}" for scheme, place in places.items()},
            interpreter=f"/{VENV}/bin/python",
            script_kind="posix",
            destdir=str(root),
        )
        self._scripts = scripts

    def write_script(self, name: str, module: str, attr: str, section: str) -> RecordEntry:
        if self._scripts:
            return super().write_script(name, module, attr, section)
        return _NOT_WRITTEN  # a library's commands are nobody's wish here

    def finalize_installation(
        self, scheme: Scheme, record_file_path: str, records: Iterable[tuple[Scheme, RecordEntry]]
    ) -> None:
        written = [record for record in records if record[1] is not _NOT_WRITTEN]
        super().finalize_installation(scheme, record_file_path, written)


def make_environment(root: Path, wheels: Sequence[Wheel]) -> None:
    """Write the environment with these wheels below ``root``; only our own bring commands."""
    binaries = root / VENV / "bin"
    binaries.mkdir(parents=True)
    (binaries / "python").symlink_to("/usr/bin/python3")
    (binaries / "python3").symlink_to("python")
    (root / VENV / "pyvenv.cfg").write_text(_SETTINGS)
    for wheel in wheels:
        with WheelFile.open(wheel.path) as source:
            destination = _Destination(root, scripts=wheel.ours)
            install(source, destination, additional_metadata={"INSTALLER": b"uvmd package\n"})
