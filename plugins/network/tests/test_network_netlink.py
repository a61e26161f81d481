"""What is said to the kernel, byte by byte, and what is understood of its answers."""

from __future__ import annotations

import errno
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd_network import messages
from uvmd_network.kernel import NetlinkLinks
from uvmd_network.layout import Address, Route, Rule
from uvmd_network.netlink import Netlink, raise_error
from uvmd_network.netlink import messages as split

HEADER = struct.Struct("=IHHII")


def packet(type_: int, body: bytes, sequence: int = 1, flags: int = 0) -> bytes:
    data = HEADER.pack(16 + len(body), type_, flags, sequence, 0) + body
    return data + bytes(-len(data) % 4)


class Recorder(Netlink):
    """A socket that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def close(self) -> None: ...

    def request(self, message: bytes) -> list[bytes]:
        self.sent.append(message)
        return []


def said(method: str, *arguments: object, **more: object) -> tuple[int, int, bytes]:
    recorder = Recorder()
    getattr(NetlinkLinks(recorder), method)(*arguments, **more)
    (message,) = recorder.sent
    length, type_, flags, _, _ = HEADER.unpack_from(message)
    assert length == len(message)
    return type_, flags, message[16:]


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


NEW = 0x001 | 0x200 | 0x400
TEN, TWO = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
V6 = bytes.fromhex("fd000000000000000000000000000001")


def test_addresses_are_laid_out_as_the_kernel_reads_them() -> None:
    body = struct.pack("=BBBBI", 2, 24, 0, 0, 7) + attribute(2, TWO) + attribute(1, TWO)
    assert said("add_address", 7, Address("10.0.0.2", 24)) == (20, NEW, body)
    assert said("remove_address", 7, Address("10.0.0.2", 24)) == (21, 1, body)
    body6 = struct.pack("=BBBBI", 10, 64, 2, 0, 7) + attribute(2, V6) + attribute(1, V6)
    assert said("add_address", 7, Address("fd00::1", 64)) == (20, NEW, body6)


def test_routes_are_laid_out_as_the_kernel_reads_them() -> None:
    oif = attribute(4, struct.pack("=I", 7))
    default = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0) + oif + attribute(5, TEN)
    assert said("add_route", 7, Route("0.0.0.0/0", "10.0.0.1")) == (24, NEW, default)
    assert said("remove_route", 7, Route("0.0.0.0/0", "10.0.0.1")) == (25, 1, default)
    metric = struct.pack("=BBBBBBBBI", 10, 128, 0, 0, 101, 3, 253, 1, 0)
    metric += oif + attribute(1, V6) + attribute(6, struct.pack("=I", 500))
    assert said("add_route", 7, Route("fd00::1/128", "", 500, 101, True)) == (24, NEW, metric)


def test_rules_and_links_are_laid_out_as_the_kernel_reads_them() -> None:
    rule = struct.pack("=BBBBBBBBI", 2, 0, 32, 0, 101, 0, 0, 1, 0)
    rule += attribute(2, TWO) + attribute(6, struct.pack("=I", 5))
    assert said("add_rule", Rule("10.0.0.2")) == (32, NEW, rule)
    assert said("remove_rule", Rule("10.0.0.2")) == (33, 1, rule)
    link = struct.pack("=BBHiII", 0, 0, 0, 7, 1, 1) + attribute(4, struct.pack("=I", 1400))
    assert said("configure", 7, mtu=1400, up=True) == (19, 1, link)
    assert said("configure", 7, up=False) == (19, 1, struct.pack("=BBHiII", 0, 0, 0, 7, 0, 1))
    move = struct.pack("=BBHiII", 0, 0, 0, 7, 0, 0)
    move += attribute(28, struct.pack("=I", 9)) + attribute(3, b"eth0\0")
    assert said("move", 7, 9, "eth0") == (19, 1, move)


def test_a_link_is_read_from_an_answer() -> None:
    body = struct.pack("=BBHiII", 0, 0, 1, 7, 0x1003, 0)
    body += attribute(3, b"eth0\0") + attribute(4, struct.pack("=I", 1500))
    number, flags, name, mtu = messages.read_link(packet(16, body))
    assert (number, flags & 1, name, mtu) == (7, 1, "eth0", 1500)


@given(st.binary(min_size=32, max_size=120))
def test_any_bytes_are_a_link_or_an_error(data: bytes) -> None:
    try:
        messages.read_link(data)
    except OSError:
        pass


def test_of_pyroute2_the_messages_alone_are_imported_and_others_get_the_real_one() -> None:
    messages.encode("rule", 32, 0, {}, ())
    assert "pyroute2.netlink.rtnl.fibmsg" in sys.modules
    assert not [name for name in sys.modules if name.startswith(("pyroute2.ndb", "pyroute2.iproute"))]
    assert "pyroute2" not in sys.modules


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 2**32 - 1), st.binary(max_size=20))))
def test_a_buffer_of_messages_is_split_into_them(parts: list[tuple[int, int, bytes]]) -> None:
    data = b"".join(packet(type_, body, sequence) for type_, sequence, body in parts)
    assert [(type_, sequence, one[16:]) for type_, sequence, one in split(data)] == parts


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_an_error(data: bytes) -> None:
    try:
        for _, _, one in split(data):
            raise_error(one)
    except OSError:
        pass


def test_the_end_of_a_request_that_went_well_is_no_error() -> None:
    raise_error(packet(2, struct.pack("=i", 0) + bytes(16)))


@pytest.mark.parametrize("capped", [True, False])
def test_the_kernels_errno_and_its_words_are_told(capped: bool) -> None:
    request = packet(24, b"" if capped else b"the route" + bytes(3))
    if capped:  # the length that it had is repeated, what it carried is not
        request = HEADER.pack(64, 24, 0, 1, 0)
    words = attribute(2, b"\4\0\0\0") + attribute(1, b"Nexthop has invalid gateway.\0")
    body = struct.pack("=i", -errno.ENETUNREACH) + request + words
    with pytest.raises(OSError) as caught:
        raise_error(packet(2, body, flags=0x200 | (0x100 if capped else 0)))
    assert (caught.value.errno, caught.value.strerror) == (errno.ENETUNREACH, "nexthop has invalid gateway")
    with pytest.raises(OSError, match="Network is unreachable"):
        raise_error(packet(2, struct.pack("=i", -errno.ENETUNREACH) + request))
