"""The table of ``uvmctl top``: rates, order, narrow terminals, containers that come and go."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from uvmd_telemetry import cli_top as top

ROW = {
    "id": "web",
    "pod": "shop",
    "state": "running",
    "cpu_ns": 1_500_000_000,
    "memory_bytes": 4096,
    "memory_limit_bytes": 0,
    "processes": 2,
    "oom_kills": 1,
    "read_bytes": 10,
    "written_bytes": 20,
}
IDLE = {**ROW, "cpu": 0.0, "read_bytes_s": 0.0, "written_bytes_s": 0.0}


def test_rates_are_between_two_looks_and_a_newcomer_has_none_yet() -> None:
    later = {**ROW, "cpu_ns": ROW["cpu_ns"] + 10**9, "read_bytes": 2058}  # type: ignore[operator]
    rows = top.rates({"web": ROW}, {"web": later, "new": {**ROW, "id": "new"}}, 2.0)
    assert [(row["id"], row["cpu"], row["read_bytes_s"]) for row in rows] == [
        ("web", 0.5, 1024.0),
        ("new", None, None),
    ]
    text = top.render(rows)
    assert text.startswith("2 containers   CPU 50.0 %   memory 8.0K")
    assert [line.split()[:4] for line in text.splitlines()[3:]] == [
        ["web", "shop", "running", "50.0"],
        ["new", "shop", "running", "-"],
    ]


def test_a_container_that_ended_shows_nothing_used_and_a_deleted_one_no_row() -> None:
    gone = {**ROW, "state": "terminated", "cpu_ns": 0, "read_bytes": 0, "written_bytes": 0}
    (row,) = top.rates({"web": ROW, "db": ROW}, {"web": gone}, 1.0)
    assert (row["state"], row["cpu"], row["read_bytes_s"]) == ("terminated", 0, 0)


@pytest.mark.parametrize(
    ("sort", "first"), [("cpu", "b"), ("memory", "a"), ("io", "c"), ("pids", "d"), ("id", "a")]
)
def test_first_comes_what_was_asked_for(sort: str, first: str) -> None:
    rows: list[dict[str, Any]] = [
        {**IDLE, "id": "d", "processes": 99, "cpu": None, "read_bytes_s": None, "written_bytes_s": None},
        {**IDLE, "id": "c", "written_bytes_s": 9.0},
        {**IDLE, "id": "b", "cpu": 1.0},
        {**IDLE, "id": "a", "memory_bytes": 1 << 30},
    ]
    assert top._sorted(rows, sort)[0]["id"] == first


def test_a_vm_without_containers_has_no_empty_table() -> None:
    assert top.render([]) == "0 containers   CPU 0.0 %   memory 0"
    assert top.render([IDLE]).startswith("1 container ")


def test_what_nothing_is_known_of_is_not_shown_as_none() -> None:
    (head, _, header, _) = top.render(top.rates({}, {"web": {**ROW, "pod": ""}}, 1.0)).splitlines()
    assert "CPU -" in head
    assert "POD" not in header


def test_a_narrow_terminal_loses_names_first_and_then_the_less_needed_columns() -> None:
    rows = [{**IDLE, "id": "c" * 64, "pod": "p" * 64}]
    assert top.render(rows).splitlines()[2].split()[-1] == "OOM"
    wide, narrow = top.render(rows, 100).splitlines(), top.render(rows, 40).splitlines()
    assert "POD" in wide[2]
    assert wide[3].startswith("c" * 12)
    assert narrow[2].split() == ["CONTAINER", "STATE", "CPU", "%", "MEMORY"]
    assert top.render(rows, 5).splitlines()[2].split() == ["CONTAINER", "CPU", "%", "MEMORY"]


@given(st.text("ab", max_size=70), st.text("ab", max_size=70), st.integers(0, 1 << 60), st.integers(40, 200))
def test_a_table_keeps_to_the_columns_that_there_are(name: str, pod: str, used: int, columns: int) -> None:
    row = {
        **IDLE,
        "id": name,
        "pod": pod,
        "memory_bytes": used,
        "read_bytes_s": used,
        "processes": used % 99999,
    }
    assert all(len(line) <= columns for line in top.render([row], columns).splitlines()[1:])


def test_a_screen_has_as_many_lines_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "_size", lambda: (80, 10))
    lines = top._screen([IDLE] * 20).split("\n")
    assert len(lines) == 10
    assert lines[-2].startswith("15 more")


# The verb


class Client:
    """Answers with one look after the other, and ends after the last as Ctrl-C does."""

    def __init__(self, *looks: list[dict[str, Any]]) -> None:
        self.looks = list(looks)

    def properties(self, container_id: str, kinds: list[str]) -> dict[str, Any]:
        if not self.looks:
            raise click.Abort
        return {"uvmd.usage": self.looks.pop(0)}


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(top.time, "sleep", waited.append)
    return waited


def test_once_is_one_look_over_a_second(slept: list[float]) -> None:
    shown = CliRunner().invoke(top.top, ["--once"], obj=Client([ROW], [ROW]))
    assert (shown.exit_code, slept) == (0, [1.0])
    assert [line.split()[0] for line in shown.output.splitlines() if line] == ["1", "CONTAINER", "web"]


def test_json_is_one_object_a_look() -> None:
    shown = CliRunner().invoke(top.top, ["--json", "-n", "2"], obj=Client([ROW], [ROW], []))
    first, second = (json.loads(line) for line in shown.output.splitlines())
    assert (first["containers"][0]["id"], second["containers"]) == ("web", [])


def test_it_goes_on_until_it_is_told_to_stop(slept: list[float]) -> None:
    shown = CliRunner().invoke(top.top, ["--interval", "5"], obj=Client([ROW], [], [ROW], [ROW]))
    assert slept == [5.0] * 4
    assert shown.output.count("container ") == 2
    assert "0 containers" in shown.output


def test_sizes_have_a_unit_that_people_read() -> None:
    assert [top.size(count) for count in (0, 1023, 1536, 20 << 20, 3 << 40)] == [
        "0",
        "1023",
        "1.5K",
        "20M",
        "3.0T",
    ]
