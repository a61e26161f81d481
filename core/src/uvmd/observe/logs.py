"""The daemon's log: the standard library's loggers, one handler, one line a record.

Nothing else writes to standard error: warnings and uncaught exceptions come out as
records too. A reader that does not read loses lines, not requests.
"""

from __future__ import annotations

import logging
import os
import select
import stat
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from uvmd.observe.lines import json_line, text_line

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

log = logging.getLogger(__name__)


class LineHandler(logging.Handler):
    """Writes each record as one line to a descriptor, in one piece, without blocking."""

    def __init__(self, fd: int, format: str, *, scrubbed: bool) -> None:
        super().__init__()
        self.silenced = False
        self._fd = fd
        self._line: Callable[..., bytes] = json_line if format == "json" else text_line
        self._scrubbed = scrubbed
        self._lost = 0
        #: A full disk has taken the beginning of a line.
        self._torn = False
        self._poll: select.poll | None = None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            self._poll = select.poll()
            self._poll.register(fd, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        if self.silenced:
            return
        try:
            line = self._line(record, scrubbed=self._scrubbed, lost=self._lost)
            # POLLOUT of a pipe promises room for a page, which is the longest line.
            if self._poll is not None and not self._writable():
                self._lost += 1
                return
            if self._torn:
                line = b"\n" + line
            self._torn = os.write(self._fd, line) < len(line)
            self._lost = self._lost + 1 if self._torn else 0
        except Exception:
            # Whoever logs has something better to do than to die of it.
            self._lost += 1

    def _writable(self) -> bool:
        assert self._poll is not None
        ready = self._poll.poll(0)
        return bool(ready) and bool(ready[0][1] & select.POLLOUT)


_handler: LineHandler | None = None


def setup(*, format: str = "json", level: str = "info", file: str = "", scrub: bool = True) -> None:
    """Send everything that is logged to standard error, or append it to ``file``.

    Raises:
        OSError: ``file`` cannot be opened.
    """
    global _handler
    fd = 2
    if file:
        fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    _handler = LineHandler(fd, format, scrubbed=scrub)
    root = logging.getLogger()
    root.handlers[:] = [_handler]
    root.setLevel(LEVELS[level])
    # Lines show facts, not who called: finding that out is a third of a record's cost.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    sys.unraisablehook = _unraisable
    threading.excepthook = _uncaught_in_thread


def silence() -> None:
    """Discard what is logged: no policy has allowed it yet (spec policy.md, runtime_logging)."""
    if _handler is not None:
        _handler.silenced = True


def restore() -> None:
    """Log again."""
    if _handler is not None:
        _handler.silenced = False


def _uncaught(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    log.critical("an exception was not caught", exc_info=(kind, error, where))


def _uncaught_in_thread(args: Any) -> None:
    if args.exc_value is not None and args.exc_type is not SystemExit:
        name = args.thread.name if args.thread is not None else "unknown"
        log.critical(
            "an exception ended a thread",
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
            extra={"thread_name": name},
        )


def _unraisable(args: Any) -> None:
    if args.exc_value is not None:
        error = (args.exc_type, args.exc_value, args.exc_traceback)
        log.error("an exception could not be raised", exc_info=error)
