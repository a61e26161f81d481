"""CombinedLayers when any of its steps fails, or its daemon dies (root)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from overlays import TYPE, Place

from support.faults import Faults
from uvmd.errors import Failed
from uvmd.linux import mounts
from uvmd_storage_overlay import overlay

pytestmark = pytest.mark.root


@pytest.fixture(params=["bound bundle", "own disk", "read-only"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    if request.param == "own disk":
        place.scratch = place.bundle / "scratch" / "c1"
    elif request.param == "read-only":
        place.writable = False
    overlay.takes_descriptors()
    yield place
    assert place.clean_up() == [], "a test left mounts behind"


@pytest.fixture(params=["descriptors", "numbers"])
def faults(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Faults:
    if request.param == "numbers":
        monkeypatch.setattr(overlay, "takes_descriptors", lambda: False)
    return Faults(monkeypatch)


def revert(place: Place) -> None:
    place.remove()
    # A scratch keeps what was written; for the comparison it is as new.
    for folder in (place.base / "disk" / "scratch", place.base / "pods"):
        shutil.rmtree(folder, ignore_errors=True)


def without_noise(state: dict[str, Any]) -> dict[str, Any]:
    # Noting the end of a change may fail: harmless, and what is noted too much is told apart.
    return {key: value for key, value in state.items() if key != "begun"}


def test_whichever_call_of_an_add_fails_everything_is_as_before(place: Place, faults: Faults) -> None:
    before = without_noise(place.everything())
    met = []
    for fault in faults.each_call(place.add, lambda: revert(place)):
        met.append(fault)
        assert without_noise(place.everything()) == before, fault
    assert (place.root / "all").read_text() == "0", "after all that it can be added"
    assert len(met) > 10
    assert any("mount" in fault for fault in met)
    place.remove()


def test_whichever_call_of_a_removal_fails_it_can_be_repeated(place: Place, faults: Faults) -> None:
    place.add()
    met = []
    for fault in faults.each_call(place.remove, lambda: None):
        met.append(fault)
        if str(place.root) in place.bench.mounted():
            place.remove()
        assert (place.bench.mounted(), place.mounted(), place.root.exists()) == ([], [], False), fault
        place.add()
    assert (place.bench.mounted(), place.mounted()) == ([], [])
    assert any("umount" in fault for fault in met)


def test_whichever_undo_fails_the_vm_is_marked_and_the_rest_is_undone(place: Place, faults: Faults) -> None:
    bench = place.bench
    before = {**without_noise(place.everything()), "marks": None}
    commit = bench.records.commit

    def fail(*arguments: object) -> None:
        raise Failed("no space to record it")

    bench.records.commit = fail  # type: ignore[method-assign,assignment]
    steps = []
    for step in faults.each_undo(place.add):
        steps.append(step)
        assert step in (bench.gate.degraded or ""), "the first cause is kept"
        assert {**without_noise(place.everything()), "marks": None} == before, step
        place.bench = bench = place.fresh_bench()
        bench.records.commit = fail  # type: ignore[method-assign,assignment]
    bench.records.commit = commit  # type: ignore[method-assign]
    assert f"unmount {place.root}" in steps
    assert len(steps) == len(set(steps))


def test_wherever_a_daemon_is_killed_the_next_does_what_is_asked_again(place: Place, faults: Faults) -> None:
    """The monitor hands the next daemon the request that was not answered."""
    before = place.everything()
    steps = []
    for step in faults.each_death(place.add):
        steps.append(step)
        place.bench = place.fresh_bench()
        place.bench.modifier.resume()
        if str(place.root) in place.bench.mounted():  # it was done, and only the answer was missing
            assert (place.root / "all").read_text() == "0"
        else:
            place.add()
        there = place.mounted()
        assert len(there) == len(set(there)), f"{step}: something is mounted twice"
        assert (place.root / "all").read_text() == "0", step
        revert(place)
        after = place.everything()
        assert (after["mounts"], after["table"], after["tree"]) == ([], [], before["tree"]), step
        assert after["begun"] == {}, step
        place.bench = place.fresh_bench()
    assert len(steps) > 10
    revert(place)


def test_wherever_a_daemon_is_killed_a_removal_is_finished_by_the_next(place: Place, faults: Faults) -> None:
    place.add()
    steps = []
    for step in faults.each_death(place.remove):
        steps.append(step)
        place.bench = place.fresh_bench()
        place.bench.modifier.resume()
        place.remove()
        assert (place.bench.mounted(), place.mounted()) == ([], []), step
        assert not place.root.exists(), step
        place.bench = place.fresh_bench()
        place.add()
    assert len(steps) >= 3


def test_a_restarted_daemon_removes_what_an_earlier_one_added(place: Place) -> None:
    place.add()
    assert json.loads(Path(place.records).read_text().splitlines()[-1])["records"]
    place.bench = place.fresh_bench()
    place.bench.modifier.resume()
    place.remove()
    assert (place.mounted(), place.bench.mounted()) == ([], [])
    assert not place.root.exists()


def test_faults_use_a_real_overlay(place: Place) -> None:
    place.add()
    assert mounts.mounted_at(str(place.root))[0].fstype == "overlay"
    place.bench.remove(TYPE, place.settings())
