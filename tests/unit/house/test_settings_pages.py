"""Every setting and every annotation has its line in the documentation."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from uvmd.daemon.config import options
from uvmd.daemon.gcs import FLAGS
from uvmd.oci import annotations

ROOT = Path(__file__).parents[3]
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
CONFIGS = sorted(ROOT.glob("plugins/*/src/*/config.py"))


def rows(text: str) -> dict[str, list[str]]:
    """The cells of each line of a table, by the code in the first one."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `") and len(cells) > 1:
            found[cells[0].strip(" `")] = cells[1:]
    return found


def test_every_setting_of_core_is_listed_with_default_and_effect() -> None:
    listed = rows(SETTINGS)
    for option in options().values():
        default, effect = listed.pop(option.key)
        value = option.default
        text = ", ".join(value) if isinstance(value, tuple) else str(value)
        assert default.strip("`").lower() == (text.lower() or "empty"), option.key
        assert effect.startswith(option.help), option.key
        assert all(f"`{choice}`" in effect for choice in option.choices), option.key
    flags = {name.removeprefix("-"): cells for name, cells in listed.items()}
    assert flags.keys() == FLAGS.keys()
    for name, flag in FLAGS.items():
        default, effect, key = flags[name]
        assert (default.strip("`"), effect) == (flag.default or "empty", flag.help)
        assert key.strip("`") in options()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.parents[2].name)
def test_every_setting_of_a_plugin_is_in_its_readme(path: Path) -> None:
    module = importlib.import_module(f"{path.parent.name}.config")
    (model,) = [
        one
        for name, one in vars(module).items()
        if name.endswith("Config") and getattr(one, "__module__", "") == module.__name__
    ]
    readme = (path.parents[2] / "README.md").read_text()
    missing = [name for name in model.model_fields if not re.search(rf"\b{name}\b", readme)]
    assert not missing


def test_every_annotation_is_listed() -> None:
    page = (ROOT / "docs" / "containers.md").read_text()
    names = {
        text
        for name, value in vars(annotations).items()
        if name.isupper() and not name.startswith("_")
        for text in ([value] if isinstance(value, str) else value)
    }
    assert len(names) > 10
    shortened = "io.microsoft.virtualmachine.lcow.amd-certificate"  # listed beside its twin
    listed = {name for name in names if f"`{name}`" in page}
    assert names - listed == {shortened}
    assert f"`...{shortened.partition('virtualmachine.')[2]}`" in page
