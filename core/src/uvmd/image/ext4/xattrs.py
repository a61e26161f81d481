"""Extended attributes: first in the rest of the inode, then in one block of their own."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from uvmd.image.content import BLOCK
from uvmd.image.errors import BadSource
from uvmd.image.ext4.superblock import EXTRA_BYTES, INODE_BYTES

_MAGIC: Final = 0xEA020000
#: Bytes of an inode behind its fields.
INLINE_BYTES: Final = INODE_BYTES - 128 - EXTRA_BYTES
_BLOCK_HEAD: Final = struct.Struct("<IIIII12x")
_ENTRY: Final = struct.Struct("<BBHIII")
_TERMINATOR: Final = 4
_ACCESS_ACL: Final = b"system.posix_acl_access"
_DEFAULT_ACL: Final = b"system.posix_acl_default"
#: The kernel stores a number for a known beginning of a name.
_PREFIXES: Final = ((b"user.", 1), (b"trusted.", 4), (b"security.", 6))
_WHOLE_NAMES: Final = {_ACCESS_ACL: 2, _DEFAULT_ACL: 3}
_ACL_NAMED: Final = (0x02, 0x08)


@dataclass(frozen=True, slots=True)
class _Attribute:
    index: int
    suffix: bytes
    value: bytes

    @property
    def size(self) -> int:
        return _ENTRY.size + _padded(len(self.suffix)) + _padded(len(self.value))


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an inode carries in itself, and its attribute block if there is one."""

    inline: bytes = b""
    block: bytes = b""


def is_known(name: bytes) -> bool:
    """Tell whether ext4 can store an attribute of that name."""
    return name in _WHOLE_NAMES or any(name.startswith(prefix) for prefix, _ in _PREFIXES)


def encode_xattrs(xattrs: Mapping[bytes, bytes], what: str) -> Encoded:
    """Return attributes as they are stored; *what* names the file in errors.

    Raises:
        BadSource: ext4 does not know a name, or the attributes are more than it can hold.
    """
    if not xattrs:
        return Encoded()
    inline: list[_Attribute] = []
    outside: list[_Attribute] = []
    room = INLINE_BYTES - 4 - _TERMINATOR
    # In this order the kernel looks for them in a block, and stops looking.
    for attribute in sorted(_attributes(xattrs, what), key=lambda a: (a.index, len(a.suffix), a.suffix)):
        if attribute.size <= room:
            room -= attribute.size
            inline.append(attribute)
        else:
            outside.append(attribute)
    needed = sum(attribute.size for attribute in outside) + _TERMINATOR
    if needed > BLOCK - _BLOCK_HEAD.size:
        raise BadSource(
            f"the extended attributes of {what} need {needed} bytes beside those in the inode;"
            f" ext4 has {BLOCK - _BLOCK_HEAD.size} for them"
        )
    return Encoded(_inline(inline), _block(outside))


def _attributes(xattrs: Mapping[bytes, bytes], what: str) -> list[_Attribute]:
    found = []
    for name, value in xattrs.items():
        if name in _WHOLE_NAMES:
            found.append(_Attribute(_WHOLE_NAMES[name], b"", _stored_acl(value, what)))
            continue
        known = [one for one in _PREFIXES if name.startswith(one[0]) and len(one[0]) < len(name) <= 255]
        if not known:
            raise BadSource(f"ext4 cannot store the attribute {name.decode(errors='replace')!r} of {what}")
        prefix, index = known[0]
        found.append(_Attribute(index, name[len(prefix) :], value))
    return found


def _stored_acl(value: bytes, what: str) -> bytes:
    """Turn a POSIX ACL from its form in calls (version 2) into that on disk (version 1)."""
    version = struct.unpack_from("<I", value)[0] if len(value) >= 4 else 0
    if version != 2 or (len(value) - 4) % 8:
        raise BadSource(f"the ACL of {what} is not in the kernel's format")
    stored = bytearray(struct.pack("<I", 1))
    for tag, permissions, number in struct.iter_unpack("<HHI", value[4:]):
        stored += struct.pack("<HH", tag, permissions)
        if tag in _ACL_NAMED:
            stored += struct.pack("<I", number)
    return bytes(stored)


def _inline(attributes: Sequence[_Attribute]) -> bytes:
    if not attributes:
        return b""
    # Value offsets count from the first entry here, and are not sealed by a hash.
    return struct.pack("<I", _MAGIC) + _entries(attributes, INLINE_BYTES - 4, 0, [0] * len(attributes))


def _block(attributes: Sequence[_Attribute]) -> bytes:
    if not attributes:
        return b""
    hashes = [_entry_hash(attribute) for attribute in attributes]
    whole = 0
    for one in hashes:
        whole = _rotate(whole, 16) ^ one
    head = _BLOCK_HEAD.pack(_MAGIC, 1, 1, whole, 0)
    return head + _entries(attributes, BLOCK - len(head), len(head), hashes)


def _entries(attributes: Sequence[_Attribute], size: int, base: int, hashes: Sequence[int]) -> bytes:
    area = bytearray(size)
    at, end = 0, size
    for attribute, sealed in zip(attributes, hashes, strict=True):
        end -= _padded(len(attribute.value))
        area[end : end + len(attribute.value)] = attribute.value
        _ENTRY.pack_into(
            area,
            at,
            len(attribute.suffix),
            attribute.index,
            base + end if attribute.value else 0,
            0,
            len(attribute.value),
            sealed,
        )
        at += _ENTRY.size
        area[at : at + len(attribute.suffix)] = attribute.suffix
        at += _padded(len(attribute.suffix))
    return bytes(area)


def _padded(length: int) -> int:
    return length + -length % 4


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & 0xFFFFFFFF


def _entry_hash(attribute: _Attribute) -> int:
    """The kernel's ext4_xattr_hash_entry."""
    result = 0
    for byte in attribute.suffix:
        result = _rotate(result, 5) ^ byte
    padded = attribute.value.ljust(_padded(len(attribute.value)), b"\0")
    for (word,) in struct.iter_unpack("<I", padded):
        result = _rotate(result, 16) ^ word
    return result
