"""Texts that a runtime would use otherwise than a policy has read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.oci.documents import host_spec
from uvmd.errors import InvalidMessage
from uvmd.oci.fields import check_texts, text_map, texts
from uvmd.oci.spec import read_process, read_spec


def places(value: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every text of a document: how it is called in an error, and where it is."""
    named = enumerate(value) if isinstance(value, list) else value.items()
    for key, item in named:
        data = path in (".annotations", ".linux.sysctl")
        here = f"{path}[*]" if data else f"{path}[{key}]" if isinstance(value, list) else f"{path}.{key}"
        if isinstance(item, str):
            yield here, value, key
        elif isinstance(item, (dict, list)):
            yield from places(item, here)


@given(st.data(), st.sampled_from([("\0", "a NUL"), ("\ud800", "half of a surrogate pair")]), st.booleans())
def test_no_text_of_a_specification_ends_before_its_end(
    data: st.DataObject, odd: tuple[str, str], strict: bool
) -> None:
    document = host_spec()
    path, inside, key = data.draw(st.sampled_from(list(places(document))))
    cut = data.draw(st.integers(0, len(inside[key])))
    inside[key] = inside[key][:cut] + odd[0] + inside[key][cut:]
    with pytest.raises(InvalidMessage) as caught:
        read_spec(document, strict=strict)
    assert str(caught.value) == f"ContainerConfig.OciSpecification{path} has {odd[1]}"


def test_keys_that_are_data_are_texts_too() -> None:
    document = host_spec()
    document["annotations"]["a\0b"] = "x"
    with pytest.raises(InvalidMessage, match=r"annotations\[\*\] has a NUL"):
        read_spec(document, strict=False)


def test_the_process_of_an_exec_is_read_alike() -> None:
    with pytest.raises(InvalidMessage, match=r"OciProcess.args\[1\] has a NUL"):
        read_process({"args": ["/bin/echo", "hello\0 world"]}, strict=False)


def test_other_texts_are_checked_by_the_same_rule() -> None:
    check_texts(["a", "\U0001f600"], texts, what="x")
    with pytest.raises(InvalidMessage, match=r"^x\[1\] has a NUL"):
        check_texts(["a", "b\0"], texts, what="x")
    for env in ({"A\0": "1"}, {"A": "1\0"}):
        with pytest.raises(InvalidMessage, match=r"^x\[\*\] has a NUL"):
            check_texts(env, text_map, what="x")
