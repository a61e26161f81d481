"""Who was started, who was adopted, who has died: the only caller of waitpid(2).

A runtime's container becomes our child when the runtime exits, and may be dead by then.
Statuses of unknown children are therefore kept while any runtime call that will name a
child is under way; when it ends, its pid file says which of them was meant.
"""

from __future__ import annotations

import errno
import os

from uvmd.monitor.loop import EDGE, IN, Loop, Timer
from uvmd.monitor.slots import Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal

_PID_FILE_BYTES = 32
_MAX_PID = 4_194_304

#: Statuses that are kept for a program that has not yet said whom it meant; it may hang.
MAX_STRAYS = 4096


class Run:
    """One program that runs to completion: its output, its deadline, what is to be adopted."""

    __slots__ = (
        "_left_bytes", "_loop", "_output", "_parts", "deadline", "done", "pid", "pid_file", "request", "slot",
        "timed_out",
    )  # fmt: skip

    def __init__(
        self,
        loop: Loop,
        pid: int,
        output: int,
        limit_bytes: int,
        slot: Slot | None,
        pid_file: bytes,
        deadline_s: float,
        done: Callable[[Run, int, OSError | None, int], None],
        request: int = 0,
    ) -> None:
        self.request = request
        self._loop = loop
        self.pid = pid
        self.slot = slot
        self.pid_file = pid_file
        self.done = done
        self.timed_out = False
        self.deadline: Timer = loop.call_later(deadline_s, self._out_of_time)
        self._output = output
        self._left_bytes = limit_bytes
        self._parts: list[bytes] = []
        if output >= 0:
            loop.watch(output, IN | EDGE, self._read)

    def kill(self) -> None:
        """Kill the whole group; its leader is not reaped yet, so the number is still its."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # it left its group
            os.kill(self.pid, signal.SIGKILL)

    def finish(self) -> bytes:
        """Return what it has written; descendants that hold the pipe are not waited for."""
        self.deadline.cancel()
        if self._output >= 0:
            self._read(0)
            self._loop.unwatch(self._output)
            os.close(self._output)
            self._output = -1
        return b"".join(self._parts)

    def _out_of_time(self) -> None:
        self.timed_out = True
        self.kill()

    def _read(self, _events: int) -> None:
        while True:
            try:
                count = os.readv(self._output, [self._loop.room])
            except BlockingIOError:
                return
            if not count:
                self._loop.unwatch(self._output)
                return
            if self._left_bytes > 0:
                self._parts.append(bytes(self._loop.room[: min(count, self._left_bytes)]))
                self._left_bytes -= count


class Children:
    """Every child of the monitor but those that nobody asked for."""

    def __init__(
        self,
        on_failure: Callable[[BaseException], None],
        on_exited: Callable[[Slot, int], None],
        on_daemon_exited: Callable[[int], None],
    ) -> None:
        self._on_failure = on_failure
        self._on_exited = on_exited
        self._on_daemon_exited = on_daemon_exited
        self._runs: dict[int, Run] = {}
        self._slots: dict[int, Slot] = {}
        #: Reaped and nobody's so far, the oldest first: status, and how many there were before.
        self._strays: dict[int, tuple[int, int]] = {}
        self._seen = 0
        #: How many there were when each program began that may yet leave us one, the oldest first.
        self._adopting: dict[Run, int] = {}
        self._idle: list[tuple[int, Callable[[], None]]] = []
        self.daemon_pid = 0

    def add_run(self, run: Run) -> None:
        """Wait for a program that was just started."""
        self._runs[run.pid] = run
        if run.pid_file:
            self._adopting[run] = self._seen

    def when_idle(self, request: int, call: Callable[[], None]) -> None:
        """Call once nothing runs to completion any more for a request of the host."""
        self._idle.append((request, call))
        self._tell_idle()

    def add_process(self, slot: Slot, pid: int) -> None:
        """Wait for a slot's process."""
        slot.pid = pid
        self._slots[pid] = slot

    def forget(self, slot: Slot) -> None:
        """The slot was released: its process, if it lives, is now an orphan like any other."""
        if slot.status is None and slot.pid:
            self._slots.pop(slot.pid, None)

    def reap(self) -> None:
        """Take every status there is and tell whom it concerns."""
        statuses: list[tuple[int, int]] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            statuses.append((pid, os.waitstatus_to_exitcode(status)))
        finished: list[tuple[Run, int]] = []
        daemon_status = None
        for pid, status in statuses:
            if pid in self._runs:
                finished.append((self._runs.pop(pid), status))
            elif pid in self._slots:
                self._tell_exited(self._slots.pop(pid), status)
            elif pid == self.daemon_pid:
                self.daemon_pid, daemon_status = 0, status
            elif self._adopting:
                self._keep_stray(pid, status)
        # After the whole batch: what a runtime has left us may have died in the same one.
        for run, status in finished:
            self._finish(run, status)
        if finished and self._idle:
            self._tell_idle()
        if finished:
            self._forget_strays()
        if daemon_status is not None:
            self._on_daemon_exited(daemon_status)

    def _keep_stray(self, pid: int, status: int) -> None:
        # Anew at the end, where the youngest are, if the number was somebody's before.
        self._strays.pop(pid, None)
        self._strays[pid] = status, self._seen
        self._seen += 1
        if len(self._strays) > MAX_STRAYS:
            del self._strays[next(iter(self._strays))]

    def _forget_strays(self) -> None:
        """Keep those that a program may name which was there when they died."""
        since = next(iter(self._adopting.values()), self._seen)
        while self._strays:
            pid, (_, number) = next(iter(self._strays.items()))
            if number >= since:
                return
            del self._strays[pid]

    def kill_runs(self) -> None:
        """Kill whatever runs to completion."""
        for run in self._runs.values():
            run.kill()

    def _tell_idle(self) -> None:
        busy = {run.request for run in self._runs.values()}
        ready = [call for request, call in self._idle if request not in busy]
        self._idle = [(request, call) for request, call in self._idle if request in busy]
        for call in ready:
            call()

    def _finish(self, run: Run, status: int) -> None:
        pid = 0
        failure = None
        self._adopting.pop(run, None)
        if status == 0 and run.slot is not None:
            try:
                run.slot.take_master()
                if run.pid_file:
                    pid = self._adopt(run.slot, run.pid_file)
            except OSError as error:
                failure = error
            except Exception as error:
                failure = OSError(errno.EPROTO, str(error))
        run.done(run, status, failure, pid)
        if pid and run.slot is not None and pid in self._strays:
            self._slots.pop(pid, None)
            self._tell_exited(run.slot, self._strays.pop(pid)[0])

    def _tell_exited(self, slot: Slot, status: int) -> None:
        # One slot's trouble must not lose the statuses behind it in the batch.
        try:
            self._on_exited(slot, status)
        except Exception as error:
            self._on_failure(error)

    def _adopt(self, slot: Slot, pid_file: bytes) -> int:
        with open(pid_file, "rb", buffering=0) as file:
            text = file.read(_PID_FILE_BYTES).strip()
        if not text.isdigit() or not 1 < int(text) <= _MAX_PID:
            raise ValueError("the pid file does not hold a pid")
        pid = int(text)
        if pid in self._slots or pid in self._runs or pid == self.daemon_pid or slot.pid:
            raise ValueError(f"process {pid} is already known")
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            # It is here, so a stray of that number was another one.
            self._strays.pop(pid, None)
        except ChildProcessError as error:
            if pid not in self._strays:
                # Never adopt what is not ours: it would be signalled, and its end not seen.
                raise ValueError(f"process {pid} of the pid file is not our child") from error
        self.add_process(slot, pid)
        return pid
