"""The documentation site: what its pages are, and that links lead where they led before."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def gather() -> ModuleType:
    """The program beside the package, as a module."""
    path = REPOSITORY / "packaging" / "docs-site" / "gather.py"
    spec = importlib.util.spec_from_file_location("gather", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    files = {
        "README.md": "# uvmd\n[vm](docs/vm.md#clock), [lamp](plugins/lamp), [code](src/x.py), [web](https://x.org)\n",
        "CHANGELOG.md": "# Changelog\n",
        "docs/vm.md": "# The VM\n[home](../README.md) and [lamp](../plugins/lamp/README.md) [here](#clock)\n",
        "docs/decisions/0001-a.md": "# Why\n[vm](../vm.md)\n",
        "plugins/lamp/README.md": "# Lamp\n[all](../../README.md)\n",
        "src/x.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def page(gather: Any, repository: Path, name: str) -> str:
    pages = gather.sources(repository)
    source = pages[name]
    text: str = gather.rewritten(source.read_text(), name, source, repository, pages)
    return text


def test_links_between_pages_follow_them_to_the_site(gather: Any, repository: Path) -> None:
    home = page(gather, repository, "index.md")
    assert "[vm](vm.md#clock), [lamp](plugins/lamp.md), code, [web](https://x.org)" in home
    assert "[home](index.md) and [lamp](plugins/lamp.md) [here](#clock)" in page(gather, repository, "vm.md")
    assert "[vm](../vm.md)" in page(gather, repository, "decisions/0001-a.md")
    assert "[all](../index.md)" in page(gather, repository, "plugins/lamp.md")


def test_a_link_that_leads_nowhere_stops_the_build(gather: Any, repository: Path) -> None:
    (repository / "docs" / "vm.md").write_text("[gone](gone.md)")
    with pytest.raises(ValueError, match=r"docs/vm\.md: gone\.md leads nowhere"):
        page(gather, repository, "vm.md")


def test_each_page_has_one_place_in_the_navigation(gather: Any, repository: Path) -> None:
    pages = [*gather.sources(repository), "odd.md"]
    nav = gather.navigation(pages, {name: name for name in pages})
    found = [name for entry in nav for value in entry.values() for name in places(value)]
    assert sorted(found) == sorted(pages)
    assert nav[-1] == {"More": [{"changelog.md": "changelog.md"}, {"odd.md": "odd.md"}]}


def places(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [name for entry in value for name in entry.values()]


def test_a_schema_becomes_a_table_of_its_keys(gather: Any) -> None:
    schema = {
        "description": "What is lit.\n\nMore.",
        "properties": {
            "Level": {"type": "integer", "minimum": 0, "maximum": 9, "default": 3},
            "Names": {"type": "array", "items": {"type": "string"}},
            "Shade": {"anyOf": [{"$ref": "#/$defs/Shade"}, {"type": "null"}]},
        },
    }
    text = gather.messages({"resource.Lamp": schema, "resource.Any": {}})
    assert "## resource.Any\n\n## resource.Lamp\n\nWhat is lit.\n" in text
    assert "| `Level` | integer ≥ 0 ≤ 9 | `3` |" in text
    assert "| `Names` | list of string |  |" in text
    assert "| `Shade` | object (Shade) or null |  |" in text


def test_every_page_of_this_repository_has_links_that_lead_somewhere(gather: Any) -> None:
    pages = gather.sources(REPOSITORY)
    for name, source in pages.items():
        gather.rewritten(source.read_text(), name, source, REPOSITORY, pages)
    assert {"index.md", "operators.md", "plugins/network.md"} <= pages.keys()
