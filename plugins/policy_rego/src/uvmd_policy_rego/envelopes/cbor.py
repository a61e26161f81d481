"""CBOR (RFC 8949): a reader that refuses what two readers could understand differently.

Headers of COSE messages are read strictly (attestation.md 2.1): no indefinite lengths, no
duplicate keys, text must be UTF-8. Inclusion proofs and trust lists are read leniently, as
their issuers may write them. Both have limits, and both want the whole input to be one
item. The position of an item is known, so that its very bytes can be signed or hashed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from uvmd_policy_rego.envelopes.errors import CborError

MAX_DEPTH: Final = 32
MAX_ENTRIES: Final = 131072
#: Items in all: a message of megabytes could be an item a byte, each of them a Python object.
MAX_ITEMS: Final = 262144
UINT, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE = range(8)
_BREAK: Final = 0xFF
_FLOATS: Final = {25: ">e", 26: ">f", 27: ">d"}
#: Tags whose content RFC 8949 prescribes: date texts and times, big numbers.
_CONTENTS: Final[dict[int, tuple[type, ...]]] = {0: (str,), 1: (int, float), 2: (bytes,), 3: (bytes,)}


class Tag(NamedTuple):
    """A tagged value."""

    number: int
    value: Any


class Simple(NamedTuple):
    """A simple value other than false, true and null; 23 is undefined."""

    number: int


class OddKey(NamedTuple):
    """A map's key that is neither integer nor text, so that True is not mistaken for 1."""

    value: Any


class Reader:
    """Reads items of ``data`` from ``position`` on.

    Raises, in every method:
        CborError: with the reason and the position.
    """

    def __init__(self, data: bytes, *, lenient: bool = False, tags: bool = True) -> None:
        self.data = data
        self.position = 0
        self._lenient = lenient
        self._tags = tags
        self._items = 0

    def head(self) -> tuple[int, int | None]:
        """Read an item's major type and argument; None is an indefinite length."""
        start = self.position
        initial = self._take(1)[0]
        major, info = initial >> 5, initial & 0x1F
        if info < 24:
            return major, info
        if info < 28:
            return major, int.from_bytes(self._take(1 << (info - 24)), "big")
        if info == 31 and major in (BYTES, TEXT, ARRAY, MAP):
            if not self._lenient:
                raise CborError(f"cbor: indefinite-length item at byte {start} isn't allowed")
            return major, None
        raise CborError(f"cbor: invalid initial byte 0x{initial:02x} at byte {start}")

    def value(self, depth: int = 0) -> Any:
        """Read one item as a Python value."""
        start = self.position
        initial = self.peek()
        self._items += 1
        if self._items > MAX_ITEMS:
            raise CborError(f"cbor: more than {MAX_ITEMS} items at byte {start}")
        if initial >> 5 == SIMPLE:
            return self._simple()
        major, argument = self.head()
        if major == UINT:
            assert argument is not None
            if argument >> 63 and not self._lenient:
                raise CborError(f"cbor: integer {argument} at byte {start} is above 2^63-1")
            return argument
        if major == NEGATIVE:
            assert argument is not None
            return -1 - argument
        if major in (BYTES, TEXT):
            return self._string(major, argument, start)
        if depth >= MAX_DEPTH:
            raise CborError(f"cbor: nested deeper than {MAX_DEPTH} levels at byte {start}")
        if major == ARRAY:
            return [self.value(depth + 1) for _ in self.entries(argument)]
        if major == MAP:
            return self._map(argument, depth + 1)
        assert argument is not None
        return self._tag(argument, depth + 1, start)

    def skip(self, depth: int = 0) -> bytes:
        """Read over one item and return its bytes."""
        start = self.position
        self.value(depth)
        return self.data[start : self.position]

    def entries(self, count: int | None) -> Iterator[None]:
        """Run once for each entry of an array or map whose head was read."""
        if count is None:
            taken = 0
            while self.peek() != _BREAK:
                taken += 1
                self._limit(taken)
                yield
            self.position += 1
            return
        self._limit(count)
        # Every entry has a byte at least: a made-up count must not cost anything.
        if count > len(self.data) - self.position:
            raise CborError(f"cbor: {count} entries claimed at byte {self.position}, the data end before")
        for _ in range(count):
            yield

    def peek(self) -> int:
        """Return the next byte without reading it."""
        if self.position >= len(self.data):
            raise CborError(f"cbor: the data end at byte {self.position}, in the middle of an item")
        return self.data[self.position]

    def end(self) -> None:
        """Insist that everything was read."""
        left = len(self.data) - self.position
        if left:
            raise CborError(f"cbor: {left} bytes of extraneous data starting at index {self.position}")

    def _limit(self, count: int) -> None:
        if count > MAX_ENTRIES:
            raise CborError(f"cbor: more than {MAX_ENTRIES} entries at byte {self.position}")

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            raise CborError(f"cbor: the data end at byte {len(self.data)}, in the middle of an item")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def _string(self, major: int, length: int | None, start: int) -> bytes | str:
        if length is None:
            taken = b"".join(self._chunk(major) for _ in self.entries(None))
        else:
            taken = self._take(length)
        if major == BYTES:
            return taken
        try:
            return taken.decode()
        except UnicodeDecodeError:
            raise CborError(f"cbor: text at byte {start} is not valid UTF-8") from None

    def _chunk(self, major: int) -> bytes:
        start = self.position
        inner, length = self.head()
        if inner != major or length is None:
            raise CborError(f"cbor: a chunk of another type at byte {start}")
        return self._take(length)

    def _map(self, count: int | None, depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for _ in self.entries(count):
            start = self.position
            key = self.key(depth)
            if key in found and not self._lenient:
                raise CborError(f"cbor: duplicate map key {shown(key)} at byte {start}")
            found[key] = self.value(depth)
        return found

    def key(self, depth: int = 0) -> Any:
        """Read a map's key."""
        start = self.position
        key = self.value(depth)
        if type(key) in (int, str):
            return key
        if isinstance(key, (bool, float, Simple)) or key is None:
            return OddKey((type(key).__name__, key))
        if self._lenient:
            return OddKey((type(key).__name__, self.data[start : self.position]))
        raise CborError(f"cbor: invalid map key of type {go_type(key)} at byte {start}")

    def _tag(self, number: int, depth: int, start: int) -> Tag:
        if not self._tags:
            raise CborError(f"cbor: CBOR tag isn't allowed (tag {number} at byte {start})")
        content = self.value(depth)
        expected = _CONTENTS.get(number)
        if expected and (isinstance(content, bool) or not isinstance(content, expected)):
            raise CborError(f"cbor: tag {number} at byte {start} holds a {go_type(content)}")
        return Tag(number, content)

    def _simple(self) -> Any:
        start = self.position
        info = self._take(1)[0] & 0x1F
        if info in _FLOATS:
            return struct.unpack(_FLOATS[info], self._take(1 << (info - 24)))[0]
        if info < 24:
            return {20: False, 21: True, 22: None}.get(info, Simple(info))
        if info == 24 and (number := self._take(1)[0]) >= 32:
            return Simple(number)
        raise CborError(f"cbor: invalid simple value at byte {start}")


def decode(data: bytes, *, lenient: bool = False) -> Any:
    """Return the value of the one item that ``data`` are.

    Raises:
        CborError: they are not.
    """
    reader = Reader(data, lenient=lenient)
    value = reader.value()
    reader.end()
    return value


def raw_map(data: bytes) -> list[tuple[Any, bytes]] | None:
    """Return the keys of a leniently read map with the bytes of their values; None: it is no map.

    Raises:
        CborError: it is no CBOR.
    """
    reader = _raw(data, MAP)
    if reader is None:
        return None
    return [(reader.key(), reader.skip(1)) for _ in reader.entries(reader.head()[1])]


def raw_array(data: bytes) -> list[bytes] | None:
    """Return the bytes of the items of a leniently read array; None: it is no array.

    Raises:
        CborError: it is no CBOR.
    """
    reader = _raw(data, ARRAY)
    if reader is None:
        return None
    return [reader.skip(1) for _ in reader.entries(reader.head()[1])]


def _raw(data: bytes, major: int) -> Reader | None:
    decode(data, lenient=True)
    return Reader(data, lenient=True) if data[0] >> 5 == major else None


def head(major: int, argument: int) -> bytes:
    """Encode an item's head in its shortest form."""
    if argument < 24:
        return bytes((major << 5 | argument,))
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << 8 * size:
            return bytes((major << 5 | info,)) + argument.to_bytes(size, "big")
    raise CborError(f"cbor: {argument} does not fit into 64 bits")


def encode(value: Any) -> bytes:
    """Encode deterministically: shortest heads, keys in the order of their bytes.

    Raises:
        CborError: the value is of a type that is not written here.
    """
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", False: b"\xf4", True: b"\xf5"}[value]
    if isinstance(value, int):
        return head(UINT, value) if value >= 0 else head(NEGATIVE, -1 - value)
    if isinstance(value, bytes):
        return head(BYTES, len(value)) + value
    if isinstance(value, str):
        text = value.encode()
        return head(TEXT, len(text)) + text
    if isinstance(value, Tag):
        return head(TAG, value.number) + encode(value.value)
    if isinstance(value, list):
        return head(ARRAY, len(value)) + b"".join(map(encode, value))
    if isinstance(value, dict):
        pairs = sorted((encode(key), encode(inner)) for key, inner in value.items())
        return head(MAP, len(pairs)) + b"".join(key + inner for key, inner in pairs)
    raise CborError(f"cbor: a {type(value).__name__} is not written here")


def shown(key: Any) -> str:
    """Render a key for people."""
    value = key.value[1] if isinstance(key, OddKey) else key
    return repr(value[:40]) if isinstance(value, str) else str(value)


def go_type(value: Any) -> str:
    """Name a value's type as the reference's messages do."""
    names = {
        bool: "bool", int: "int64", float: "float64", str: "string", bytes: "[]uint8", Tag: "cbor.Tag",
        list: "[]interface {}", dict: "map[interface {}]interface {}", type(None): "<nil>",
        Simple: "cbor.SimpleValue",
    }  # fmt: skip
    return names.get(type(value), type(value).__name__)
