"""What the README shows is true: its plugin runs, its targets and files exist."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from uvmd.api.testing import Workbench, fake_environment
from uvmd.errors import InvalidMessage, PolicyDenied

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()


@pytest.fixture
def lamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (source,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "uvmd_lamp.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("uvmd_lamp")
    sys.modules.pop("uvmd_lamp")


def test_the_first_plugin_serves_its_type(lamp: ModuleType) -> None:
    environment = fake_environment()
    bench = Workbench(lamp.resource_types(), environment)
    bench.add("example.com/Lamp", {"Led": "power"})
    assert environment.state.load() == {"lit": "power"}
    with pytest.raises(InvalidMessage, match=r"Settings\.led"):
        bench.add("example.com/Lamp", {"Led": 5})


def test_the_policy_covers_the_first_plugin(lamp: ModuleType) -> None:
    environment = fake_environment()
    bench = Workbench(lamp.resource_types(), environment)
    bench.be_strict({"modify_resource": False})
    with pytest.raises(PolicyDenied):
        bench.add("example.com/Lamp", {"Led": "power"})
    assert environment.state.load() == {}


def test_every_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]
    named = {
        (page.name, target) for page in pages for target in re.findall(r"`make ([a-z-]+)", page.read_text())
    }
    missing = {(page, target) for page, target in named if target not in targets}
    assert not missing


def test_every_file_that_is_linked_exists() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
