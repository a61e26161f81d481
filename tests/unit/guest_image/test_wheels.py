"""Which pins the image needs, and what is said of a distribution of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from guestimage.layers import REPOSITORY
from guestimage.tools import BuildError, digest, keep_latest
from guestimage.wheels import Distribution, find_distributions, parse_pins, pins_for

PINS = "alpha==1 \\\n    --hash=sha256:11\n    # via x\nBeta_Gamma==2.0 \\\n    --hash=sha256:22\n"


def distribution(folder: Path, requirement: str) -> Distribution:
    folder.mkdir()
    text = f"[metadata]\nname = ours\n[options]\ninstall_requires =\n    {requirement}\n"
    (folder / "setup.cfg").write_text(
        text + "[options.entry_points]\nuvmd.plugins.v1 =\n    ours = ours.plugin\n"
    )
    return Distribution(folder)


def test_pins_are_split_by_name() -> None:
    pins = parse_pins(PINS)
    assert list(pins) == ["alpha", "beta-gamma"]
    assert pins["beta-gamma"].startswith("Beta_Gamma==2.0")


def test_the_workshops_pins_cover_what_core_needs() -> None:
    core = [one for one in find_distributions(REPOSITORY) if one.name == "uvmd"]
    names = list(parse_pins(pins_for(core, REPOSITORY / ".ci" / "constraints.txt")))
    assert {"click", "pluggy", "pydantic", "pydantic-core"} <= set(names)
    assert "pytest" not in names


def test_what_is_not_pinned_is_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "constraints").write_text("alpha==1\n")
    with pytest.raises(BuildError, match=r"not pinned.*pluggy.*UVMD_GUEST_WITHOUT"):
        pins_for([distribution(tmp_path / "ours", "pluggy")], tmp_path / "constraints")
    with pytest.raises(BuildError, match="not installed in the workshop"):
        pins_for([distribution(tmp_path / "other", "no-such-thing")], tmp_path / "constraints")


def test_entry_points_are_written_as_an_installation_has_them(tmp_path: Path) -> None:
    assert distribution(tmp_path / "ours", "uvmd").entry_points == "[uvmd.plugins.v1]\nours = ours.plugin\n"


def test_a_plugin_under_construction_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = {one.folder.name for one in find_distributions(REPOSITORY)}
    monkeypatch.setenv("UVMD_GUEST_WITHOUT", ",".join(everyone - {"core"}))
    assert [one.folder.name for one in find_distributions(REPOSITORY)] == ["core"]


def test_a_key_changes_with_content_and_not_with_what_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one")
    before = digest([tmp_path], skip=(".pyc",))
    (tmp_path / "a.pyc").write_text("compiled")
    assert digest([tmp_path], skip=(".pyc",)) == before
    (tmp_path / "a.py").write_text("two")
    assert digest([tmp_path], skip=(".pyc",)) != before


def test_the_latest_builds_are_kept(tmp_path: Path) -> None:
    folders = [tmp_path / f"base-00000000000{n}" for n in range(4)]
    for age, folder in enumerate(folders):
        folder.mkdir()
        os.utime(folder, (1000 + age, 1000 + age))
    (tmp_path / "base-000000000001.999999999").mkdir()  # a killed run's
    keep_latest("base", folders[0], keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [folders[0].name, folders[3].name]


def test_the_version_of_core_is_the_one_that_it_says_at_run_time() -> None:
    import uvmd

    versions = {one.name: one.version for one in find_distributions(REPOSITORY)}
    assert versions["uvmd"] == uvmd.__version__
    assert all(version[0].isdigit() for version in versions.values())


def test_wheels_are_chosen_for_the_python_that_the_image_has() -> None:
    from building import distributions
    from guestimage import recipe

    assert recipe.PYTHON == distributions.PYTHON
