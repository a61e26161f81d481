"""The environment's byte code: prepared beside what is in use, tried, then put in its place.

dpkg replaces the modules of a running daemon under its feet. What that daemon has not imported yet
it takes from the byte code of its own version, as long as that stays where it is: Python believes
byte code of this kind whatever the source has become. So no daemon is ever of two versions.

    byte_code.py prepare    compile what has changed
    byte_code.py check      `uvmd check`, by what is prepared
    byte_code.py take       put it in place; remove what has no source any more
    byte_code.py drop       forget it
"""

from __future__ import annotations

import importlib.util
import os
import py_compile
import struct
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ExtensionFileLoader, SourceFileLoader
from pathlib import Path

LIB = Path("/opt/uvmd/lib")
NEW = ".new"
#: By the hash of the source, never compared (PEP 552): valid whatever the time of a file, as an image
#: may give all of them one.
UNCHECKED = py_compile.PycInvalidationMode.UNCHECKED_HASH
_HEAD = importlib.util.MAGIC_NUMBER + struct.pack("<I", 0b01)


def prepare(lib: Path) -> None:
    """Compile each module whose byte code is of another source, or of another Python.

    A module that the new version has not any more stays importable for the one that runs.
    """
    drop(lib)
    for path in _byte_code(lib):
        if _is_orphan(path) and not (beside := _beside(path)).exists():
            beside.hardlink_to(path)
    for source in lib.rglob("*.py"):
        cached = importlib.util.cache_from_source(str(source))
        head = _HEAD + importlib.util.source_hash(source.read_bytes())
        if _begin(cached, len(head)) != head:
            py_compile.compile(str(source), cached + NEW, doraise=True, invalidation_mode=UNCHECKED)


def _begin(path: str, size: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except FileNotFoundError:
        return b""


class Prepared(SourceFileLoader):
    """Takes what is prepared before what is in use."""

    def get_data(self, path: str) -> bytes:
        return super().get_data(path + NEW if os.path.exists(path + NEW) else path)


def check(lib: Path) -> None:
    """Run `uvmd check` of the version that is prepared; ends with its status."""
    import_prepared()
    sys.argv = ["uvmd", "check"]
    from uvmd.cli.start import main

    main()


def import_prepared() -> None:
    """Let imports from here on take what is prepared, and write nothing."""
    sys.dont_write_bytecode = True
    kinds = ((ExtensionFileLoader, EXTENSION_SUFFIXES), (Prepared, SOURCE_SUFFIXES))
    sys.path_hooks.insert(0, importlib.machinery.FileFinder.path_hook(*kinds))
    sys.path_importer_cache.clear()


def take(lib: Path) -> None:
    """Put in place what is prepared, and remove what an earlier version had and this one has not.

    Its byte code, which dpkg does not know of, has kept dpkg from removing the folder.
    """
    for path in _byte_code(lib):
        if path.suffix == NEW:
            path.replace(path.with_suffix(""))
        elif path.suffix != ".pyc":
            path.unlink()  # of a run that was killed
        elif _is_orphan(path):
            path.unlink()
    for path in list(lib.rglob("*.pyc")):
        if path.parent.name != "__pycache__":
            path.unlink()  # for a daemon of before
    for folder, _, _ in os.walk(lib, topdown=False):
        if folder != str(lib) and not os.listdir(folder):
            os.rmdir(folder)


def drop(lib: Path) -> None:
    """Remove what was prepared."""
    for path in _byte_code(lib):
        if path.suffix == NEW:
            path.unlink()


def _is_orphan(path: Path) -> bool:
    """True for byte code whose source is gone."""
    return path.suffix == ".pyc" and not os.path.exists(importlib.util.source_from_cache(str(path)))


def _beside(path: Path) -> Path:
    """Where Python looks for byte code that has no source: where that would be."""
    return Path(importlib.util.source_from_cache(str(path))).with_suffix(".pyc")


def _byte_code(lib: Path) -> Iterator[Path]:
    # A list: the folders change meanwhile.
    yield from list(lib.rglob("__pycache__/*"))


VERBS: dict[str, Callable[[Path], None]] = {"prepare": prepare, "check": check, "take": take, "drop": drop}

if __name__ == "__main__":
    VERBS[sys.argv[1]](LIB)
