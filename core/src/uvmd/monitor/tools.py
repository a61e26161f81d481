"""What all relays of a monitor share: loop, log, one buffer, one scratch pipe, large pipes."""

from __future__ import annotations

import fcntl

from uvmd.monitor.history import Scratch
from uvmd.monitor.loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from uvmd.monitor.log import Log

LARGE_PIPE_BYTES = 256 * 1024

# Also what a tee'd or terminal stream may keep while its host does not read.
_BUFFER_BYTES = 32_768
_PAGE_BYTES = 4096
_SOFT_LIMIT = "/proc/sys/fs/pipe-user-pages-soft"


class Tools:
    """Made once and handed to every relay."""

    def __init__(self, loop: Loop, log: Log) -> None:
        self.loop = loop
        self.log = log
        self.scratch = Scratch(LARGE_PIPE_BYTES)
        self.view = loop.room[:_BUFFER_BYTES]
        self.drain_grace_s = 10.0
        self._large_left = large_pipes_allowed(_read_soft_limit())

    def enlarge(self, pipe: int) -> bool:
        """Make a busy pipe four times as large, if the budget has room; see ``give_back``.

        It halves the time of a fast stream: fewer wakeups, larger splices.
        """
        if not self._large_left:
            return False
        try:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, LARGE_PIPE_BYTES)
        except OSError:  # over the limit of an unprivileged monitor: it stays as it is
            return False
        self._large_left -= 1
        return True

    def give_back(self) -> None:
        """An enlarged pipe was closed."""
        self._large_left += 1


def large_pipes_allowed(soft_limit_pages: int) -> int:
    """Return how many pipes may be enlarged: a quarter of what one user may have.

    The pages are counted for the user, root, whose containers would otherwise get pipes
    of two pages (pipe(7), pipe-user-pages-soft). 0 there means no limit.
    """
    pages = soft_limit_pages or 65_536
    return pages // 4 // (LARGE_PIPE_BYTES // _PAGE_BYTES)


def _read_soft_limit() -> int:
    try:
        with open(_SOFT_LIMIT, "rb", buffering=0) as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return 16_384
