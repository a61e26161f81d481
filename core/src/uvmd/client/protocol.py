"""The few facts of the protocol that the client needs beside ``bridge``'s tables."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from uvmd.bridge.hresult import HResult, name_of, to_unsigned
from uvmd.bridge.identifiers import Message
from uvmd.client.errors import ClientError, RemoteError

#: Names the VM itself where a container id is wanted; also the customary activity id.
NULL_ID = "00000000-0000-0000-0000-000000000000"

#: Requests that ``uvmctl host`` answers itself; a category that no guest knows.
SHARE_PORTS = 0x17F0_0101


def name_of_message(type_word: int) -> str:
    """Return a request's name as ``Message`` has it, else its number."""
    try:
        return Message(type_word).name
    except ValueError:
        return f"0x{type_word:08x}"


def parse_message(text: str) -> int:
    """Return the type word for a name in any customary spelling, or a number.

    ``GET_PROPERTIES``, ``get-properties``, ``GetProperties`` and ``0x10100901`` are one.

    Raises:
        ClientError: no such message.
    """
    key = re.sub(r"[^a-z0-9]", "", text.lower())
    for message in Message:
        if key == message.name.replace("_", "").lower():
            return message.value
    try:
        number = int(text, 0)
    except ValueError:
        names = ", ".join(message.name for message in Message)
        raise ClientError(f"no message {text!r}; give a number like 0x10100901 or one of: {names}") from None
    if not 0 <= number <= 0xFFFF_FFFF:
        raise ClientError(f"message number {text} has more than 32 bits")
    return number


def raise_for_result(request_type: int, response: Mapping[str, Any]) -> NoReturn:
    """Raise the RemoteError that an answer with a ``Result`` other than 0 stands for."""
    result = response.get("Result")
    code = to_unsigned(result) if isinstance(result, int) else HResult.E_FAIL.value
    name = name_of(code)
    records = response.get("ErrorRecords")
    raise RemoteError(
        name_of_message(request_type),
        code,
        "" if name.startswith("0x") else name,
        str(response.get("ErrorMessage") or ""),
        [record for record in records if isinstance(record, dict)] if isinstance(records, list) else (),
    )


def is_code(error: RemoteError, *codes: HResult) -> bool:
    """Whether a refusal carries one of *codes*."""
    return error.code in codes


def lenient_object(body: bytes) -> dict[str, Any]:
    """Return the object in a body; an empty one if there is none."""
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
