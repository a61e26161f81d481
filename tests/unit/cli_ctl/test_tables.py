from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.cli.ctl.tables import age, duration, limit, size, table


def test_columns_are_aligned_and_empty_cells_are_dashes() -> None:
    text = table(("ID", "N"), [("a", 5), ("longer", None)], right=("N",))
    assert text == "ID      N\na       5\nlonger  -"


def test_zero_is_a_value() -> None:
    assert table(("EXIT",), [(0,)]) == "EXIT\n0"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (200 << 20, "200 MiB"), (5 << 50, "5120 TiB")],
)
def test_sizes_have_units(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize("count", [0, (1 << 63) - 4096, (1 << 64) - 1])
def test_no_limit_is_a_dash(count: int) -> None:
    assert limit(count) == "-"
    assert limit(64 << 20) == "64.0 MiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.00034, "340 us"),
        (0.0123, "12.3 ms"),
        (4, "4.0 s"),
        (125, "2m05s"),
        (12000, "3h20m"),
        (200000, "2d07h"),
    ],
)
def test_times_have_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_age_is_rough() -> None:
    assert [age(seconds) for seconds in (0.4, 12.9, 125)] == ["0s", "12s", "2m05s"]


@given(st.lists(st.tuples(st.text("ab", max_size=6), st.integers(0, 10**6)), max_size=6))
def test_every_line_of_a_right_column_ends_at_one_place(rows: list[tuple[str, int]]) -> None:
    lines = table(("NAME", "N"), rows, right=("N",)).splitlines()
    assert len(lines) == len(rows) + 1
    assert len({len(line) for line in lines}) == 1
