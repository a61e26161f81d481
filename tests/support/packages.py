"""One build of the packages, as `make packages` does it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from support.machine import CACHE

#: Where `make packages` puts what the build needs beside the workshop.
TOOLS = CACHE / "packages-tools"
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
