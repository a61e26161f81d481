"""The matrix holds: every row of a resolved issue has a test, every claim is a row."""

from __future__ import annotations

from pathlib import Path

from support.matrix import claimed, load, resolved

HERE = Path(__file__).parent


def test_every_row_of_a_resolved_issue_has_a_test() -> None:
    done, tested = resolved(HERE), claimed(HERE)
    missing = [
        f"{entry.id} (issue {entry.issue}): {entry.text}" for entry in load(HERE) if entry.issue in done
    ]
    missing = [line for line in missing if line.split(" ", 1)[0] not in tested]
    assert not missing, f"{len(missing)} rows without a test:\n" + "\n".join(missing)


def test_a_test_claims_only_rows_that_exist() -> None:
    unknown = claimed(HERE) - {entry.id for entry in load(HERE)}
    assert not unknown, f"no such row: {sorted(unknown)}"


def test_row_ids_are_given_once() -> None:
    ids = [entry.id for entry in load(HERE)]
    assert len(ids) == len(set(ids)), sorted(id_ for id_ in set(ids) if ids.count(id_) > 1)
