from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.client.address import Address, default_address, ensure_parent, parse_address
from uvmd.client.errors import AddressError


def test_a_path_is_made_absolute() -> None:
    assert parse_address("unix:b.sock") == Address(os.path.abspath("b.sock"))


@pytest.mark.parametrize(
    ("text", "port"), [("vsock", 0x40000000), ("vsock:7", 7), ("vsock:0x40000001", 0x40000001)]
)
def test_a_vsock_port_may_be_left_out(text: str, port: int) -> None:
    assert parse_address(text) == Address("", port)


@pytest.mark.parametrize(
    "text", ["", "unix:", "tcp:1", "vsock:x", "vsock:0", "vsock:4294967295", "unix:/" + "x" * 96]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text)


@given(st.text())
def test_parsing_never_fails_in_another_way(text: str) -> None:
    try:
        parse_address("unix:" + text)
        parse_address(text)
    except (AddressError, ValueError):
        pass


def test_the_longest_path_leaves_room_for_a_port(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = str(tmp_path_factory.mktemp("d"))
    address = parse_address("unix:" + directory + "/" + "x" * (96 - len(directory) - 1))
    address.listen(4294967295).close()


def test_the_variable_overrides_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UVMD_HOST", raising=False)
    assert str(default_address()) == "unix:/run/uvmd/host.sock"
    monkeypatch.setenv("UVMD_HOST", "vsock:9")
    assert default_address() == Address("", 9)


def test_the_hint_names_the_daemons_side() -> None:
    assert Address("/b").serve_hint == "unix:/b"
    assert Address("").serve_hint == "vsock:2:1073741824"


def test_a_socket_is_its_owners_only_and_goes_with_its_listener(address: Address) -> None:
    before = os.umask(0)
    try:
        listening = address.listen(5)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(f"{address.path}_5").st_mode) == 0o600
    listening.close()
    listening.close()
    assert not os.path.exists(f"{address.path}_5")


def test_a_taken_port_is_an_address_error(address: Address) -> None:
    listening = address.listen(5)
    with pytest.raises(AddressError, match="port 5"):
        address.listen(5)
    listening.close()


def test_somebody_elses_directory_is_not_made(address: Address) -> None:
    with pytest.raises(AddressError, match="does not exist"):
        ensure_parent(os.path.dirname(address.path) + "/missing/b.sock")
