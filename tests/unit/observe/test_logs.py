"""The handler on real descriptors; what setup() changes in the process is put back after each test."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from uvmd.observe import logs
from uvmd.observe.logs import LineHandler

log = logging.getLogger("uvmd.test")
_CHANGED = ("_srcfile", "logThreads", "logProcesses", "logMultiprocessing", "raiseExceptions")


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Any]:
    """Logging set up into a file; call it for the lines so far."""
    root, file = logging.getLogger(), tmp_path / "log"
    kept = {name: getattr(logging, name) for name in _CHANGED}
    handlers, level, hooks = root.handlers[:], root.level, (sys.excepthook, sys.unraisablehook)
    thread_hook, show = threading.excepthook, warnings.showwarning
    logs.setup(file=str(file), level="info")
    (handler,) = root.handlers
    try:
        yield lambda: [json.loads(line) for line in file.read_text().splitlines()]
    finally:
        logging.captureWarnings(False)
        root.handlers[:], root.level = handlers, level
        (sys.excepthook, sys.unraisablehook), threading.excepthook = hooks, thread_hook
        warnings.showwarning = show
        for name, value in kept.items():
            setattr(logging, name, value)
        assert isinstance(handler, LineHandler)
        os.close(handler._fd)
        logs._handler = None


def hook_arguments(error: BaseException, thread: threading.Thread | None = None) -> Any:
    return SimpleNamespace(exc_type=type(error), exc_value=error, exc_traceback=None, thread=thread)


def test_lines_go_to_a_file_that_only_its_owner_reads(lines: Any, tmp_path: Path) -> None:
    log.info("hello", extra={"container": "c", "env": ["A=1"]})
    log.debug("not shown")
    (line,) = lines()
    assert (line["msg"], line["container"], line["env"]) == ("hello", "c", ["<scrubbed>"])
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_warnings_and_uncaught_exceptions_are_lines_too(lines: Any) -> None:
    # The tests' own filter makes a warning an error before it is shown.
    warnings.showwarning("old", DeprecationWarning, "file.py", 1)
    error = KeyError("s3cr3t")
    sys.excepthook(KeyError, error, None)
    thread = threading.Thread(target=lambda: None, name="work-1")
    threading.excepthook(hook_arguments(error, thread))
    sys.unraisablehook(hook_arguments(error))
    warned, uncaught, in_thread, unraisable = lines()
    assert "DeprecationWarning: old" in warned["msg"]
    assert (uncaught["level"], uncaught["error"]) == ("error", "KeyError")
    assert in_thread["thread_name"] == "work-1"
    assert unraisable["msg"] == "an exception could not be raised"
    assert "s3cr3t" not in str(lines())


def test_a_thread_that_exits_on_purpose_is_no_line(lines: Any) -> None:
    threading.excepthook(hook_arguments(SystemExit(0)))
    assert lines() == []


def test_silence_discards_until_it_ends(lines: Any) -> None:
    logs.silence()
    log.error("nobody may see this")
    logs.restore()
    log.error("seen")
    assert [line["msg"] for line in lines()] == ["seen"]


def test_silence_without_a_handler_is_harmless() -> None:
    logs.silence()
    logs.restore()


def test_a_record_that_cannot_be_formatted_costs_only_its_line(lines: Any) -> None:
    log.info("%d items", "many")
    log.info("next")
    assert [line["msg"] for line in lines()] == ["next"]
    assert lines()[0]["lost_lines"] == "1"


def pipe_handler() -> tuple[LineHandler, int, int]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    return LineHandler(writer, "json", scrubbed=True), reader, writer


def emit(handler: LineHandler, message: str) -> None:
    handler.emit(logging.LogRecord("r", logging.INFO, "", 0, message, (), None))


def test_a_reader_that_does_not_read_loses_lines_and_blocks_nobody() -> None:
    handler, reader, writer = pipe_handler()
    try:
        for _ in range(100):
            emit(handler, "x" * 2000)
        got = os.read(reader, 1 << 20)
        emit(handler, "after")
        after = json.loads(os.read(reader, 1 << 20))
        assert int(after["lost_lines"]) + got.count(b"\n") == 100
        assert after["msg"] == "after"
    finally:
        os.close(reader)
        os.close(writer)


def test_a_reader_that_is_gone_is_harmless() -> None:
    handler, reader, writer = pipe_handler()
    os.close(reader)
    try:
        emit(handler, "x")
    finally:
        os.close(writer)


def test_a_file_that_cannot_be_opened_is_an_error() -> None:
    with pytest.raises(OSError, match="No such file"):
        logs.setup(file="/nowhere/at/all/log")


def test_a_line_for_which_the_disk_had_no_room_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    handler, real = LineHandler(fd, "json", scrubbed=False), os.write
    record = log.makeRecord("a", logging.INFO, "", 0, "hello", (), None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, line: real(fd, line[:20]))
        handler.emit(record)
    handler.emit(record)
    handler.emit(record)
    os.close(fd)
    torn, second, third = (tmp_path / "log").read_text().splitlines()
    assert len(torn) == 20
    assert (json.loads(second)["lost_lines"], "lost_lines" in json.loads(third)) == ("1", False)
