"""One build of the packages, as `make packages` does it, and other versions of a Debian package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.machine import CACHE

#: Where `make packages` puts what the build needs beside the workshop.
TOOLS = CACHE / "packages-tools"
#: Where a package has its modules.
SITE = "opt/uvmd/lib/python3.11/site-packages"
#: A time that no file has by chance.
EPOCH = 1_700_000_000


@dataclass(frozen=True)
class Made:
    """What one build made, and where its source tree lies."""

    folder: Path
    source: Path

    @property
    def deb(self) -> Path:
        (found,) = self.folder.glob("*.deb")
        return found


def build(source: Path, output: Path, **environment: str) -> Made:
    """Run the build as `make packages` does."""
    program = source / "packaging" / "packages" / "build.py"
    cache = CACHE / "packages"
    environment = {**os.environ, "PYTHONPATH": str(TOOLS), "SOURCE_DATE_EPOCH": str(EPOCH), **environment}
    command = [sys.executable, program, "-o", output, "--cache", cache]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Made(output, source)


def vary(deb: Path, output: Path, version: str = "", change: Callable[[Path], None] | None = None) -> Path:
    """Make the same package in ``output``, under another version and with a change to its modules.

    ``change`` gets the folder of the modules. Nothing is compressed: an emulated guest unpacks it.
    """
    with tempfile.TemporaryDirectory() as room:
        tree = Path(room) / "tree"
        subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True)
        if version:
            control = tree / "DEBIAN" / "control"
            control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", control.read_text()))
        if change:
            change(tree / SITE)
        command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, output]
        subprocess.run(command, check=True, capture_output=True)
    return output
