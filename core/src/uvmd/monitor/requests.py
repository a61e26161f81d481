"""What the daemon asks for, carried out: one method an operation.

Answers go to the daemon that asked; if it is gone by then they are dropped, while what
was done (a process adopted, say) stays done and is reported to the next one.
"""

from __future__ import annotations

import errno
import os

from uvmd.monitor import dial, log, wire
from uvmd.monitor.answer import Answer
from uvmd.monitor.programs import Programs
from uvmd.monitor.slots import Slot
from uvmd.monitor.table import SlotTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    from uvmd.monitor.bridge import Bridge
    from uvmd.monitor.channel import Channel
    from uvmd.monitor.tools import Tools
else:
    import _signal as signal

_NS = 1_000_000_000


class Requests:
    """The operations of the link, by number."""

    def __init__(
        self,
        tools: Tools,
        bridge: Bridge,
        table: SlotTable,
        programs: Programs,
        on_finish: Callable[[int], None],
    ) -> None:
        self._tools = tools
        self._log = tools.log
        self._bridge = bridge
        self._table = table
        self._on_finish = on_finish
        self._operations: dict[int, Callable[..., None]] = {
            wire.OPEN_BRIDGE: self._open_bridge,
            wire.STREAM_BASE: self._stream_base,
            wire.SEND_FRAME: self._send_frame,
            wire.CLOSE_BRIDGE: self._close_bridge,
            wire.RUN: programs.run,
            wire.OPEN_SLOT: table.open_slot,
            wire.CONNECT: table.connect,
            wire.SPAWN: programs.spawn,
            wire.KILL: self._kill,
            wire.RESIZE: self._resize,
            wire.STOP_REDIAL: self._stop_redial,
            wire.RELEASE: self._release,
            wire.DIAL: table.dial_port,
            wire.FINISH: self._finish,
            wire.CONFIGURE: self._configure,
            wire.SERVICE: programs.service,
        }

    def handle(self, channel: Channel, op: int, tag: int, fields: list[object], fds: list[int]) -> None:
        """Carry out one request; a failure becomes its answer."""
        answer = Answer(channel, tag)
        try:
            self._operations[op](answer, fds, *fields)
        except OSError as error:
            answer.fail(error)
        except (ValueError, OverflowError) as error:
            answer.fail(OSError(errno.EINVAL, str(error)))

    def _open_bridge(self, answer: Answer, _fds: list[int], target: bytes) -> None:
        self._bridge.open(os.fsdecode(target))
        answer.give()

    def _stream_base(self, answer: Answer, _fds: list[int], target: bytes) -> None:
        self._table.base = dial.parse_base(os.fsdecode(target))
        answer.give()

    def _send_frame(self, _answer: Answer, _fds: list[int], generation: int, frame: bytes) -> None:
        self._bridge.send(generation, frame)

    def _close_bridge(self, _answer: Answer, _fds: list[int], generation: int) -> None:
        self._bridge.close(generation)

    def _kill(self, answer: Answer, _fds: list[int], number: int, signal_number: int) -> None:
        slot = self._table.slot(number)
        # The monitor is the reaper: until it has taken the status, the pid is nobody else's.
        if not slot.pid or slot.status is not None:
            raise OSError(errno.ESRCH, "the process is gone")
        os.kill(slot.pid, signal_number)
        answer.give()

    def _resize(self, answer: Answer, _fds: list[int], number: int, rows: int, columns: int) -> None:
        self._table.slot(number).resize(rows, columns)
        answer.give()

    def _stop_redial(self, _answer: Answer, _fds: list[int], number: int) -> None:
        slot = self._table.slots.get(number)
        if slot is not None:
            slot.stop_redial()

    def _release(self, _answer: Answer, _fds: list[int], number: int) -> None:
        self._table.release(number)

    def _finish(self, _answer: Answer, _fds: list[int], status: int) -> None:
        self._on_finish(status & 0xFF)

    def _configure(
        self,
        _answer: Answer,
        _fds: list[int],
        form: bytes,
        level: bytes,
        max_inbound_bytes: int,
        grace_ns: int,
    ) -> None:
        if form:
            self._log.format = "text" if form == b"text" else "json"
        if level:
            self._log.level = log.LEVELS.get(os.fsdecode(level), self._log.level)
        if max_inbound_bytes >= 0:
            self._bridge.set_max_inbound(max_inbound_bytes)
        if grace_ns >= 0:
            self._tools.drain_grace_s = grace_ns / _NS


def kill_left_over(slots: dict[int, Slot], *, only_external: bool) -> None:
    """Kill the processes of slots; external ones with their whole group."""
    for slot in slots.values():
        if not slot.pid or slot.status is not None or (only_external and not slot.external):
            continue
        try:
            if slot.external:
                os.killpg(slot.pid, signal.SIGKILL)
            else:
                os.kill(slot.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
