"""Where the answer to one request of the daemon goes."""

from __future__ import annotations

import errno

from uvmd.monitor import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from uvmd.monitor.channel import Channel

_NS = 1_000_000_000
_MAX_DEADLINE_S = 1e8


class Answer:
    """One answer; if the daemon that asked is gone, it is dropped."""

    __slots__ = ("_channel", "_tag")

    def __init__(self, channel: Channel, tag: int) -> None:
        self._channel = channel
        self._tag = tag

    @property
    def wanted(self) -> bool:
        """False once the daemon that asked is gone."""
        return self._channel.open

    def give(self, *fields: int | bytes | Sequence[bytes], fds: Sequence[int] = ()) -> None:
        """Answer. The descriptors stay the caller's."""
        self._channel.send(wire.REPLY, self._tag, *fields, fds=fds)

    def fail(self, error: OSError) -> None:
        """Answer with an error."""
        text = error.strerror or str(error)
        self._channel.send(wire.ERROR, self._tag, error.errno or errno.EIO, text.encode("utf-8", "replace"))


def seconds(ns: int) -> float:
    """Return a deadline in seconds, within what timers can take."""
    return min(max(0.0, ns / _NS), _MAX_DEADLINE_S)
