"""What core keeps of the plugins' devices."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.api.resources import MAX_RECORD_BYTES, Claim, Kind
from uvmd.errors import Failed
from uvmd.host.records import Records, encoded
from uvmd.host.table import MountTable

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), plain, max_size=4))
def test_a_small_object_of_plain_json_is_a_record(record: dict[str, Any]) -> None:
    if len(json.dumps(record, separators=(",", ":"))) > MAX_RECORD_BYTES:
        with pytest.raises(Failed):
            encoded(record)
    else:
        assert json.loads(encoded(record)) == record


def test_a_record_that_was_handed_out_is_a_copy() -> None:
    records, table = Records(), MountTable()
    records.commit("T", "a", {"v": 1, "list": [1]}, table)
    handed = records.get("T", "a")
    assert handed is not None
    handed["list"].append(2)
    assert records.get("T", "a") == {"v": 1, "list": [1]}


def test_records_and_table_come_back_and_with_them_what_was_begun(tmp_path: Path) -> None:
    path, table = str(tmp_path / "devices.json"), MountTable()
    records = Records(path)
    assert records.load(table) == {}
    table.change([Claim("/a", "dev", Kind.READ_ONLY)], strict=False)
    records.begin("T", "a", "Add T a")
    records.commit("T", "a", {"v": 1}, table)
    records.begin("T", "b", "Add T b")
    records.begin("T", "c", "Add T c")
    records.abort("T", "b", table)
    after, restored = Records(path), MountTable()
    assert after.load(restored) == {"Add T c": (0,)}
    assert after.get("T", "a") == {"v": 1}
    assert restored.rows() == table.rows()


def test_a_commit_that_cannot_be_written_leaves_the_old_record(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    records, table = Records(str(folder / "devices.json")), MountTable()
    records.commit("T", "a", {"v": 1}, table)
    (folder / "devices.json").unlink()
    folder.rmdir()
    folder.write_text("in the way")
    with pytest.raises(Failed, match="cannot be recorded"):
        records.commit("T", "a", {"v": 2}, table)
    assert records.get("T", "a") == {"v": 1}
    records.abort("T", "a", table)  # only logs


STEPS = st.tuples(
    st.sampled_from(["begin", "ask", "allow", "commit", "forget", "abort", "settle", "keep"]),
    st.integers(1, 3),
    st.booleans(),
)

PARTS = ("_records", "_doing", "_for", "_done", "_allowed", "_left", "_left_allowed", "_mounts")


@given(st.lists(STEPS, max_size=12))
def test_a_line_says_what_holds_also_after_one_that_could_not_be_written(
    steps: list[tuple[str, int, bool]],
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        path, table = Path(folder) / "devices.json", MountTable()
        earlier = Records(str(path))
        earlier.begin("T", "3", "Add T 3", 3, ("/3",), asking=True)
        records = Records(str(path))
        records.load(table, (3,))
        for what, number, full in steps:
            if full:
                patched.setattr("os.write", _no_space)
            try:
                _take(records, table, what, number)
            except Failed:
                assert full
            patched.undo()
            anew = Records(str(path))
            for name in PARTS:
                setattr(anew, name, getattr(records, name))
            records._try_to_write()
            line = path.read_bytes().splitlines()[-1]
            anew._try_to_write()
            assert path.read_bytes().splitlines()[-1] == line


def _no_space(fd: int, data: bytes) -> int:
    raise OSError(28, "No space left on device")


def _take(records: Records, table: MountTable, what: str, number: int) -> None:
    key = "T", str(number)
    if what in ("begin", "ask"):
        records.begin(*key, f"Add T {number}", number, (f"/{number}",), asking=what == "ask")
    elif what == "allow":
        records.allow(number, "mount")
    elif what in ("commit", "forget"):
        records.commit(*key, {"v": number} if what == "commit" else None, table)
    elif what == "abort":
        records.abort(*key, table)
    elif what == "settle":
        records.settle(number)
    else:
        records.keep(table)
