"""MappedDirectory with the kernel's 9p against a real server (diod), over vsock and over a unix socket."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from guest.harness.guest import Guest
from guest.harness.settings import IMPATIENT
from support.host import NULL_ID, Refused
from uvmd.api.testing.guest.leaks import assert_nothing_left, holdings

SHARED = "/run/shared"
PATH = "/run/gcs/c/box/mounts/m0"
UNIX = "unix:/run/testbed/host"
BOTH = pytest.mark.parametrize("vm", ["vsock", UNIX], ids=["vsock", "unix"], indirect=True)
# Which guest a test has depends on its transport.
pytestmark = [pytest.mark.guest, pytest.mark.root]


@pytest.fixture(scope="module")
def uvmd_settings() -> str:
    return IMPATIENT


@pytest.fixture
def vm(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A guest with a folder to be served, whose daemon dials over vsock, or as the test wants it to."""
    transport = getattr(request, "param", "vsock")
    vm: Guest = request.getfixturevalue("guest" if transport == "vsock" else "fresh_guest")
    if transport != "vsock":
        vm.daemon.restart({"transport": transport})
    vm.sh(f"mkdir {SHARED}; mount -t tmpfs shared {SHARED}; echo from the host > {SHARED}/file")
    yield vm
    vm.sh(f"pkill -KILL diod; umount {SHARED} && rmdir {SHARED}")


class Share:
    """One share of the folder: the requests about it."""

    def __init__(self, vm: Guest, port: int) -> None:
        self.vm, self.port = vm, port

    def add(self, **changes: Any) -> None:
        settings = {"MountPath": PATH, "Port": self.port, "ShareName": SHARED, **changes}
        self.vm.bridge.modify(NULL_ID, "MappedDirectory", settings=settings)

    def remove(self) -> None:
        self.vm.bridge.modify(NULL_ID, "MappedDirectory", "Remove", {"MountPath": PATH, "Port": self.port})

    def mounted(self) -> str:
        return self.vm.sh("grep ' 9p ' /proc/mounts", check=False)


@pytest.fixture
def share(vm: Guest) -> Iterator[Share]:
    """The folder, served, and mounted once before: by then the daemon has loaded all that it needs."""
    share = Share(vm, vm.serve_9p(SHARED))
    share.add()
    share.remove()
    before = vm.call(holdings)
    yield share
    assert_nothing_left(vm, before)
    vm.assert_kernel_is_calm()


@BOTH
def test_both_sides_see_what_either_writes(share: Share) -> None:
    share.add()
    assert "msize=65536" in share.mounted()
    assert share.vm.read(f"{PATH}/file") == "from the host\n"
    share.vm.sh(f"echo from the guest > {PATH}/new; mkdir {PATH}/folder; mv {PATH}/new {PATH}/folder/")
    assert share.vm.read(f"{SHARED}/folder/new") == "from the guest\n"
    share.vm.sh(f"rm -r {PATH}/folder; head -c 1000000 /dev/urandom > {PATH}/large")
    assert share.vm.sh(f"cmp {PATH}/large {SHARED}/large && rm {SHARED}/large") == ""
    share.remove()
    assert share.mounted() == ""


def test_a_read_only_share_takes_nothing(share: Share) -> None:
    share.add(ReadOnly=True)
    assert " ro," in share.mounted()
    assert "Read-only file system" in share.vm.sh(f"touch {PATH}/file 2>&1", check=False)
    share.remove()


def test_what_the_server_refuses_and_that_nobody_answers_is_said(share: Share) -> None:
    with pytest.raises(Refused, match=f"failed to mount directory for mapped directory {PATH}: mount {PATH}"):
        share.add(ShareName="/run/other")
    with pytest.raises(Refused, match=f"could not connect to plan9 server for {PATH}: port 1: "):
        share.add(Port=1)
    assert share.mounted() == ""


def test_a_share_whose_server_is_gone_fails_its_users_and_is_removed(share: Share) -> None:
    share.add()
    share.vm.sh("pkill -KILL diod")
    error = share.vm.sh(f"cat {PATH}/file 2>&1; ls {PATH} 2>&1", check=False)
    assert "from the host" not in error
    share.remove()
    share.add()
    assert share.vm.read(f"{PATH}/file") == "from the host\n"
    share.remove()


@BOTH
def test_a_server_that_never_answers_is_given_up(share: Share) -> None:
    share.add()
    share.vm.sh("pkill -STOP diod")
    began = time.monotonic()
    share.remove()
    assert 2 < time.monotonic() - began < 15
    assert share.mounted() == ""
    share.vm.sh("pkill -KILL diod")

    def listen_only(port: int) -> None:
        import socket
        import threading

        listeners = [socket.socket(socket.AF_UNIX), socket.socket(socket.AF_VSOCK)]
        listeners[0].bind(f"/run/testbed/host_{port}")
        listeners[1].bind((socket.VMADDR_CID_ANY, port))
        kept = []

        def accept(listener: socket.socket) -> None:
            listener.listen()
            kept.append(listener.accept())

        for listener in listeners:
            threading.Thread(target=accept, args=(listener,), daemon=True).start()

    share.vm.call(listen_only, 7777)
    with pytest.raises(Refused, match=r"the host's server did not answer for [0-9.]+ s"):
        share.add(Port=7777)
    assert share.mounted() == ""


def test_the_next_daemon_removes_what_a_killed_one_added(share: Share) -> None:
    share.add()
    share.vm.daemon.wait_for_another(share.vm.daemon.kill())
    share.vm.hang_up()
    assert share.vm.read(f"{PATH}/file") == "from the host\n"
    share.remove()
    assert share.mounted() == ""
