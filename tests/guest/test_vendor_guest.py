"""A vendor's own test in a guest: what `uvmd plugin new` makes, and the tutorial's lamp, installed apart."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from support.machine import ROOT
from uvmd.api.testing.guest.fixtures import VARIABLE
from uvmd.cli import plugin_kit

if TYPE_CHECKING:
    from guestimage.layers import Image

PAGE = (ROOT / "docs" / "tutorial.md").read_text()
PAGE_FILES = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE, re.DOTALL))
#: Under emulation on a busy machine, with the boot.
LIMIT_S = 240


class Vendor:
    """A folder made by the kit, and where it is installed: nothing of uvmd's own environment is touched."""

    def __init__(self, name: str, into: Path) -> None:
        self.folder = Path(plugin_kit.make(name, into=str(into)).folder)
        self._site = into / "site"

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.folder / name).write_text(text)

    def change(self, file: str, old: str, new: str) -> None:
        (path,) = self.folder.glob(f"src/*/{file}")
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def run(self, image: Image, *words: str) -> str:
        """Install it and run its tests in a guest; return what pytest said."""
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-build-isolation"]
        subprocess.run([*pip, "--target", self._site, self.folder], check=True, timeout=120)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_guest.py", *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self._site), VARIABLE: str(image.folder)},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        return done.stdout + done.stderr


def test_a_new_plugin_passes_its_own_tests_in_a_guest(uvm_image: Image, tmp_path: Path) -> None:
    told = Vendor("fast_lamp", tmp_path).run(uvm_image)
    assert re.search(r"^2 passed", told, re.MULTILINE), told


def test_the_tutorial_s_lamp_is_lit_in_a_guest(uvm_image: Image, tmp_path: Path) -> None:
    vendor = Vendor("lamp", tmp_path)
    vendor.write(PAGE_FILES)
    told = vendor.run(uvm_image)
    assert re.search(r"^2 passed", told, re.MULTILINE), told


def test_a_handler_that_leaves_its_device_behind_fails_there(uvm_image: Image, tmp_path: Path) -> None:
    vendor = Vendor("fast_lamp", tmp_path)
    vendor.change("device.py", "paths.remove_empty(made)\n", "made.clear()\n")
    told = vendor.run(uvm_image, "-k", "has_the_device")
    assert re.search(r"^1 failed, 1 deselected", told, re.MULTILINE), told
    # The report ends with what the guest's uvmd said: of the Add, and of the Remove that did nothing.
    log = told.partition("uvmd's log in the guest")[2]
    assert log.count('"operation":"modify"') == 2
