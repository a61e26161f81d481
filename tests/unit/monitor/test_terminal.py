"""Ptys, received and made."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import termios
from pathlib import Path

import pytest

from uvmd.monitor import terminal


def window(fd: int) -> tuple[int, int]:
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns


def test_a_pty_of_our_own_can_be_opened_and_resized() -> None:
    master, slave = terminal.open_pty()
    assert os.stat(slave).st_mode & 0o777 == 0o600
    terminal.resize(master, 12, 345)
    assert window(master) == (12, 345)
    assert not os.get_blocking(master)
    fd = os.open(slave, os.O_RDWR | os.O_NOCTTY)
    assert os.isatty(fd)
    os.close(fd)
    for rows, columns in ((-1, 1), (1, 65_536), (1 << 40, 1)):
        with pytest.raises(OSError, match="window"):
            terminal.resize(master, rows, columns)
    os.close(master)


def send(path: Path, message: bytes, fds: list[int]) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        if fds:
            socket.send_fds(sock, [message], fds)
        else:
            sock.send(message)


def test_a_master_arrives_over_the_console_socket(tmp_path: Path) -> None:
    console = terminal.ConsoleSocket(os.fsencode(tmp_path / "console"))
    master, _ = terminal.open_pty()
    send(tmp_path / "console", b"/dev/ptmx", [master])
    received = console.take_master()
    terminal.resize(received, 7, 8)
    assert window(master) == (7, 8)
    assert not os.get_inheritable(received)
    assert not os.get_blocking(received)
    os.close(received)
    os.close(master)
    console.close()
    console.close()
    assert not (tmp_path / "console").exists()


@pytest.mark.parametrize(("message", "count"), [(b"x", 0), (b"x", 2), (b"x", 20), (bytes(4096), 1)])
def test_anything_else_on_the_console_socket_is_refused(tmp_path: Path, message: bytes, count: int) -> None:
    console = terminal.ConsoleSocket(os.fsencode(tmp_path / "console"))
    before = len(os.listdir("/proc/self/fd"))
    with open("/dev/null") as null:
        send(tmp_path / "console", message, [null.fileno()] * count)
    with pytest.raises(OSError) as caught:
        console.take_master()
    assert caught.value.errno == errno.EPROTO
    assert len(os.listdir("/proc/self/fd")) == before
    console.close()


def test_a_runtime_that_does_not_come_is_an_error(tmp_path: Path) -> None:
    console = terminal.ConsoleSocket(os.fsencode(tmp_path / "console"))
    with pytest.raises(OSError, match="did not connect"):
        console.take_master()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(tmp_path / "console"))
        with pytest.raises(OSError, match="sent nothing"):
            console.take_master()
    console.close()
