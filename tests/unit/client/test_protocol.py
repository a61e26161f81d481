from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.bridge.hresult import HResult
from uvmd.bridge.identifiers import Message
from uvmd.client.errors import ClientError, RemoteError
from uvmd.client.protocol import is_code, name_of_message, parse_message, raise_for_result


@pytest.mark.parametrize(
    "text", ["GET_PROPERTIES", "get-properties", "GetProperties", "0x10100901", "269486337"]
)
def test_a_message_has_many_spellings(text: str) -> None:
    assert parse_message(text) == Message.GET_PROPERTIES


@pytest.mark.parametrize("text", ["", "nonsense", "-1", "0x100000000"])
def test_no_message_is_an_error_that_lists_them(text: str) -> None:
    with pytest.raises(ClientError):
        parse_message(text)


@given(st.sampled_from(list(Message)))
def test_names_go_there_and_back(message: Message) -> None:
    assert parse_message(name_of_message(message)) == message


def test_a_number_without_name_stays_a_number() -> None:
    assert name_of_message(0x10100E01) == "0x10100e01"


@given(
    st.dictionaries(
        st.sampled_from(["Result", "ErrorMessage", "ErrorRecords"]),
        st.one_of(st.none(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=2)),
    )
)
def test_any_refusal_becomes_a_remote_error(response: dict[str, object]) -> None:
    with pytest.raises(RemoteError) as caught:
        raise_for_result(Message.DELETE, response)
    assert 0 <= caught.value.code < 1 << 32


def test_a_refusal_is_compared_by_its_code() -> None:
    error = RemoteError("DELETE", 0xC037010E, "SYSTEM_NOT_FOUND", "")
    assert is_code(error, HResult.NOT_FOUND, HResult.SYSTEM_NOT_FOUND)
    assert not is_code(error, HResult.E_FAIL)
