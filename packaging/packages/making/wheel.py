"""What a wheel says of itself: name, version, licence, needs, and the hash of the file."""

from __future__ import annotations

import email.parser
import hashlib
import zipfile
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from building.distributions import normal, required_names
from building.tools import BuildError

#: How older metadata names the licences that newer ones name by SPDX.
_BY_CLASSIFIER = {
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
}


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file to be installed.

    Attributes:
        licence: an SPDX expression.
        needs: names of distributions, normalised, without those that only extras need.
        ours: built from this repository.
    """

    path: Path
    name: str
    version: str
    summary: str
    licence: str
    needs: tuple[str, ...]
    sha256: str
    ours: bool

    @property
    def key(self) -> str:
        return normal(self.name)


def read_wheel(path: Path, *, ours: bool) -> Wheel:
    """Read a wheel's metadata.

    Raises:
        BuildError: it is no wheel, or it does not say under which licence it comes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
            metadata = email.parser.Parser().parsestr(archive.read(name).decode(), headersonly=True)
    except (zipfile.BadZipFile, ValueError) as error:
        raise BuildError(f"{path.name} is no wheel: {error}") from error
    return Wheel(
        path,
        metadata["Name"],
        metadata["Version"],
        metadata["Summary"] or "",
        licence_of(metadata, path.name),
        tuple(sorted(set(required_names(metadata.get_all("Requires-Dist") or [])))),
        hashlib.sha256(path.read_bytes()).hexdigest(),
        ours,
    )


def licence_of(metadata: Message[str, str], what: str) -> str:
    """Return the licence as an SPDX expression: said so, or in the older fields' words."""
    for field in ("License-Expression", "License"):
        # The older field may hold a whole licence's text.
        if (text := metadata[field]) and "\n" not in text:
            return str(text)
    found = [_BY_CLASSIFIER[one] for one in metadata.get_all("Classifier") or [] if one in _BY_CLASSIFIER]
    if not found:
        raise BuildError(f"{what} does not say under which licence it comes")
    return " AND ".join(found)
