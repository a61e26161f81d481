"""Core and its plugins as distributions: one installs alone, the extra ``all`` brings every one."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).parents[3]
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/setup.cfg"))


def read(folder: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    assert parser.read(folder / "setup.cfg")
    return parser


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_the_extra_all_is_every_plugin_of_the_repository() -> None:
    extra = lines(read(ROOT / "core")["options.extras_require"]["all"])
    assert extra == [read(folder)["metadata"]["name"] for folder in PLUGINS]


def test_a_plugin_is_named_after_its_folder_and_needs_uvmd() -> None:
    for folder in PLUGINS:
        metadata = read(folder)
        name = folder.name
        assert metadata["metadata"]["name"] == f"uvmd-{name.replace('_', '-')}"
        assert lines(metadata["options.entry_points"]["uvmd.plugins.v1"]) == [f"{name} = uvmd_{name}.plugin"]
        assert "uvmd" in lines(metadata["options"]["install_requires"])
        assert (folder / "README.md").exists()
