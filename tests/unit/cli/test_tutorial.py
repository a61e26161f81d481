"""docs/tutorial.md: its code, typed into a new plugin, passes its own tests, and these can fail."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from uvmd.api.testing.guest.fixtures import VARIABLE
from uvmd.cli import plugin_kit

PAGE = (Path(__file__).parents[3] / "docs" / "tutorial.md").read_text()
FILES = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def lamp(tmp_path: Path) -> Path:
    """The plugin at the end of the page, beside what pip would leave of it."""
    kit = plugin_kit.make("lamp", into=str(tmp_path))
    info = tmp_path / "uvmd_lamp-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: uvmd-lamp\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[uvmd.plugins.v1]\nlamp = uvmd_lamp.plugin\n")
    folder = Path(kit.folder)
    for name, text in FILES.items():
        assert (folder / name).exists(), f"{name} is not one of the files that were made"
        (folder / name).write_text(text)
    readme = folder / "README.md"
    readme.write_text(readme.read_text().replace("most = 16", 'leds = "/sys/class/leds"'))
    return folder


def outcome(folder: Path) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line"]
    path = f"{folder / 'src'}{os.pathsep}{folder.parent}"
    environment = {**os.environ, "PYTHONPATH": path, VARIABLE: ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    return done.stdout


def test_the_page_s_plugin_passes_its_tests(lamp: Path) -> None:
    assert set(FILES) == {
        "src/uvmd_lamp/config.py", "src/uvmd_lamp/device.py",
        "tests/test_conformance.py", "tests/test_device.py", "tests/test_guest.py",
    }  # fmt: skip
    told = outcome(lamp)
    assert re.search(r"^\d+ passed", told, re.MULTILINE), told


def test_its_tests_notice_a_step_that_cannot_be_undone(lamp: Path) -> None:
    device = lamp / "src" / "uvmd_lamp" / "device.py"
    text = device.read_text()
    opposite = 'undo.callback(write, path, before, step=f"put {path} back")'
    assert opposite in text
    device.write_text(text.replace(opposite, 'undo.callback(print, step="nothing")'))
    assert "whichever_step_of_adding_fails" in outcome(lamp)
