"""Media types of what a host may inject."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.errors import Refused
from uvmd.policy.fragments import KINDS, encode, kind_of


@given(st.text())
def test_only_known_media_types_are_taken(media_type: str) -> None:
    if media_type in KINDS:
        assert kind_of(media_type) is KINDS[media_type]
    else:
        with pytest.raises(Refused, match="unsupported media type"):
            kind_of(media_type)


def test_each_kind_is_an_enforcer_s_or_kept_as_a_file() -> None:
    for kind in KINDS.values():
        assert bool(kind.refusal) is not bool(kind.file)


@given(st.binary())
def test_what_is_kept_is_standard_base64(blob: bytes) -> None:
    assert base64.b64decode(encode(blob), validate=True) == blob
