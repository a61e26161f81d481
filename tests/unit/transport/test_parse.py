"""The operator's words for a transport, and the errors that teach them."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.errors import ConfigError
from uvmd.transport.parse import Transport, parse_transport

U32 = st.integers(0, 0xFFFFFFFE)


@pytest.mark.parametrize(
    ("text", "bridge", "streams"),
    [
        ("vsock", "vsock:2:1073741824", "vsock:2"),
        ("vsock:7", "vsock:7:1073741824", "vsock:7"),
        ("vsock:2:9000", "vsock:2:9000", "vsock:2"),
        ("vsock:2:0x40000000", "vsock:2:1073741824", "vsock:2"),
        ("unix:/run/host.sock", "unix:/run/host.sock", "unix:/run/host.sock"),
        ("unix:/a:b", "unix:/a:b", "unix:/a:b"),
        ("stdio", "stdio", "vsock:2"),
        ("stdio:unix:/run/x", "stdio", "unix:/run/x"),
    ],
)
def test_a_transport_says_where_bridge_and_streams_are(text: str, bridge: str, streams: str) -> None:
    assert parse_transport(text) == Transport(bridge, streams)


@pytest.mark.parametrize(
    ("text", "teaches"),
    [
        ("", "say vsock"),
        ("tcp:1", "say vsock"),
        ("VSOCK", "say vsock"),
        ("vsock:", "CID '' is not a number"),
        ("vsock:host", "CID 'host' is not a number"),
        ("vsock:2:", "port '' is not a number"),
        ("vsock:2:1:3", "port '1:3' is not a number"),
        ("vsock:-1", "outside"),
        ("vsock:2:4294967295", "outside"),
        ("unix:", "a path is missing"),
        ("unix:/" + "x" * 96, "96 bytes at most"),
        ("stdio:", "say vsock"),
        ("stdio:vsock", "say vsock"),
        ("stdio:unix:", "a path is missing"),
        ("unix:/a\0b", "zero byte"),
    ],
)
def test_a_refusal_says_what_was_expected(text: str, teaches: str) -> None:
    with pytest.raises(ConfigError, match=teaches):
        parse_transport(text)


def test_a_relative_path_becomes_absolute() -> None:
    assert parse_transport("unix:host.sock").bridge == f"unix:{os.getcwd()}/host.sock"


@given(cid=U32, port=U32)
def test_every_address_in_range_is_taken(cid: int, port: int) -> None:
    assert parse_transport(f"vsock:{cid}:{port}") == Transport(f"vsock:{cid}:{port}", f"vsock:{cid}")


@given(text=st.text(max_size=40))
def test_no_text_does_worse_than_a_refusal(text: str) -> None:
    try:
        found = parse_transport(text)
    except ConfigError:
        return
    assert found.bridge.startswith(("vsock:", "unix:/", "stdio"))
    assert found.streams.startswith(("vsock:", "unix:/"))
