"""Network namespaces: held by descriptor, entered by a thread that ends afterwards."""

from __future__ import annotations

import os
import threading

import pytest

from uvmd.linux import netns, proc, syscalls


def inode(fd: int) -> int:
    return os.fstat(fd).st_ino


def test_the_namespace_of_a_process_is_held_by_a_descriptor_that_no_child_inherits() -> None:
    fd, own = netns.hold(os.getpid(), proc.start_time(os.getpid())), netns.hold_own()
    assert inode(fd) == inode(own)
    assert not os.get_inheritable(fd)
    assert not os.get_inheritable(own)
    os.close(fd)
    os.close(own)


def test_a_pid_that_changed_hands_is_not_the_process_that_was_meant() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ProcessLookupError):
        netns.hold(os.getpid(), proc.start_time(os.getpid()) - 1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_that_is_gone_is_named() -> None:
    with pytest.raises(ProcessLookupError, match="process 4194304000"):
        netns.hold(4194304000)


def test_what_is_no_namespace_cannot_be_entered_and_nothing_runs() -> None:
    ran: list[int] = []
    with open(os.devnull) as file, pytest.raises(OSError):
        netns.run_in(file.fileno(), lambda: ran.append(1))
    assert ran == []


@pytest.mark.root
def test_a_function_runs_inside_and_its_thread_is_gone_afterwards() -> None:
    made: list[int] = []

    def elsewhere() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        made.append(netns.hold_own())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    threads = threading.active_count()
    inside, own = netns.run_in(made[0], netns.hold_own), netns.hold_own()
    assert inode(inside) == inode(made[0])
    assert inode(inside) != inode(own)
    with pytest.raises(KeyError, match="of the function"):
        netns.run_in(made[0], lambda: {}["of the function"])
    assert threading.active_count() == threads
    for fd in (*made, inside, own):
        os.close(fd)
