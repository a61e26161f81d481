"""What the daemon asks for, carried out: one method an operation.

Answers go to the daemon that asked; if it is gone by then they are dropped, while what
was done (a process adopted, say) stays done and is reported to the next one. What is done
once for a request of the host is answered to each daemon that asks, and done for the first.
"""

from __future__ import annotations

import errno
import os

from uvmd.monitor import dial, log, wire
from uvmd.monitor.answer import Answer
from uvmd.monitor.kept import Kept, Once
from uvmd.monitor.programs import Programs
from uvmd.monitor.slots import Slot
from uvmd.monitor.table import SlotTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any

    from uvmd.monitor.bridge import Bridge
    from uvmd.monitor.channel import Channel
    from uvmd.monitor.children import Children
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
        children: Children,
        kept: Kept,
        on_finish: Callable[[int], None],
    ) -> None:
        self._tools = tools
        self._log = tools.log
        self._bridge = bridge
        self._table = table
        self._children = children
        self._kept = kept
        self._on_finish = on_finish
        #: How a daemon is started that is no child of ours: command line and environment.
        self.daemon: tuple[list[bytes], list[bytes]] | None = None
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
            wire.FORGET: self._forget,
            wire.AWAIT: self._await,
            wire.NOTE: self._note,
            wire.STARTED_AS: self._started_as,
        }

    def handle(self, channel: Channel, op: int, tag: int, fields: list[Any], fds: list[int]) -> None:
        """Carry out one request; a failure becomes its answer."""
        answer: Answer | Once = Answer(channel, tag)
        if op in wire.ONCE and (name := fields.pop()):
            found = self._once(fields[-1], b"%d %s" % (op, name), Answer(channel, tag))
            if found is None:
                if op in (wire.RUN, wire.SPAWN):
                    self._tell_end(channel, fields[6 if op == wire.RUN else 0])
                return
            answer = found
        try:
            self._operations[op](answer, fds, *fields)
        except OSError as error:
            if op == wire.KILL and isinstance(answer, Once):
                # Nothing was done: by the time of the next signal the process may be there.
                self._forget_once(fields[-1], answer)
            answer.fail(error)
        except (ValueError, OverflowError) as error:
            answer.fail(OSError(errno.EINVAL, str(error)))

    def _once(self, number: int, name: bytes, answer: Answer) -> Answer | Once | None:
        """Return where the answer goes to what is done once for a request; None: it was given."""
        request = self._kept.get(number)
        if request is None:
            return answer
        if request.once is None:
            request.once = {}
        if (done := request.once.get(name)) is not None:
            done.ask(answer)
            return None
        made = request.once[name] = Once(answer)
        return made

    def _forget_once(self, number: int, once: Once) -> None:
        request = self._kept.get(number)
        if request is not None and request.once is not None:
            request.once = {name: one for name, one in request.once.items() if one is not once}

    def _tell_end(self, channel: Channel, number: int) -> None:
        """An end that came before this daemon, or before it knew the process, is news to it."""
        slot = self._table.slots.get(number)
        if slot is not None and slot.pid and slot.status is not None:
            channel.send(wire.EXITED, 0, slot.number, slot.pid, slot.status)
            if slot.drained:
                channel.send(wire.DRAINED, 0, slot.number)

    def _open_bridge(self, answer: Answer, _fds: list[int], target: bytes) -> None:
        self._bridge.open(os.fsdecode(target))
        answer.give()

    def _stream_base(self, answer: Answer, _fds: list[int], target: bytes) -> None:
        self._table.base = dial.parse_base(os.fsdecode(target))
        answer.give()

    def _send_frame(
        self,
        _answer: Answer,
        _fds: list[int],
        generation: int,
        request: int,
        number: int,
        state: int,
        frame: bytes,
    ) -> None:
        slot = self._table.slots.get(number)
        if slot is not None:
            slot.told = True
        self._bridge.send(generation, frame, request, number, state)

    def _forget(self, _answer: Answer, _fds: list[int], request: int) -> None:
        self._kept.forget(request)
        self._bridge.resume()

    def _await(self, answer: Answer, _fds: list[int], number: int) -> None:
        """Answer, once nothing runs for a request any more, with what is known of it."""

        def idle() -> None:
            request = self._kept.get(number)
            done = [] if request is None or request.once is None else list(request.once)
            notes = {} if request is None or request.notes is None else request.notes
            answer.give(done, [part for note in notes.items() for part in note])

        self._children.when_idle(number, idle)

    def _note(self, _answer: Answer, _fds: list[int], request: int, name: bytes, value: bytes) -> None:
        self._kept.note(request, name, value)

    def _started_as(self, _answer: Answer, _fds: list[int], argv: list[bytes], env: list[bytes]) -> None:
        self.daemon = argv, env

    def _close_bridge(self, _answer: Answer, _fds: list[int], generation: int) -> None:
        self._bridge.close(generation)

    def _kill(self, answer: Answer, _fds: list[int], number: int, signal_number: int, request: int) -> None:
        slot = self._table.slot(number)
        # The monitor is the reaper: until it has taken the status, the pid is nobody else's.
        if not slot.pid or slot.status is not None:
            raise OSError(errno.ESRCH, "the process is gone")
        os.kill(slot.pid, signal_number)
        if request and signal_number in (signal.SIGTERM, signal.SIGKILL):
            slot.signalled = signal_number
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
