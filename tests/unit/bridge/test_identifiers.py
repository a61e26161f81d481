from __future__ import annotations

import pytest

from uvmd.bridge.identifiers import (
    CONTAINER_NOTIFICATION,
    NOTIFICATION,
    REQUEST,
    RESPONSE,
    Message,
    kind,
    response_type,
)


@pytest.mark.parametrize(
    ("request_type", "answer"),
    [
        (Message.CREATE, 0x20100101),
        (Message.DELETE, 0x20100D01),
        (0x10100E01, 0x20100E01),
        (0x30100101, 0x20100101),
        (0x20100101, 0x20100101),
        (0xFFFFFFFF, 0x2FFFFFFF),
    ],
)
def test_any_frame_is_answered_with_its_own_number(request_type: int, answer: int) -> None:
    assert response_type(request_type) == answer
    assert kind(answer) == RESPONSE


def test_the_thirteen_requests_have_the_numbers_of_the_protocol() -> None:
    assert [message.value for message in Message] == [0x10100001 | number << 8 for number in range(1, 14)]
    assert {kind(message) for message in Message} == {REQUEST}
    assert kind(CONTAINER_NOTIFICATION) == NOTIFICATION
