"""The table of certificates that an SEV-SNP host hands along with a report.

Layout: AMD's Guest-Hypervisor Communication Block Standardization, MSG_REPORT_REQ with
certificates. All of it is the host's: offsets and lengths are checked, nothing is parsed
further, and who verifies the report verifies these first.
"""

from __future__ import annotations

import struct
import uuid
from typing import Final, NamedTuple

_ENTRY: Final = struct.Struct("<16sII")
#: More rows than kinds of certificates that were ever defined.
MAX_ROWS: Final = 64

_NAMES: Final = {
    "63da758d-e664-4564-adc5-f4b93be8accd": "VCEK",
    "a8074bc2-a25a-483e-aae6-39c045a0b8a1": "VLEK",
    "4ab7b379-bbac-4fe4-a02f-05aef327c782": "ASK",
    "c0b406a4-a803-4952-9743-3fb6014cd0ae": "ARK",
    "92f81bc3-5811-4d3d-97ff-d19f88dc67ea": "CRL",
}


class Certificate(NamedTuple):
    """One row; ``name`` is AMD's, or the GUID of a kind that is not known here."""

    name: str
    content: bytes


def parse_table(table: bytes) -> tuple[Certificate, ...]:
    """Return the certificates; rows that point outside of the table are left out."""
    found = []
    for at in range(0, min(len(table), MAX_ROWS * _ENTRY.size) - _ENTRY.size + 1, _ENTRY.size):
        guid, offset, length = _ENTRY.unpack_from(table, at)
        if not any(guid):
            break
        if length and offset + length <= len(table):
            found.append(Certificate(_name(guid), table[offset : offset + length]))
    return tuple(found)


def _name(guid: bytes) -> str:
    """The kind's name; hosts write the GUID's first fields in either byte order."""
    either = str(uuid.UUID(bytes=guid)), str(uuid.UUID(bytes_le=guid))
    return next((_NAMES[text] for text in either if text in _NAMES), either[0])
