"""As much DER as is needed to see the bytes of a certificate's names.

``cryptography`` parses certificates but hands out names only as it would write them; paths
are built by comparing what is written.
"""

from __future__ import annotations

from typing import NamedTuple

from uvmd_policy_rego.envelopes.errors import ChainError

_VERSION = 0xA0


class Names(NamedTuple):
    """Parts of a certificate as they are written, heads included."""

    issuer: bytes
    subject: bytes
    public_key: bytes


def children(data: bytes) -> list[bytes]:
    """Return the elements within the one constructed element that ``data`` are.

    Raises:
        ChainError: lengths that do not fit.
    """
    start, end = _content(data, 0)
    if end != len(data):
        raise ChainError("DER: data after the element")
    found = []
    while start < end:
        after = _content(data, start)[1]
        found.append(data[start:after])
        start = after
    if start != end:
        raise ChainError("DER: an element is longer than what it is in")
    return found


def _content(data: bytes, position: int) -> tuple[int, int]:
    """Return where an element's content begins and ends."""
    if position + 2 > len(data):
        raise ChainError("DER: the data end within an element")
    length, start = data[position + 1], position + 2
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4 or start + size > len(data):
            raise ChainError("DER: a length that does not fit")
        length = int.from_bytes(data[start : start + size], "big")
        start += size
    if start + length > len(data):
        raise ChainError("DER: the data end within an element")
    return start, start + length


def names_of(tbs_certificate: bytes) -> Names:
    """Return issuer, subject and public key of a certificate's signed part.

    Raises:
        ChainError: it has too few parts.
    """
    parts = children(tbs_certificate)
    if parts and parts[0][0] == _VERSION:
        del parts[0]
    if len(parts) < 6:
        raise ChainError("DER: a certificate without subject and key")
    _serial, _algorithm, issuer, _validity, subject, public_key, *_rest = parts
    return Names(issuer, subject, public_key)
