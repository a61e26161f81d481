"""The byte code of two versions while one of them runs and the other one is installed."""

from __future__ import annotations

import importlib.util
import py_compile
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support.machine import ROOT

PROGRAM = ROOT / "packaging" / "debian" / "byte_code.py"
#: Prints what a module says, as a daemon sees it, or `uvmd check` while another version is prepared.
ASK = """
import importlib, importlib.util, sys
program, lib, name, prepared = sys.argv[1:]
if prepared == "True":
    spec = importlib.util.spec_from_file_location("byte_code", program)
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    module.import_prepared()
sys.path.insert(0, lib)
print(importlib.import_module(name).VERSION)
"""


@pytest.fixture(scope="module")
def byte_code() -> ModuleType:
    spec = importlib.util.spec_from_file_location("byte_code", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def lib(byte_code: ModuleType, tmp_path: Path) -> Path:
    """An environment in which a version is installed."""
    write(tmp_path, late=1, same=1, gone=1)
    byte_code.prepare(tmp_path)
    byte_code.take(tmp_path)
    return tmp_path


def write(lib: Path, **modules: int) -> None:
    """Unpack a version: its modules, one of them in a folder of its own."""
    for name, version in modules.items():
        path = lib / "thing" / ("gone/__init__.py" if name == "gone" else f"{name}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"VERSION = {version}\n")


def said(lib: Path, name: str, *, prepared: bool = False) -> int:
    command = [sys.executable, "-I", "-c", ASK, PROGRAM, lib, f"thing.{name}", str(prepared)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def cached(lib: Path, name: str) -> Path:
    return Path(importlib.util.cache_from_source(str(lib / "thing" / f"{name}.py")))


def test_until_it_is_taken_a_new_version_is_seen_by_its_check_alone(byte_code: ModuleType, lib: Path) -> None:
    write(lib, late=2, new=2)
    assert said(lib, "late") == 1
    byte_code.prepare(lib)
    assert (said(lib, "late"), said(lib, "late", prepared=True)) == (1, 2)
    assert said(lib, "new", prepared=True) == 2
    byte_code.take(lib)
    assert (said(lib, "late"), said(lib, "new")) == (2, 2)


def test_what_has_not_changed_is_left_as_it_is(byte_code: ModuleType, lib: Path) -> None:
    before = cached(lib, "same").stat()
    write(lib, late=2, same=1)
    byte_code.prepare(lib)
    assert [path.name for path in lib.rglob("*.new")] == [f"{cached(lib, 'late').name}.new"]
    byte_code.take(lib)
    assert cached(lib, "same").stat() == before


def test_what_an_earlier_version_had_goes_with_its_folder(byte_code: ModuleType, lib: Path) -> None:
    (lib / "thing" / "gone" / "__init__.py").unlink()
    byte_code.prepare(lib)
    # A daemon of that version still needs it; `uvmd check` of the new one does not see it.
    assert said(lib, "gone") == 1
    with pytest.raises(subprocess.CalledProcessError):
        said(lib, "gone", prepared=True)
    # Of a run that was killed.
    cached(lib, "late").with_suffix(".pyc.new.123").write_bytes(b"half")
    byte_code.prepare(lib)
    byte_code.take(lib)
    assert sorted(path.name for path in (lib / "thing").iterdir()) == ["__pycache__", "late.py", "same.py"]
    assert len(list(lib.rglob("*.pyc*"))) == 2


def test_a_version_that_is_taken_back_leaves_nothing(byte_code: ModuleType, lib: Path) -> None:
    before = set(lib.rglob("*"))
    (lib / "thing" / "gone" / "__init__.py").unlink()
    byte_code.prepare(lib)
    byte_code.drop(lib)
    assert said(lib, "gone") == 1
    write(lib, gone=1)
    byte_code.prepare(lib)
    byte_code.take(lib)
    assert set(lib.rglob("*")) == before


def test_a_version_that_is_dropped_or_does_not_compile_changes_nothing(
    byte_code: ModuleType, lib: Path
) -> None:
    write(lib, late=2)
    byte_code.prepare(lib)
    byte_code.drop(lib)
    assert (said(lib, "late"), list(lib.rglob("*.new"))) == (1, [])
    (lib / "thing" / "late.py").write_text("VERSION =\n")
    with pytest.raises(py_compile.PyCompileError):
        byte_code.prepare(lib)
    assert said(lib, "late") == 1


def test_it_is_valid_whatever_the_time_of_a_file(lib: Path) -> None:
    assert cached(lib, "late").read_bytes()[4:8] == (1).to_bytes(4, "little")
