"""One build of everything for all tests here; `make packages` has installed what it needs."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

from support.machine import ROOT
from support.packages import TOOLS, Made, build

PARTS = ("core", "plugins", "packaging", "docs", ".ci", "LICENSE", "CHANGELOG.md")

if not (TOOLS / "ready").exists():
    raise pytest.UsageError("what packages are built with is not here: make packages-test installs it")
for folder in (ROOT / "packaging" / "packages", ROOT / "packaging" / "common", TOOLS):
    sys.path.append(str(folder))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    room = tmp_path_factory.mktemp("packages")
    source = room / "source"
    source.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=ignore)
        else:
            shutil.copy2(ROOT / part, source / part)
    return build(source, room / "made")


@pytest.fixture(scope="session")
def made_elsewhere(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The same source in another folder, with other times and modes, built in another environment."""
    room = tmp_path_factory.mktemp("another-place")
    source = room / "another-name"
    shutil.copytree(made.source, source)
    for path in [source, *source.rglob("*")]:
        path.chmod(path.stat().st_mode & 0o700)  # as with umask 077; git records the owner's x alone
        os.utime(path, (1, 1))
    variables = {"TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "7", "LANG": "C", "HOME": str(room)}
    return build(source, room / "made", **variables)
