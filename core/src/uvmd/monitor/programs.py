"""Starting programs for the daemon: one that runs to completion, an external process, a service."""

from __future__ import annotations

import _socket
import errno
import os

from uvmd.monitor import dial, terminal
from uvmd.monitor.answer import Answer, seconds
from uvmd.monitor.children import Children, Run
from uvmd.monitor.slots import Slot
from uvmd.monitor.spawn import Spawner, clean_environment, exact_environment, parse_limits
from uvmd.monitor.table import SlotTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from uvmd.monitor.loop import Loop


class Programs:
    """Starts everything but the daemon."""

    def __init__(self, loop: Loop, spawner: Spawner, children: Children, table: SlotTable) -> None:
        self._loop = loop
        self._spawner = spawner
        self._children = children
        self._table = table

    def run(
        self,
        answer: Answer,
        fds: list[int],
        argv: list[bytes],
        env: list[bytes],
        cwd: bytes,
        stdin: bytes,
        deadline_ns: int,
        limit_bytes: int,
        number: int,
        pid_file: bytes,
        request: int,
    ) -> None:
        """Run a program to completion, in a slot's streams or with its output captured."""
        slot = self._table.slots.get(number)
        made_slot = bool(pid_file) and slot is None
        if made_slot:
            # Nobody wanted its streams, so it was not opened; its process still needs one.
            slot = self._table.new_slot(number, b"", request=request)
        try:
            if number:
                pid, output = self._start_in_slot(slot, argv, env, cwd, fds), -1
            else:
                pid, output = self._start_captured(stdin, argv, env, cwd, fds)
        except BaseException:
            if made_slot:
                self._table.release(number)
            raise

        def done(run: Run, status: int, failure: OSError | None, adopted: int) -> None:
            written = run.finish()
            if status and slot is not None:
                # What a runtime says before it has opened its log.
                written = slot.unread_errors(limit_bytes)
            if made_slot and not adopted:
                self._table.release(number)
            if failure is not None:
                answer.fail(failure)
            else:
                answer.give(status, int(run.timed_out), written, adopted)

        deadline_s = seconds(deadline_ns)
        run = Run(self._loop, pid, output, limit_bytes, slot, pid_file, deadline_s, done, request)
        self._children.add_run(run)

    def spawn(
        self,
        answer: Answer,
        _fds: list[int],
        number: int,
        argv: list[bytes],
        env: list[bytes],
        cwd: bytes,
        is_terminal: int,
        stdin: int,
        stdout: int,
        stderr: int,
        discard: int,
        cgroups: list[bytes],
        deadline_ns: int,
        label: bytes,
        request: int,
    ) -> None:
        """Start an external process, whose streams are the connections themselves, or a pty."""
        targets = self._table.targets((stdin, stdout, stderr), bool(discard))
        slot = self._table.new_slot(
            number, label, is_terminal=bool(is_terminal), external=True, request=request
        )
        start = self._start_in_pty if is_terminal else self._start_on_sockets

        def done(made: list[_socket.socket | None]) -> None:
            slot.connecting = None
            try:
                if not answer.wanted:
                    raise OSError(errno.EPIPE, "the daemon is gone")
                pid = start(slot, argv, env, cwd or b"/", cgroups, made)
            except (OSError, ValueError) as error:
                for sock in made:
                    if sock is not None:
                        sock.close()
                failed(error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error)))
                return
            self._children.add_process(slot, pid)
            answer.give(pid)

        def failed(error: OSError) -> None:
            slot.connecting = None
            self._table.release(number)
            answer.fail(error)

        if not any(targets):
            done([None, None, None])
            return
        deadline_s = seconds(deadline_ns)
        slot.connecting = dial.DialAll(self._loop, targets, done, failed, deadline_s=deadline_s)

    def service(
        self,
        answer: Answer,
        fds: list[int],
        number: int,
        argv: list[bytes],
        env: list[bytes],
        limits: list[bytes],
        label: bytes,
    ) -> None:
        """Start a program that stays: no streams, its descriptors from 3 on, limits of its own.

        It ends with the monitor, or when a daemon kills it; a daemon's end is nothing to it.
        """
        bounds = parse_limits(limits)
        slot = self._table.new_slot(number, label, external=True, service=True)
        stdio = (self._spawner.devnull,) * 3
        try:
            pid = self._spawner.spawn(argv, clean_environment(env), stdio, fds, limits=bounds)
        except BaseException:
            self._table.release(number)
            raise
        self._children.add_process(slot, pid)
        answer.give(pid)

    def _start_in_slot(
        self, slot: Slot | None, argv: list[bytes], env: list[bytes], cwd: bytes, fds: list[int]
    ) -> int:
        null = self._spawner.devnull
        stdio = slot.stdio_for_child(null) if slot is not None else (null, null, null)
        try:
            return self._spawner.spawn(argv, clean_environment(env), stdio, fds, cwd=cwd or b"/")
        finally:
            if slot is not None:
                slot.close_child_ends()

    def _start_captured(
        self, stdin: bytes, argv: list[bytes], env: list[bytes], cwd: bytes, fds: list[int]
    ) -> tuple[int, int]:
        """Return the pid, and where its output is to be read."""
        output, sink = os.pipe2(os.O_CLOEXEC)
        source = self._spawner.devnull
        try:
            os.set_blocking(output, False)
            if stdin:
                source = _file_of(stdin)
            stdio = (source, sink, sink)
            return self._spawner.spawn(argv, clean_environment(env), stdio, fds, cwd=cwd or b"/"), output
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(sink)
            if source != self._spawner.devnull:
                os.close(source)

    def _start_on_sockets(
        self,
        _slot: Slot,
        argv: list[bytes],
        env: list[bytes],
        cwd: bytes,
        cgroups: list[bytes],
        made: list[_socket.socket | None],
    ) -> int:
        fds = []
        for sock in made:
            if sock is not None:
                sock.setblocking(True)
            fds.append(self._spawner.devnull if sock is None else sock.fileno())
        stdio = (fds[0], fds[1], fds[2])
        pid = self._spawner.spawn(argv, exact_environment(env), stdio, cwd=cwd, cgroups=cgroups)
        for sock in made:
            if sock is not None:
                sock.close()
        return pid

    def _start_in_pty(
        self,
        slot: Slot,
        argv: list[bytes],
        env: list[bytes],
        cwd: bytes,
        cgroups: list[bytes],
        made: list[_socket.socket | None],
    ) -> int:
        master, slave = terminal.open_pty()
        stdio = (self._spawner.devnull,) * 3
        try:
            pid = self._spawner.spawn(
                argv, exact_environment(env), stdio, cwd=cwd, terminal=slave, cgroups=cgroups
            )
        except BaseException:
            os.close(master)
            raise
        slot.set_master(master)
        slot.connect(made)
        return pid


def _file_of(content: bytes) -> int:
    """Return a descriptor from which a child reads these bytes: no pipe to be fed, no deadlock."""
    memfd = os.memfd_create("uvmd-stdin", os.MFD_CLOEXEC)
    view = memoryview(content)
    while view:
        view = view[os.write(memfd, view) :]
    os.lseek(memfd, 0, os.SEEK_SET)
    return memfd
