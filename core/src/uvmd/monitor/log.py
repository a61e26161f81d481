"""The monitor's log lines: one JSON object (or text) a line on descriptor 2, never blocking.

The daemon's formatter is not used: the standard library's logging costs the monitor
1.5 MiB. A reader that does not read loses lines, not containers.
"""

from __future__ import annotations

import _socket
import os
import select
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: ``off`` is for a VM whose policy does not let it log: its log is the host's to read.
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "off": 100}

# poll(2) promises room for one page in a pipe; a longer line could block.
_MAX_LINE_BYTES = 4096

_ESCAPES = {ord('"'): '\\"', ord("\\"): "\\\\", 0x7F: "\\u007f"}
_ESCAPES.update({code: f"\\u{code:04x}" for code in range(0x20)})


class Log:
    """Writes lines of at least ``level``."""

    def __init__(self, fd: int = 2) -> None:
        self.format = "json"
        self.level = LEVELS["info"]
        self._fd = fd
        self._lost = 0
        #: A full disk has taken the beginning of a line.
        self._torn = False
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        try:
            self._is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
        except OSError:
            self._is_socket = False

    def debug(self, message: str, **facts: object) -> None:
        """Log for someone who looks into the monitor itself."""
        self._write("debug", message, facts)

    def info(self, message: str, **facts: object) -> None:
        """Log what is worth knowing."""
        self._write("info", message, facts)

    def warning(self, message: str, **facts: object) -> None:
        """Log what went wrong and was coped with."""
        self._write("warning", message, facts)

    def error(self, message: str, **facts: object) -> None:
        """Log what went wrong."""
        self._write("error", message, facts)

    def _write(self, level: str, message: str, facts: dict[str, object]) -> None:
        if LEVELS[level] < self.level:
            return
        if self._lost:
            facts = {**facts, "lost_lines": self._lost}
        line = format_line(self.format, time.time_ns(), level, message, facts)
        if self._put(line):
            self._lost = 0
        else:
            self._lost += 1

    def _put(self, line: bytes) -> bool:
        try:
            if self._is_socket:
                return self._send(line)
            ready = self._poll.poll(0)
            if not ready or ready[0][1] & select.POLLNVAL:
                return False
            if self._torn:
                line = b"\n" + line
            self._torn = os.write(self._fd, line) < len(line)
            return not self._torn
        except OSError:  # there is nowhere left to say so
            return False

    def _send(self, line: bytes) -> bool:
        sock = _socket.socket(fileno=self._fd)
        try:
            sock.send(line, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
        finally:
            sock.detach()
        return True


def find_form(argv: Sequence[bytes], env: Mapping[bytes, bytes]) -> str:
    """Return what a daemon's command line or environment asks for, else JSON.

    For the lines before the daemon says it, and those after one that refuses to start. What
    only its configuration file says is not known then.
    """
    form = env.get(b"UVMD_LOG_FORMAT", b"")
    for word, after in zip(argv, (*argv, b"")[1:], strict=True):
        flag, equals, text = word.partition(b"=")
        if flag in (b"--log-format", b"-log-format"):
            form = text if equals else after
    return "text" if form == b"text" else "json"


def format_line(form: str, now_ns: int, level: str, message: str, facts: dict[str, object]) -> bytes:
    """Return one line; facts are left out when it would be too long to write without blocking."""
    seconds, rest = divmod(now_ns, 1_000_000_000)
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"
    render = _text_line if form == "text" else _json_line
    line = render(at, level, message, facts)
    if len(line) > _MAX_LINE_BYTES:
        # Escaped, one character may take six bytes.
        line = render(at, level, message[: _MAX_LINE_BYTES // 8], {})
    return line


def _text_line(at: str, level: str, message: str, facts: dict[str, object]) -> bytes:
    tail = "".join(f" {key}={value}" for key, value in facts.items())
    return f"{at} {level.upper():<7} {message}{tail}".translate(_ESCAPES).encode("utf-8", "replace") + b"\n"


def _json_line(at: str, level: str, message: str, facts: dict[str, object]) -> bytes:
    fields = {"time": at, "level": level, "msg": message, "logger": "uvmd.monitor", **facts}
    text = ",".join(f'"{key}":{_json_value(value)}' for key, value in fields.items())
    return ("{" + text + "}").encode("utf-8", "replace") + b"\n"


def _json_value(value: object) -> str:
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return '"' + str(value).translate(_ESCAPES) + '"'
