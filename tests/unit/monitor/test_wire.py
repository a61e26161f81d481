"""The packets of the link: whatever bytes come, a packet or a WireError."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.monitor import wire

INTS = st.integers(-(2**63), 2**63 - 1)
FIELDS = st.lists(
    st.one_of(INTS, st.binary(max_size=200), st.lists(st.binary(max_size=20), max_size=5)), max_size=8
)
TAGS = st.integers(0, 0xFFFFFFFF)


@given(tag=TAGS, fields=FIELDS)
def test_a_packet_survives_the_wire(tag: int, fields: list[int | bytes | list[bytes]]) -> None:
    # REPLY takes any fields; every other operation has a shape.
    assert wire.decode(wire.encode(wire.REPLY, tag, *fields)) == (wire.REPLY, tag, fields)


@given(data=st.binary(max_size=200))
def test_garbage_is_never_worse_than_an_error(data: bytes) -> None:
    try:
        op, _, fields = wire.decode(data)
    except wire.WireError:
        return
    assert op in wire.SHAPES
    assert len(fields) <= wire.MAX_FIELDS


@given(tag=TAGS, fields=FIELDS, data=st.data())
def test_a_damaged_packet_is_never_worse_than_an_error(
    tag: int, fields: list[int | bytes | list[bytes]], data: st.DataObject
) -> None:
    packet = bytearray(wire.encode(wire.REPLY, tag, *fields))
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    try:
        wire.decode(bytes(packet))
    except wire.WireError:
        pass


@given(tag=TAGS, fields=FIELDS.filter(bool), data=st.data())
def test_a_packet_cut_short_or_too_long_is_refused(
    tag: int, fields: list[int | bytes | list[bytes]], data: st.DataObject
) -> None:
    packet = wire.encode(wire.REPLY, tag, *fields)
    with pytest.raises(wire.WireError):
        wire.decode(packet[: data.draw(st.integers(0, len(packet) - 1))])
    with pytest.raises(wire.WireError):
        wire.decode(packet + b"i")


@pytest.mark.parametrize("op", sorted(set(wire.SHAPES) - {wire.REPLY}))
def test_fields_of_the_wrong_shape_are_refused(op: int) -> None:
    shape = wire.SHAPES[op]
    assert shape is not None
    samples: dict[str, int | bytes | list[bytes]] = {"i": 1, "b": b"x", "l": [b"y"]}
    right = [samples[kind] for kind in shape]
    assert wire.decode(wire.encode(op, 7, *right)) == (op, 7, right)
    for wrong in (right[1:], [*right, 1], [samples["l" if shape[0] != "l" else "i"], *right[1:]]):
        with pytest.raises(wire.WireError, match="wanted"):
            wire.decode(wire.encode(op, 7, *wrong))


@given(states=st.lists(st.binary(max_size=60), max_size=8), cut=st.integers(1, 30))
def test_slots_beyond_a_lists_items_survive_the_wire(states: list[bytes], cut: int) -> None:
    assert wire.decode_slots(list(wire.encode_slots(states))) == states
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "MAX_ITEMS", -1)
        packed = wire.encode_slots(states)
    assert isinstance(packed, bytes)
    assert wire.decode_slots(packed) == states
    if states and cut < 4 + len(states[-1]):
        with pytest.raises(wire.WireError):
            wire.decode_slots(packed[:-cut])


def test_counts_that_promise_too_much_are_refused_before_anything_is_made() -> None:
    head = wire.HEADER.pack(wire.REPLY, 1, 0)
    with pytest.raises(wire.WireError):
        wire.decode(head + struct.pack("<cI", b"l", 0xFFFFFFFF))
    with pytest.raises(wire.WireError):
        wire.decode(head + struct.pack("<cI", b"b", 0xFFFFFFFF))
    with pytest.raises(wire.WireError, match="fields"):
        wire.decode(wire.HEADER.pack(wire.REPLY, 0xFFFF, 0))


def test_what_does_not_fit_is_refused_by_the_sender() -> None:
    with pytest.raises(wire.WireError):
        wire.encode(wire.KILL, 0, 1, 2**63)
    with pytest.raises(wire.WireError, match="items"):
        wire.encode(wire.REPLY, 0, [b""] * (wire.MAX_ITEMS + 1))
    with pytest.raises(wire.WireError, match="allowed"):
        wire.encode(wire.SEND_FRAME, 0, 1, 2, 3, 4, bytes(wire.MAX_PACKET_BYTES))


@given(
    slot=INTS,
    pid=INTS,
    status=st.none() | INTS,
    drained=st.booleans(),
    terminal=st.booleans(),
    label=st.binary(max_size=50),
    service=st.booleans(),
    request=INTS,
    told=st.booleans(),
    signalled=st.sampled_from([0, 9, 15]),
)
def test_a_slots_state_survives_the_wire(
    slot: int,
    pid: int,
    status: int | None,
    drained: bool,
    terminal: bool,
    label: bytes,
    service: bool,
    request: int,
    told: bool,
    signalled: int,
) -> None:
    state = (slot, pid, status, drained, terminal, label, service, request, told, signalled)
    packed = wire.encode_slot(*state)
    assert wire.decode_slot(packed) == state
    with pytest.raises(wire.WireError):
        wire.decode_slot(packed[:20])


@given(st.lists(INTS, max_size=50))
def test_numbers_survive_the_wire(numbers: list[int]) -> None:
    packed = wire.encode_numbers(numbers)
    assert wire.decode_numbers(packed) == numbers
    with pytest.raises(wire.WireError):
        wire.decode_numbers(packed + b"x")
