"""What an earlier daemon began: found by the next one, taken away once, forgotten."""

from __future__ import annotations

import pytest

from uvmd.api.resources import Claim, Kind, Record
from uvmd.api.testing import MemoryState
from uvmd.api.unfinished import Unfinished
from uvmd.host.table import MountTable


def started(state: MemoryState, *mounted: str) -> Unfinished:
    """The handler's part of a daemon in whose table these paths are."""
    table = MountTable()
    table.change([Claim(path, "/dev/x", Kind.READ_ONLY) for path in mounted], strict=False)
    unfinished = Unfinished(state)
    unfinished.look(table)
    return unfinished


def left(unfinished: Unfinished) -> dict[str, Record]:
    found: dict[str, Record] = {}
    unfinished.settle(lambda path, facts: found.update({path: facts}))
    return found


def test_what_was_begun_and_is_in_no_table_is_left() -> None:
    state = MemoryState()
    before = started(state)
    for path in ("/run/done", "/run/half", "/run/undone"):
        before.begin(path, {"dm": path[5:]})
    before.end("/run/undone")
    after = started(state, "/run/done")
    assert left(after) == {"/run/half": {"dm": "half"}}
    assert left(after) == {}, "only once"
    assert left(started(state, "/run/done")) == {}, "and forgotten"


def test_what_cannot_be_taken_away_is_for_the_next_daemon() -> None:
    state = MemoryState()
    started(state).begin("/run/half", {})

    def fail(path: str, facts: Record) -> None:
        raise OSError(16, "busy")

    started(state).settle(fail)
    assert left(started(state)) == {"/run/half": {}}


class FullDisk(MemoryState):
    full = False

    def save(self, value: object) -> None:  # type: ignore[override]
        if self.full:
            raise OSError(28, "no space left on device")
        super().save(value)  # type: ignore[arg-type]


def test_a_change_that_cannot_be_noted_does_not_begin() -> None:
    state = FullDisk()
    unfinished = started(state)
    unfinished.begin("/run/a", {})
    state.full = True
    with pytest.raises(OSError, match="no space"):
        unfinished.begin("/run/b", {})
    unfinished.end("/run/a")
    state.full = False
    assert left(started(state)) == {"/run/a": {}}, "the end was not written, and that is harmless"


def test_the_end_of_what_never_began_writes_nothing() -> None:
    state = FullDisk()
    state.full = True
    started(state).end("/run/nothing")
