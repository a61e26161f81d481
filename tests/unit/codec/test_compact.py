"""The encoder that is made once writes what the standard library's does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.codec import compact

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"ensure_ascii": False},
    {"separators": (", ", ": "), "sort_keys": True, "default": str},
    {"allow_nan": False, "sort_keys": True},
]


@pytest.fixture(params=["as it is", "no C"])
def python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """This Python, and one without the C encoder."""
    if request.param == "no C":
        monkeypatch.setattr("json.encoder.c_make_encoder", None)
    return str(request.param)


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
@given(value=values)
def test_it_writes_the_same(options: dict[str, Any], value: object) -> None:
    one = compact.encoder(**options)
    expected = json.dumps(value, **{"separators": (",", ":"), **options})
    for _ in range(2):
        assert one(value) == expected


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_so_it_does_whatever_python_is_below(options: dict[str, Any], python: str) -> None:
    value = {"b": [1, 2.5, None, True, "\u00e9\ud800"], "a": {}}
    expected = json.dumps(value, **{"separators": (",", ":"), **options})
    assert compact.encoder(**options)(value) == expected


def test_what_it_does_not_take_is_refused_and_forgotten(python: str) -> None:
    one = compact.encoder(allow_nan=False)
    with pytest.raises(ValueError, match="not JSON compliant"):
        one([1, float("nan")])
    with pytest.raises(TypeError, match="not JSON serializable"):
        one({"x": object()})
    assert one([1]) == "[1]"
