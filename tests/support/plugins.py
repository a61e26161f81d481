"""Plugins made for one test: a module and the metadata that pip would leave."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path

import pytest

from uvmd.plugin_manager import Plugins
from uvmd.plugin_manager.plugins import load_plugins

_numbers = itertools.count()

HEADER = """
from uvmd.api import ConfigModel, Field, Found, Handler, Named, Plan, Requirement, Target, Verb, WireModel
from uvmd.api import ResourceType, hookimpl
"""


class Site:
    """A folder of the import path in which plugins are installed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.syspath_prepend(str(folder))

    def metadata(self, distribution: str, version: str, entry_points: str) -> None:
        """Leave what pip leaves of a distribution."""
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(entry_points)

    def install(self, name: str, code: str, distribution: str = "", version: str = "1.0") -> str:
        """Install a plugin of this code; return the name of its module, new for each test."""
        module = f"made_for_a_test_{next(_numbers)}"
        text = HEADER + textwrap.dedent(code).replace("HERE", module)
        (self.folder / f"{module}.py").write_text(text)
        self.metadata(distribution or f"dist-{name}", version, f"[uvmd.plugins.v1]\n{name} = {module}\n")
        return module

    def load(self, **config: object) -> Plugins:
        """Load what is installed here and nowhere else."""
        return load_plugins(path=[str(self.folder)], **config)  # type: ignore[arg-type]
