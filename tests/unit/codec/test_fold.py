from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.codec.fold import KeySentTwice, Names, fold, folded
from uvmd.errors import InvalidMessage

NAMES = Names(("ContainerId", "Kk", "ociVersion"))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("containerid", "ContainerId"),
        ("CONTAINERID", "ContainerId"),
        ("OCIVERSION", "ociVersion"),
        ("ociVer\u017fion", "ociVersion"),
        ("\u212ak", "Kk"),
        ("Container_Id", "Container_Id"),
        ("ContainerId ", "ContainerId "),
        ("\u0130", "\u0130"),
    ],
)
def test_keys_match_by_simple_folding_and_nothing_more(key: str, name: str) -> None:
    assert fold({key: 1}, NAMES, what="body") == {name: 1}


def test_a_value_with_the_right_spelling_comes_back_itself() -> None:
    value = {"ContainerId": "x", "Kk": None}
    assert fold(value, NAMES, what="body") is value


def test_of_two_spellings_the_last_one_read_counts() -> None:
    assert fold({"ContainerId": 1, "containerid": 2}, NAMES, what="body") == {"ContainerId": 2}
    assert fold({"containerid": 2, "ContainerId": 1}, NAMES, what="body") == {"ContainerId": 1}


def test_a_null_under_another_spelling_changes_nothing() -> None:
    assert fold({"ContainerId": 1, "containerid": None}, NAMES, what="body") == {"ContainerId": 1}


def test_unknown_keys_stay_even_when_they_differ_only_in_case() -> None:
    value = {"x": 1, "X": 2, "kk": 3}
    assert fold(value, NAMES, what="body", strict=True) == {"x": 1, "X": 2, "Kk": 3}


def test_strict_names_the_field_that_is_sent_twice() -> None:
    with pytest.raises(InvalidMessage, match=r"^body\.ContainerId is sent twice$"):
        fold({"ContainerId": 1, "CONTAINERID": None}, NAMES, what="body", strict=True)
    with pytest.raises(KeySentTwice):
        folded({"kk": 1, "KK": 2}, NAMES, True)


@given(st.dictionaries(st.text(), st.integers(), max_size=6))
def test_folding_twice_is_folding_once(value: dict[str, int]) -> None:
    once = fold(value, NAMES, what="body")
    assert fold(once, NAMES, what="body") == once
