"""Work shared with a helper; the process itself is tried by the tests of whole images."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.image import helper
from uvmd.image.errors import BadSource


@given(st.lists(st.integers(0, 1 << 30)))
def test_each_item_is_in_one_half_and_the_halves_are_alike(sizes: list[int]) -> None:
    mine, theirs = helper._halves(sizes)
    assert sorted(mine + theirs) == list(range(len(sizes)))
    difference = sum(sizes[at] for at in mine) - sum(sizes[at] for at in theirs)
    assert abs(difference) <= max(sizes, default=0)


def test_little_work_is_done_here_and_in_order() -> None:
    assert helper.shared(lambda _: "theirs", [1, 2, 3], [5, 5, 5], lambda n: f"own {n}") == [
        "own 1",
        "own 2",
        "own 3",
    ]


class _Pipe:
    def __init__(self, answer: object) -> None:
        self._answer = answer

    def recv(self) -> object:
        if isinstance(self._answer, EOFError):
            raise self._answer
        return self._answer

    def send(self, answer: object) -> None:
        self._answer = answer


def test_an_error_of_the_helper_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> int:
        raise BadSource("gone")

    pipe = _Pipe(None)
    monkeypatch.setattr(helper.signal, "signal", lambda *_: None)
    helper._help(fail, [1], pipe)  # type: ignore[arg-type]
    with pytest.raises(BadSource, match="gone"):
        helper._received(pipe)  # type: ignore[arg-type]


def test_a_helper_that_was_killed_is_an_error() -> None:
    with pytest.raises(helper.ImageError, match="was killed"):
        helper._received(_Pipe(EOFError()))  # type: ignore[arg-type]
