"""The monitor put together: its parts, its signals, its end."""

from __future__ import annotations

import errno
import os
import sys

from uvmd.monitor import _sys, wire
from uvmd.monitor.attached import Attached
from uvmd.monitor.bridge import Bridge
from uvmd.monitor.channel import Channel
from uvmd.monitor.children import Children
from uvmd.monitor.kept import Kept, Request
from uvmd.monitor.log import Log, find_form
from uvmd.monitor.loop import IN, Loop
from uvmd.monitor.notify import keep_pinging, notify
from uvmd.monitor.programs import Programs
from uvmd.monitor.requests import Requests, kill_left_over
from uvmd.monitor.slots import Slot
from uvmd.monitor.spawn import Spawner
from uvmd.monitor.supervisor import Supervisor
from uvmd.monitor.table import SlotTable
from uvmd.monitor.tools import Tools

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from typing import Any
else:
    import _signal as signal

STOP_S = 30.0

_END_S = 2.0
_KILLED_S = 0.5
_LOOK_S = 0.01
_LAST_FRAMES_S = 1.0


class Monitor:
    """One process, one thread; ``run`` returns the exit status.

    Its daemon is a child with the command line ``argv``, or, with ``listen``, one that somebody
    else starts and that connects to the socket at that path.
    """

    def __init__(self, argv: Sequence[bytes], listen: bytes = b"") -> None:
        self._log = Log()
        self._log.format = find_form(argv, os.environb)
        self._loop = Loop(self._failed)
        self._tools = Tools(self._loop, self._log)
        self._spawner = Spawner()
        self._children = Children(self._failed, self._exited, self._daemon_exited)
        self._kept = Kept()
        self._bridge = Bridge(self._loop, self._log, self, self._kept)
        self._table = SlotTable(self._tools, self._children, self._drained)
        programs = Programs(self._loop, self._spawner, self._children, self._table)
        self._requests = Requests(
            self._tools, self._bridge, self._table, programs, self._children, self._kept, self._finish
        )
        self._supervisor = (Attached if listen else Supervisor)(
            self._loop,
            self._log,
            self._spawner,
            self._children,
            argv,
            on_packet=self._packet,
            on_lost=self._daemon_lost,
            on_room=self._bridge.resume,
            on_ended=self._daemon_exited if listen else self._end,
        )
        if isinstance(self._supervisor, Attached):
            self._supervisor.listen(listen)
        self._stop_reason = ""
        self._finished = False
        self._ending = False
        self._status = 0

    def run(self) -> int:
        """Serve until the end."""
        self._catch_signals()
        self._loop.soon(self._supervisor.start)
        if isinstance(self._supervisor, Attached):
            notify("READY=1")  # a child of ours says it itself, once it serves
        keep_pinging(self._loop.call_later)
        self._loop.run()
        return self._status

    # What the bridge tells

    def bridge_up(self, generation: int) -> None:
        """Tell the daemon."""
        self._tell(wire.BRIDGE_UP, generation, 0)

    def bridge_frame(self, request: Request, frame: bytes) -> None:
        """Hand a request on."""
        channel = self._supervisor.channel
        if channel is not None and channel.greeted:
            request.attempts = 1
            channel.send(wire.BRIDGE_FRAME, 0, request.generation, request.number, frame)

    def bridge_unsent(self, request: int, slot: int, frame: bytes) -> None:
        """Hand a frame back."""
        self._tell(wire.BRIDGE_UNSENT, request, slot, frame)

    def bridge_down(self, generation: int, reason: str) -> None:
        """Tell the daemon."""
        self._tell(wire.BRIDGE_DOWN, generation, reason.encode())

    def bridge_finished(self, reason: str) -> None:
        """The bridge was on stdio, and that has ended: so do we."""
        if not self._stop_reason:
            self._stop(reason)

    def daemon_waiting_bytes(self) -> int:
        """Return how much the daemon still has to read."""
        channel = self._supervisor.channel
        return channel.waiting_bytes if channel is not None else 0

    # What the daemon and the children do

    def _packet(self, channel: Channel, op: int, tag: int, fields: list[Any], fds: list[int]) -> None:
        if op == wire.HELLO:
            self._greet(channel, tag, fields[0])
        else:
            if op == wire.SEND_FRAME and fields[1]:
                self._supervisor.served = True
            self._requests.handle(channel, op, tag, fields, fds)

    def _greet(self, channel: Channel, tag: int, version: int) -> None:
        if version != wire.VERSION:
            text = f"the monitor speaks version {wire.VERSION} of its language, the daemon {version}"
            self._log.error(text)
            channel.send(wire.ERROR, tag, errno.EPROTONOSUPPORT, text.encode())
            return
        is_new = not channel.greeted
        channel.greeted = True
        self._supervisor.greeted()
        slots = wire.encode_slots([slot.state() for slot in self._table.slots.values()])
        open_requests = wire.encode_numbers(one.number for one in self._kept if one.answer is None)
        facts = (wire.VERSION, self._supervisor.starts, slots, open_requests, self._table.highest)
        channel.send(wire.REPLY, tag, *facts)
        if is_new:
            self._hand_over(channel)
        if self._stop_reason:
            channel.send(wire.STOP, 0, self._stop_reason.encode())

    def _hand_over(self, channel: Channel) -> None:
        """Give a new daemon the bridge as it is: the connection, answers that are not on it, requests."""
        bridge = self._bridge
        if bridge.up:
            channel.send(wire.BRIDGE_UP, 0, bridge.generation, bridge.state(bridge.generation))
        for number, slot, frame in bridge.unsent():
            channel.send(wire.BRIDGE_UNSENT, 0, number, slot, frame)
        for request in self._kept:
            if request.answer is None:
                state = bridge.state(request.generation)
                facts = (request.generation, request.number, request.attempts, state)
                channel.send(wire.BRIDGE_AGAIN, 0, *facts, request.frame)
                request.attempts += 1

    def _tell(self, op: int, *fields: int | bytes) -> None:
        channel = self._supervisor.channel
        # A daemon that has not said HELLO yet will find all of it in the answer.
        if channel is not None and channel.greeted:
            channel.send(op, 0, *fields)

    def _exited(self, slot: Slot, status: int) -> None:
        self._tell(wire.EXITED, slot.number, slot.pid, status)
        slot.exited(status)

    def _drained(self, slot: Slot) -> None:
        self._tell(wire.DRAINED, slot.number)

    def _daemon_lost(self) -> None:
        """The host notices nothing but a pause: the bridge stays, and so do its requests."""
        self._table.daemon_gone()

    def _daemon_exited(self, status: int) -> None:
        if self._supervisor.channel is not None:
            self._supervisor.channel.drain()
        if self._finished or self._ending:
            return
        if not self._stop_reason:
            self._supervisor.exited(status)
        elif not self._supervisor.start_last(self._requests.daemon):
            self._log.error("the daemon has ended while stopping, killing what is left", status=status)
            self._kill_all()
            self._end(1)

    # Signals and the end

    def _catch_signals(self) -> None:
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # The handlers are never reached by way of Python: what counts is the byte in the pipe.
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _nothing)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        self._wakeup = read_end
        self._loop.watch(read_end, IN, self._signalled)

    def _signalled(self, _events: int) -> None:
        try:
            numbers = set(os.read(self._wakeup, 4096))
        except BlockingIOError:
            return
        # Bytes may be lost when the pipe is full; a child's end must not be.
        self._children.reap()
        for number in numbers - {signal.SIGCHLD}:
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop("SIGTERM" if number == signal.SIGTERM else "SIGINT")

    def _stop(self, reason: str) -> None:
        if self._ending:
            return
        if self._stop_reason:
            self._log.error("asked to stop again, killing what is left", reason=reason)
            self._kill_all()
            self._end(1)
            return
        self._stop_reason = reason
        self._log.info("stopping", reason=reason)
        notify("STOPPING=1")
        self._supervisor.restart = False
        if self._supervisor.channel is not None:
            self._tell(wire.STOP, reason.encode())
        elif not self._supervisor.start_last(self._requests.daemon):
            if self._table.slots:
                self._log.error("the daemon is not there to stop the containers")
            self._end(int(bool(self._table.slots)))
            return
        self._loop.call_later(STOP_S, self._too_late)

    def _too_late(self) -> None:
        if not self._ending:
            self._log.error("the daemon did not stop in time, killing what is left")
            self._kill_all()
            self._end(1)

    def _finish(self, status: int) -> None:
        self._finished = True
        self._supervisor.restart = False
        # The last answers may still be on their way to the host.
        self._await_last_frames(status, self._loop.now() + _LAST_FRAMES_S)

    def _await_last_frames(self, status: int, until: float) -> None:
        if self._bridge.flushed or self._loop.now() >= until:
            self._end(status)
        else:
            self._loop.call_later(_LOOK_S, lambda: self._await_last_frames(status, until))

    def _kill_all(self) -> None:
        kill_left_over(self._table.slots, only_external=False)
        self._supervisor.kill()

    def _end(self, status: int) -> None:
        """End what is ours, give it a moment to be reaped, exit."""
        if self._ending:
            return
        self._ending = True
        self._status = status
        self._supervisor.restart = False
        self._children.kill_runs()
        kill_left_over(self._table.slots, only_external=True)
        now = self._loop.now()
        self._await_end(now + _END_S, now + _END_S + _KILLED_S)

    def _await_end(self, patience: float, until: float) -> None:
        self._children.reap()
        now = self._loop.now()
        left = self._supervisor.alive or any(
            slot.external and slot.pid and slot.status is None for slot in self._table.slots.values()
        )
        if left and now < until:
            if now >= patience:
                self._supervisor.kill()
            self._loop.call_later(_LOOK_S, lambda: self._await_end(patience, until))
            return
        self._bridge.shut("the monitor ends")
        self._log.info("the monitor ends", status=self._status)
        self._loop.stop()

    def _failed(self, error: BaseException) -> None:
        where = error.__traceback__
        place = ""
        while where is not None:
            place = f"{os.path.basename(where.tb_frame.f_code.co_filename)}:{where.tb_lineno}"
            where = where.tb_next
        self._log.error("internal error, ignoring", error=f"{type(error).__name__}: {error}", at=place)


def _nothing(_number: int, _frame: object) -> None:
    """Be a handler: only signals that have one reach the wakeup descriptor."""


def prepare_process() -> None:
    """Make the process what every child may rely on: umask, directory, no stray descriptors."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.close(int(name))
            except OSError:  # the one with which the directory was listed
                continue
    # Numbers 0 to 2 must be taken, or the next file that is opened becomes stdin.
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    # A mask that blocks SIGCHLD or SIGTERM would make us deaf.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    os.chdir("/")
    _sys.return_large_blocks()
    _sys.become_subreaper()


def main() -> int:
    """Run the monitor for the daemon whose command line is our arguments, or that is to come."""
    argv = [os.fsencode(argument) for argument in sys.argv[1:]]
    listen = argv[1] if argv[:1] == [b"--listen"] and len(argv) == 2 else b""
    if argv[:1] == [b"--"]:
        del argv[0]
    if not argv:
        os.write(2, b"usage: uvmd-monitor [--] DAEMON [ARGUMENT]... | --listen PATH\n")
        return 2
    prepare_process()
    try:
        monitor = Monitor([] if listen else argv, listen)
    except OSError as error:
        os.write(2, f"uvmd-monitor: {os.fsdecode(listen)}: {error.strerror}\n".encode())
        return os.EX_UNAVAILABLE
    return monitor.run()
