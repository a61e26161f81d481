"""Which plugins are installed, and which of them are chosen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.errors import ConfigError
from uvmd.plugin_manager.index import GROUP, find_plugins, normal, parse_entry_points
from uvmd.plugin_manager.selection import choose

words = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
blanks = st.sampled_from(["", " ", "\t", "  "])


def put(folder: Path, name: str, entry_points: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "entry_points.txt").write_text(entry_points)


@given(st.dictionaries(words, words, max_size=4), st.dictionaries(words, words, max_size=3), blanks)
def test_the_entries_of_the_group_are_read_and_no_others(
    ours: dict[str, str], others: dict[str, str], blank: str
) -> None:
    def section(name: str, entries: dict[str, str]) -> str:
        lines = [f"{blank}{key}{blank}={blank}{one}.plugin [extra]{blank}" for key, one in entries.items()]
        return "\n".join([f"[{name}]", "# comment", "; comment", *lines, "no equals sign", ""])

    text = section("console_scripts", others) + section(GROUP, ours) + section("other.group", others)
    assert parse_entry_points(text, GROUP) == [(key, f"{module}.plugin") for key, module in ours.items()]


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    parse_entry_points(text, GROUP)
    parse_entry_points(f"[{GROUP}]\n{text}", GROUP)


def test_installed_plugins_are_found_with_distribution_and_version(tmp_path: Path) -> None:
    scsi = f"[{GROUP}]\nstorage_scsi = uvmd_storage_scsi.plugin\n"
    put(tmp_path, "uvmd_storage_scsi-0.3.1.dist-info", scsi)
    put(tmp_path, "black-24.0.dist-info", "[console_scripts]\nblack = black:main\n")
    put(tmp_path, "uvmd_plan9-0.3.1.egg-info", f"[{GROUP}]\nplan9 = uvmd_plan9.plugin\n")
    (tmp_path / "empty-1.dist-info").mkdir()
    found = find_plugins([str(tmp_path), str(tmp_path), "/nowhere", str(tmp_path / "a.zip")])
    assert list(found) == ["storage_scsi"]
    assert found["storage_scsi"] == ("storage_scsi", "uvmd_storage_scsi.plugin", "uvmd-storage-scsi", "0.3.1")
    assert found["storage_scsi"].label == "plugin storage_scsi (uvmd-storage-scsi 0.3.1)"


def test_of_one_distribution_in_two_folders_the_first_counts_as_in_import(tmp_path: Path) -> None:
    put(tmp_path / "first", "my_plugin-2.0.dist-info", f"[{GROUP}]\nmine = mine.plugin\n")
    put(tmp_path / "second", "My.Plugin-1.0.dist-info", f"[{GROUP}]\nmine = mine.plugin\n")
    found = find_plugins([str(tmp_path / "first"), str(tmp_path / "second")])
    assert found["mine"].version == "2.0"


def test_two_distributions_with_one_plugin_name_stop_the_start(tmp_path: Path) -> None:
    put(tmp_path, "first-1.0.dist-info", f"[{GROUP}]\nmine = first.plugin\n")
    put(tmp_path, "second-2.0.dist-info", f"[{GROUP}]\nmine = second.plugin\n")
    with pytest.raises(ConfigError, match=r"mine \(first 1.0\) and plugin mine \(second 2.0\) have the same"):
        find_plugins([str(tmp_path)])


def test_the_import_path_is_where_plugins_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "mine-1.0.dist-info", f"[{GROUP}]\nmine = mine.plugin\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert set(find_plugins()) == {"mine"}


def test_names_of_distributions_are_compared_as_indexes_do() -> None:
    assert normal("Uvmd__storage.SCSI") == "uvmd-storage-scsi"


# Choosing


@pytest.fixture
def installed(tmp_path: Path) -> object:
    for name in ("a", "b", "c"):
        put(tmp_path, f"dist_{name}-1.0.dist-info", f"[{GROUP}]\n{name} = {name}.plugin\n")
    return find_plugins([str(tmp_path)])


@pytest.mark.parametrize(
    ("allow", "deny", "require", "loaded"),
    [
        (["*"], [], [], "abc"),
        ([], [], [], ""),
        (["b", "a"], [], [], "ab"),
        (["*"], ["b"], [], "ac"),
        (["a", "b"], ["b"], [], "a"),
        (["*"], ["not installed"], ["c"], "abc"),
    ],
)
def test_the_three_lists_choose(
    installed: object, allow: list[str], deny: list[str], require: list[str], loaded: str
) -> None:
    choice = choose(installed, allow, deny, require)  # type: ignore[arg-type]
    assert "".join(plugin.name for plugin in choice.load) == loaded
    assert set(choice.left_out) == set("abc") - set(loaded)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"allow": ["a", "policy_reg0"]}, "plugins.allow names policy_reg0, which is not installed"),
        ({"require": ["policy_reg0"]}, "plugins.require names policy_reg0, which is not installed"),
        ({"require": ["*"]}, r"plugins.require names \*"),
        ({"require": ["b"], "deny": ["b"]}, "plugins.require names b, which is denied by plugins.deny"),
        ({"require": ["b"], "allow": ["a"]}, "plugins.require names b, which is not in plugins.allow"),
        ({"sections": {"storage_scsy": {}}}, r"\[plugin.storage_scsy\]: no plugin of that name"),
    ],
)
def test_a_doubtful_choice_stops_the_start(installed: object, config: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        choose(installed, **config)  # type: ignore[arg-type]
