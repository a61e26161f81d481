"""The footer that makes a fixed VHD of a raw disk: 512 bytes behind it, big-endian.

Hyper-V wants one; the guest does not see it. Virtual Hard Disk Image Format Specification 1.0.
"""

from __future__ import annotations

import struct
from typing import Final

FOOTER_BYTES: Final = 512
_COOKIE: Final = b"conectix"
_SECTOR: Final = 512
#: Cookie, features, version, data offset, time, creator, its version and host, sizes,
#: geometry, type, checksum, id, saved state.
_FOOTER: Final = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427x")
_CHECKSUM_AT: Final = 64
_FIXED: Final = 2
_MAX_SECTORS: Final = 65535 * 16 * 255


def encode_footer(size: int, uuid: bytes) -> bytes:
    """Return the footer of a disk of *size* bytes; its time is zero, so the day does not matter."""
    fields = (
        *(_COOKIE, 2, 0x00010000, (1 << 64) - 1, 0, b"uvmd", 0x00010000, b"Wi2k"),
        *(size, size, *_geometry(size // _SECTOR), _FIXED),
    )
    blank = _FOOTER.pack(*fields, 0, uuid, 0)
    return _FOOTER.pack(*fields, ~sum(blank) & 0xFFFFFFFF, uuid, 0)


def is_footer(block: bytes) -> bool:
    """Tell whether 512 bytes are a VHD's footer with the right checksum."""
    if len(block) != FOOTER_BYTES or not block.startswith(_COOKIE):
        return False
    claimed = int.from_bytes(block[_CHECKSUM_AT : _CHECKSUM_AT + 4], "big")
    return claimed == ~(sum(block) - sum(block[_CHECKSUM_AT : _CHECKSUM_AT + 4])) & 0xFFFFFFFF


def _geometry(sectors: int) -> tuple[int, int, int]:
    """Return cylinders, heads and sectors a track, by the format's own appendix."""
    sectors = min(sectors, _MAX_SECTORS)
    if sectors >= 65535 * 16 * 63:
        return sectors // 255 // 16, 16, 255
    track, cylinders_times_heads = 17, sectors // 17
    heads = max((cylinders_times_heads + 1023) // 1024, 4)
    if cylinders_times_heads >= heads * 1024 or heads > 16:
        track, heads = 31, 16
        cylinders_times_heads = sectors // track
    if cylinders_times_heads >= heads * 1024:
        track, heads = 63, 16
        cylinders_times_heads = sectors // track
    return cylinders_times_heads // heads, heads, track
