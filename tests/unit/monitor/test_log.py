"""The monitor's log lines."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.monitor.log import LEVELS, Log, find_form, format_line

NOW = 1_700_000_000_123_456_789


@given(message=st.text(max_size=50), value=st.text(max_size=50) | st.integers() | st.booleans())
def test_a_line_is_one_json_object_whatever_it_says(message: str, value: object) -> None:
    line = format_line("json", NOW, "info", message, {"fact": value})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    read = json.loads(line)
    assert read["time"] == "2023-11-14T22:13:20.123456789Z"
    assert read["level"] == "info"
    assert read["msg"].encode("utf-8", "replace") == message.encode("utf-8", "replace")
    if not isinstance(value, str):
        assert read["fact"] == value


@given(message=st.text())
def test_a_text_line_stays_one_line(message: str) -> None:
    line = format_line("text", NOW, "error", message, {"code": 5})
    assert line.startswith(b"2023-11-14T22:13:20.123456789Z ERROR   ")
    assert line.count(b"\n") == 1


@pytest.mark.parametrize(
    ("words", "variable", "form"),
    [
        ("", "", "json"),  # a monitor that waits for its daemon
        ("serve", "", "json"),
        ("serve --log-format text", "", "text"),
        ("serve --log-format=text --log-level debug", "", "text"),
        ("-log-format=text -v4", "", "text"),
        ("-log-format=text -v4 -log-format json", "text", "json"),
        ("serve", "text", "text"),
        ("serve --log-format=json", "text", "json"),
        ("serve --log-format", "text", "json"),
        ("serve --log-format=nonsense", "", "json"),
    ],
)
def test_the_form_is_the_last_that_was_asked_for(words: str, variable: str, form: str) -> None:
    env = {b"UVMD_LOG_FORMAT": variable.encode()} if variable else {}
    assert find_form(words.encode().split(), env) == form


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("message", ["x" * 100_000, "\0" * 100_000, "\U0001f600" * 50_000])
def test_a_line_is_never_longer_than_a_pipe_takes_at_once(form: str, message: str) -> None:
    line = format_line(form, NOW, "info", message, {"fact": message})
    assert len(line) <= 4096
    if form == "json":
        assert json.loads(line)["level"] == "info"


def test_lines_below_the_level_are_not_written() -> None:
    read_end, write_end = os.pipe()
    log = Log(write_end)
    log.debug("hidden")
    log.info("seen", pid=1)
    log.level = LEVELS["debug"]
    log.debug("now seen")
    log.format = "text"
    log.warning("as text", reason="a b")
    lines = os.read(read_end, 10_000).splitlines()
    assert [json.loads(line)["msg"] for line in lines[:2]] == ["seen", "now seen"]
    assert lines[2].endswith(b"WARNING as text reason=a b")
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_reader_that_does_not_read_loses_lines_and_is_told(kind: str) -> None:
    if kind == "pipe":
        read_end, write_end = os.pipe()
    else:
        pair = socket.socketpair()
        read_end, write_end = (sock.detach() for sock in pair)
    log = Log(write_end)
    for _ in range(5000):
        log.error("y" * 500)
    while len(os.read(read_end, 1 << 16)) == 1 << 16:
        pass
    os.set_blocking(read_end, False)
    try:
        while os.read(read_end, 1 << 16):
            pass
    except BlockingIOError:
        pass
    log.error("again")
    assert json.loads(os.read(read_end, 1 << 16))["lost_lines"] > 100
    os.close(read_end)
    os.close(write_end)


def test_a_log_that_is_closed_is_no_error() -> None:
    read_end, write_end = os.pipe()
    log = Log(write_end)
    os.close(read_end)
    log.error("to nobody")
    os.close(write_end)
    log.error("to nothing")


def test_a_line_for_which_the_disk_had_no_room_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    log, real = Log(fd), os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, line: real(fd, line[:20]))
        log.info("hello")
    log.info("hello")
    log.info("hello")
    os.close(fd)
    torn, second, third = (tmp_path / "log").read_text().splitlines()
    assert len(torn) == 20
    assert (json.loads(second)["lost_lines"], "lost_lines" in json.loads(third)) == (1, False)
