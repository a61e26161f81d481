"""The footer of a fixed VHD."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.image.vhd import encode_footer, is_footer

ID = bytes(range(16))


@given(st.integers(1, 1 << 40).map(lambda sectors: sectors * 512))
def test_a_footer_knows_itself_and_its_disk(size: int) -> None:
    footer = encode_footer(size, ID)
    assert len(footer) == 512
    assert is_footer(footer)
    assert struct.unpack_from(">QQ", footer, 40) == (size, size)
    cylinders, heads, track = struct.unpack_from(">HBB", footer, 56)
    assert cylinders * heads * track <= size // 512
    assert footer[68:84] == ID


def test_a_footer_has_no_time_and_says_fixed() -> None:
    footer = encode_footer(1 << 20, ID)
    assert footer.startswith(b"conectix")
    assert struct.unpack_from(">I", footer, 24) == (0,)
    assert struct.unpack_from(">I", footer, 60) == (2,)


@pytest.mark.parametrize(
    ("size", "geometry"),
    [
        (10 << 20, (301, 4, 17)),
        (1 << 30, (2080, 16, 63)),
        (40 << 30, (20560, 16, 255)),
        (1 << 45, (65535, 16, 255)),
    ],
)
def test_the_geometry_is_that_of_the_format(size: int, geometry: tuple[int, int, int]) -> None:
    assert struct.unpack_from(">HBB", encode_footer(size, ID), 56) == geometry


def test_a_damaged_footer_is_none() -> None:
    footer = bytearray(encode_footer(1 << 20, ID))
    footer[100] ^= 1
    assert not is_footer(bytes(footer))
    assert not is_footer(b"conectix")
    assert not is_footer(bytes(512))
