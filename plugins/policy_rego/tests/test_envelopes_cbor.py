"""The CBOR reader: what it takes is what another library reads, and what is odd it refuses."""

from __future__ import annotations

import contextlib
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd_policy_rego.envelopes import cbor
from uvmd_policy_rego.envelopes.cbor import OddKey, Reader, Simple, Tag, decode, encode
from uvmd_policy_rego.envelopes.errors import CborError

INTEGERS = st.integers(-(1 << 63), (1 << 63) - 1)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.binary(max_size=40) | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(INTEGERS | st.text(max_size=9), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_what_was_written_is_read_again_and_by_another_library(value: Any) -> None:
    written = encode(value)
    assert decode(written) == value == decode(written, lenient=True)
    assert cbor2.loads(written) == value
    assert decode(cbor2.dumps(value)) == value
    assert decode(cbor2.dumps(value, canonical=True)) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for lenient in (False, True):
        with contextlib.suppress(CborError):
            decode(data, lenient=lenient)
    for raw in (cbor.raw_map, cbor.raw_array):
        with contextlib.suppress(CborError):
            raw(data)


@given(VALUES, st.data())
def test_a_part_is_never_a_whole(value: Any, data: st.DataObject) -> None:
    written = encode(value)
    cut = data.draw(st.integers(0, len(written) - 1))
    with pytest.raises(CborError):
        decode(written[:cut])
    with pytest.raises(CborError, match="extraneous data"):
        decode(written + b"\x00")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "end at byte 0"),
        ("5fff", "indefinite-length item at byte 0"),
        ("7f6161ff", "indefinite-length"),
        ("9f00ff", "indefinite-length"),
        ("bf0000ff", "indefinite-length"),
        ("8201", "2 entries claimed at byte 1"),
        ("9bffffffffffffffff", "more than 131072 entries"),
        ("9a00010001", "entries claimed"),
        ("5bffffffffffffffff", "in the middle of an item"),
        ("1c", "invalid initial byte 0x1c"),
        ("a2010002", "in the middle of an item"),
        ("a201000100", "duplicate map key 1"),
        ("a20100180100", "duplicate map key 1"),
        ("a2616100616100", "duplicate map key 'a'"),
        ("a14100", "invalid map key of type"),
        ("a18000", "invalid map key of type"),
        ("61ff", "not valid UTF-8"),
        ("63eda080", "not valid UTF-8"),
        ("1b8000000000000000", "above 2\\^63-1"),
        ("f800", "invalid simple value"),
        ("f81f", "invalid simple value"),
        ("ff", "invalid simple value"),
        ("c001", "tag 0 at byte 0 holds a int64"),
        ("c1f5", "tag 1 at byte 0 holds a bool"),
        ("c26161", "tag 2"),
    ],
)
def test_odd_data_are_refused_with_the_reason(data: str, reason: str) -> None:
    with pytest.raises(CborError, match=reason):
        decode(bytes.fromhex(data))


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("5f41014102ff", b"\x01\x02"),
        ("7f61616162ff", "ab"),
        ("9f01ff", [1]),
        ("bf01020103ff", {1: 3}),
        ("a201020103", {1: 3}),
        ("1bffffffffffffffff", 2**64 - 1),
        ("a1410200", {OddKey(("bytes", b"\x41\x02")): 0}),
    ],
)
def test_the_lenient_reader_takes_what_ledgers_may_write(data: str, value: Any) -> None:
    assert decode(bytes.fromhex(data), lenient=True) == value


@pytest.mark.parametrize("data", ["5f01ff", "5f6161ff", "5f5f4101ffff", "9f01", "bf01ff"])
def test_chunks_and_ends_must_fit_also_leniently(data: str) -> None:
    with pytest.raises(CborError):
        decode(bytes.fromhex(data), lenient=True)


def test_nesting_ends_at_32_levels() -> None:
    assert decode(b"\x81" * 31 + b"\x80") is not None
    for deep in (b"\x81" * 32 + b"\x80", b"\x81" * 100_000, b"\xc6" * 100_000):
        with pytest.raises(CborError, match="nested deeper than 32 levels"):
            decode(deep)


def test_rare_values_keep_apart_from_common_ones() -> None:
    found = decode(bytes.fromhex("a30102f503f6f7"))
    assert found == {1: 2, OddKey(("bool", True)): 3, OddKey(("NoneType", None)): Simple(23)}
    assert decode(bytes.fromhex("f93e00")) == 1.5
    assert decode(bytes.fromhex("fb3ff8000000000000")) == 1.5
    assert decode(bytes.fromhex("d8641864")) == Tag(100, 100)
    assert decode(bytes.fromhex("f8ff")) == Simple(255)


def test_raw_entries_are_the_bytes_as_they_came() -> None:
    assert cbor.raw_map(b"\xa2\x18\x01\x01\x02\x82\x00\xf6") == [(1, b"\x01"), (2, b"\x82\x00\xf6")]
    assert cbor.raw_array(b"\x82\x18\x01\xa0") == [b"\x18\x01", b"\xa0"]
    assert (cbor.raw_map(b"\xa0"), cbor.raw_array(b"\x80")) == ([], [])
    for other in (b"\x01", b"\x80"):
        assert cbor.raw_map(other) is None
    assert cbor.raw_array(b"\xa0") is None


def test_keys_are_shown_and_types_named_for_messages() -> None:
    assert (cbor.shown(1), cbor.shown("a"), cbor.shown(OddKey(("bool", True)))) == ("1", "'a'", "True")
    assert cbor.go_type(b"") == "[]uint8"
    with pytest.raises(CborError):
        encode(1.5)
    with pytest.raises(CborError):
        encode(1 << 64)


def test_a_reader_without_tags_names_the_tag() -> None:
    with pytest.raises(CborError, match=r"CBOR tag isn't allowed \(tag 1"):
        Reader(b"\xc1\x00", tags=False).value()
