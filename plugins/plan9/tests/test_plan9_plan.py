"""What MappedDirectory asks, claims and refuses, and the words for mount(8); nothing is mounted."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import TYPE, Vm

from uvmd.api import Claim, Kind
from uvmd.codec import decode_value
from uvmd.errors import Failed, InvalidMessage, PolicyDenied, Refused
from uvmd.plugin_manager import load_plugins
from uvmd.plugin_manager.inspection import resolve_all
from uvmd_plan9.share import MappedDirectorySettings, Share, share_of


@pytest.fixture
def vm(tmp_path: Path) -> Vm:
    return Vm(tmp_path)


def decode(value: Any) -> MappedDirectorySettings:
    found: MappedDirectorySettings = decode_value(value, MappedDirectorySettings, what="Settings")
    return found


def test_it_declares_one_type_and_everything_resolves() -> None:
    plugins = load_plugins(allow=["plan9"], sections={"plan9": {"dial_timeout_s": 1.0}})
    assert list(plugins.resource_types) == [TYPE]
    assert plugins.config("plan9").dial_timeout_s == 1
    assert len(resolve_all(plugins)) == 1


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"MountPath": ""}, Refused, "MountPath is not an absolute, clean path"),
        ({"MountPath": "/"}, Refused, "MountPath is not"),
        ({"MountPath": "/a/../b"}, Refused, "MountPath is not"),
        ({"Port": 0}, Refused, "Port 0 is none"),
        ({"Port": -1}, Refused, "Port -1 is none"),
        ({"Port": 2**31}, InvalidMessage, "Port"),
        ({"Port": "564"}, InvalidMessage, "Port: should be an integer"),
        ({"ReadOnly": 1}, InvalidMessage, "ReadOnly: should be true or false"),
        ({"ShareName": "a,suid"}, Refused, "ShareName has a character"),
        ({"ShareName": 'a"b'}, Refused, "ShareName has a character"),
        ({"ShareName": "a\nb"}, Refused, "ShareName has a character"),
    ],
)
def test_bad_settings_are_refused_and_nobody_is_dialled(
    vm: Vm, changes: dict[str, Any], error: type[Exception], text: str
) -> None:
    before = vm.everything()
    with pytest.raises(error, match=text):
        vm.add(**changes)
    assert (vm.host.dialled, vm.run.calls, vm.everything()) == ([], [], before)


def test_the_policy_decides_before_the_host_is_dialled(vm: Vm) -> None:
    enforcer = vm.bench.be_strict({"plan9_mount": False})
    before = vm.everything()
    with pytest.raises(PolicyDenied, match=f"mounting plan9 device at {vm.path} denied by policy: "):
        vm.add()
    asked = {"rootPrefix": "/run/gcs/c", "mountPathPrefix": "/mounts/m[0-9]+", "target": str(vm.path)}
    assert enforcer.asked == [("plan9_mount", asked)]
    assert (vm.host.dialled, vm.everything()) == ([], before)


@pytest.mark.parametrize("name", ["", "a", "1a", "1\u0661", "/1", "1 "])
def test_a_strict_vm_takes_numbers_as_names_and_says_so_after_the_policy(vm: Vm, name: str) -> None:
    enforcer = vm.bench.be_strict()
    before = vm.everything()
    with pytest.raises(Refused) as refusal:
        vm.add(ShareName=name)
    assert str(refusal.value) == f'invalid plan9 share name "{name}": must match regex "^[0-9]+$"'
    assert enforcer.points == ["plan9_mount"]
    assert (vm.host.dialled, vm.everything()) == ([], before)


def test_a_removal_asks_by_the_path_alone(vm: Vm) -> None:
    enforcer = vm.bench.be_strict({"plan9_unmount": False})
    with pytest.raises(PolicyDenied, match=f"unmounting plan9 device at {vm.path} denied by policy: "):
        vm.remove()
    assert enforcer.asked == [("plan9_unmount", {"unmountTarget": str(vm.path)})]


def test_removing_what_is_not_there_succeeds_and_touches_nothing(vm: Vm) -> None:
    vm.path.mkdir(parents=True)
    vm.remove()
    assert vm.path.exists()
    assert vm.run.calls == []


@pytest.mark.parametrize("strict", [False, True])
def test_a_disk_is_not_removed_as_a_share(vm: Vm, strict: bool) -> None:
    if strict:
        vm.bench.be_strict()
    vm.bench.table.change([Claim(str(vm.path), "/dev/sda", Kind.READ_ONLY)], strict=strict)
    with pytest.raises(Refused, match="is no mapped directory"):
        vm.remove()


def test_a_host_that_does_not_answer_is_named_with_its_port(vm: Vm) -> None:
    before = vm.everything()
    vm.host.refusal = ConnectionRefusedError(111, "Connection refused")
    text = f"could not connect to plan9 server for {vm.path}: port 564: connection refused"
    with pytest.raises(Failed, match=text):
        vm.add()
    assert vm.everything() == before


def test_what_is_no_socket_is_closed_again(vm: Vm) -> None:
    vm.host.dial = lambda port, deadline: os.open("/dev/null", os.O_RDWR)  # type: ignore[method-assign]
    vm.bench = vm.fresh_bench()
    before = vm.everything()
    with pytest.raises(Failed, match="socket operation on non-socket"):
        vm.add()
    assert vm.everything() == before


def test_a_socket_whose_buffers_cannot_be_set_is_closed_again(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = vm.everything()
    monkeypatch.setattr("socket.SO_SNDBUF", 9999)
    with pytest.raises(Failed, match="buffers of the socket: protocol not available"):
        vm.add()
    assert vm.everything() == before


@pytest.mark.parametrize(
    ("share", "options"),
    [
        (Share("/m", 564, "1", False), "rw,trans=fd,rfdno=3,wfdno=3,msize=65536,aname=1"),
        (Share("/m", 564, "1", True), "ro,trans=fd,rfdno=3,wfdno=3,msize=65536,aname=1"),
        (Share("/m", 564, "", True), "ro,trans=fd,rfdno=3,wfdno=3,msize=65536"),
    ],
)
def test_the_options_are_the_references_without_noload(share: Share, options: str) -> None:
    assert share.options(3) == options


@given(name=st.text(max_size=20))
def test_a_name_never_adds_an_option(name: str) -> None:
    try:
        share = share_of(decode({"MountPath": "/m", "Port": 1, "ShareName": name}))
    except Refused:
        return
    words = share.options(3).split(",")
    assert words[:5] == ["rw", "trans=fd", "rfdno=3", "wfdno=3", "msize=65536"]
    assert words[5:] == ([f"aname={name}"] if name else [])


@given(name=st.text(max_size=20))
def test_a_strict_name_is_digits_and_nothing_else(name: str) -> None:
    try:
        Share("/m", 1, name, False).require_strict_name()
    except Refused:
        assert not re.fullmatch(r"[0-9]+", name)
    else:
        assert re.fullmatch(r"[0-9]+", name)
