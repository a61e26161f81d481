"""When a slot counts as drained, and what it closes."""

from __future__ import annotations

import _socket
import gc
import os
import socket

import pytest

from support.monitor_parts import Parts
from uvmd.monitor import wire
from uvmd.monitor.slots import Slot


def connections(*wanted: bool) -> tuple[list[_socket.socket | None], list[socket.socket]]:
    ours: list[_socket.socket | None] = []
    hosts = []
    for one in wanted:
        if not one:
            ours.append(None)
            continue
        near, far = socket.socketpair()
        near.setblocking(False)
        ours.append(_socket.socket(fileno=near.detach()))
        hosts.append(far)
    return ours, hosts


def descriptors() -> int:
    gc.collect()  # what earlier tests left to the collector would be counted, and then not
    return len(os.listdir("/proc/self/fd"))


def test_a_slot_is_drained_when_the_process_is_gone_and_the_host_has_all(parts: Parts) -> None:
    drained: list[Slot] = []
    before = descriptors()
    slot = Slot(parts.tools, 7, b"label", drained.append)
    slot.open_pipes()
    made, hosts = connections(True, True, False)
    slot.connect(made)
    child = [os.dup(fd) for fd in slot.stdio_for_child(0)]
    slot.close_child_ends()
    os.write(child[1], b"output")
    for fd in child:
        os.close(fd)
    slot.pid = 5
    slot.exited(0)
    assert not drained
    received = b""
    while len(received) < 6:
        parts.run_until(lambda: True)
        received += hosts[1].recv(100)
    assert received == b"output"
    hosts[1].close()
    parts.run_until(lambda: drained)
    assert slot.state() == wire.encode_slot(7, 5, 0, True, False, b"label")
    hosts[0].close()
    assert descriptors() == before


def test_streams_nobody_wanted_do_not_delay_the_exit(parts: Parts) -> None:
    drained: list[Slot] = []
    slot = Slot(parts.tools, 1, b"", drained.append)
    slot.open_pipes()
    slot.connect([None, None, None])
    held = os.dup(slot.stdio_for_child(0)[1])  # a descendant that lives on
    slot.close_child_ends()
    slot.exited(3)
    assert drained == [slot]
    os.close(held)


def test_a_slot_that_was_never_connected_drains_at_once(parts: Parts) -> None:
    drained: list[Slot] = []
    before = descriptors()
    slot = Slot(parts.tools, 1, b"", drained.append)
    slot.open_pipes()
    slot.exited(-9)
    assert drained == [slot]
    assert not slot.connectable
    assert descriptors() == before


def test_an_exit_while_the_streams_are_being_dialled_waits_for_them(parts: Parts) -> None:
    drained: list[Slot] = []
    slot = Slot(parts.tools, 1, b"", drained.append)
    slot.open_pipes()
    slot.connecting = object()  # type: ignore[assignment]
    os.write(slot.stdio_for_child(0)[1], b"last words")
    slot.close_child_ends()
    slot.exited(0)
    assert not drained
    slot.connecting = None
    made, hosts = connections(False, True, False)
    slot.connect(made)
    parts.run_until(lambda: True)
    assert hosts[0].recv(100) == b"last words"
    hosts[0].close()
    parts.run_until(lambda: drained)


def test_closing_a_slot_says_nothing_and_leaves_nothing(parts: Parts) -> None:
    drained: list[Slot] = []
    before = descriptors()
    for wanted in ((True, True, True), (False, False, False)):
        slot = Slot(parts.tools, 1, b"", drained.append)
        slot.open_pipes()
        made, hosts = connections(*wanted)
        slot.take_tee(os.open("/dev/null", os.O_WRONLY))
        slot.connect(made)
        slot.close()
        for host in hosts:
            assert host.recv(1) == b""
            host.close()
    assert drained == []
    assert descriptors() == before


def test_a_slot_without_streams_gives_a_child_dev_null(parts: Parts) -> None:
    slot = Slot(parts.tools, 1, b"", lambda slot: None)
    assert slot.stdio_for_child(55) == (55, 55, 55)
    with pytest.raises(OSError, match="not a terminal"):
        slot.resize(1, 1)
    slot.stop_redial()
    slot.close()


def test_what_a_runtime_says_before_there_are_relays_can_be_read_once(parts: Parts) -> None:
    slot = Slot(parts.tools, 7, b"", lambda slot: None)
    assert slot.unread_errors(100) == b""
    slot.open_pipes()
    os.write(slot.stdio_for_child(0)[2], b"no such option")
    assert slot.unread_errors(100) == b"no such option"
    assert slot.unread_errors(100) == b""
    made, hosts = connections(False, False, True)
    slot.connect(made)
    os.write(slot.stdio_for_child(0)[2], b"for the host")
    assert slot.unread_errors(100) == b""
    slot.close()
    hosts[0].close()
