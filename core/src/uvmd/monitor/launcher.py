"""Slots, and what is started in them: connect the streams, run a runtime, spawn a process."""

from __future__ import annotations

import _socket
import errno
import os

from uvmd.monitor import dial, terminal, wire
from uvmd.monitor.children import Children, Run
from uvmd.monitor.slots import Slot
from uvmd.monitor.spawn import Spawner, clean_environment, exact_environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uvmd.monitor.channel import Channel
    from uvmd.monitor.tools import Tools

_NS = 1_000_000_000
_MAX_DEADLINE_S = 1e8


class Answer:
    """Where the answer to one request goes."""

    __slots__ = ("_channel", "_tag")

    def __init__(self, channel: Channel, tag: int) -> None:
        self._channel = channel
        self._tag = tag

    @property
    def wanted(self) -> bool:
        """False once the daemon that asked is gone."""
        return self._channel.open

    def give(self, *fields: int | bytes, fds: Sequence[int] = ()) -> None:
        """Answer. The descriptors stay the caller's."""
        self._channel.send(wire.REPLY, self._tag, *fields, fds=fds)

    def fail(self, error: OSError) -> None:
        """Answer with an error."""
        text = error.strerror or str(error)
        self._channel.send(wire.ERROR, self._tag, error.errno or errno.EIO, text.encode("utf-8", "replace"))


class Launcher:
    """Owns the slots and starts everything but the daemon."""

    def __init__(
        self, tools: Tools, spawner: Spawner, children: Children, on_drained: Callable[[Slot], None]
    ) -> None:
        self._tools = tools
        self._spawner = spawner
        self._children = children
        self._on_drained = on_drained
        self._dials: set[dial.Dial] = set()
        self.slots: dict[int, Slot] = {}
        self.base: Callable[[int], dial.Target] = dial.parse_base("vsock:2")

    def slot(self, number: int) -> Slot:
        """Return an open slot.

        Raises:
            OSError: ESRCH if there is none of that number.
        """
        slot = self.slots.get(number)
        if slot is None:
            raise OSError(errno.ESRCH, f"no slot {number}")
        return slot

    def open_slot(
        self, answer: Answer, _fds: list[int], number: int, is_terminal: int, console: bytes, label: bytes
    ) -> None:
        """Make a slot with three pipes, or one that waits for a pty master."""
        slot = self._new_slot(number, label, is_terminal=bool(is_terminal))
        try:
            if is_terminal:
                slot.open_console(console)
            else:
                slot.open_pipes()
        except OSError:
            self.release(number)
            raise
        answer.give()

    def connect(
        self,
        answer: Answer,
        fds: list[int],
        number: int,
        stdin: int,
        stdout: int,
        stderr: int,
        redial: int,
        has_tee: int,
        discard: int,
        deadline_ns: int,
    ) -> None:
        """Dial a slot's streams, all or none, then let the relays run."""
        slot = self.slot(number)
        if not slot.connectable:
            code = errno.ESRCH if slot.drained else errno.EISCONN
            raise OSError(code, "the streams cannot be connected any more")
        tee = fds.pop(0) if has_tee and fds else -1
        targets = self._targets((stdin, stdout, stderr), bool(discard))
        again = (None, *targets[1:]) if redial else (None, None, None)

        def done(made: list[_socket.socket | None]) -> None:
            slot.connecting = None
            if not answer.wanted:
                # Nobody would know of it, and no port accepts a second time.
                failed(OSError(errno.EPIPE, "the daemon is gone"), made)
                return
            slot.connect(made, tee, again)
            answer.give()

        def failed(error: OSError, made: Sequence[_socket.socket | None] = ()) -> None:
            slot.connecting = None
            for sock in made:
                if sock is not None:
                    sock.close()
            if tee >= 0:
                os.close(tee)
            slot.check_drained()
            answer.fail(error)

        if not any(targets):
            done([None, None, None])
            return
        slot.connecting = dial.DialAll(
            self._tools.loop, targets, done, failed, deadline_s=_seconds(deadline_ns)
        )

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
    ) -> None:
        """Run a program to completion."""
        slot = self.slots.get(number)
        null = self._spawner.devnull
        temporary: list[int] = []
        output = -1
        try:
            if number:
                stdio = slot.stdio_for_child(null) if slot is not None else (null, null, null)
            else:
                source = null
                if stdin:
                    source = _file_of(stdin)
                    temporary.append(source)
                output, sink = os.pipe2(os.O_CLOEXEC)
                temporary.append(sink)
                os.set_blocking(output, False)
                stdio = (source, sink, sink)
            pid = self._spawner.spawn(argv, clean_environment(env), stdio, fds, cwd=cwd or b"/")
        except OSError:
            if output >= 0:
                os.close(output)
            raise
        finally:
            for fd in temporary:
                os.close(fd)
            if slot is not None:
                slot.close_child_ends()

        def done(run: Run, status: int, failure: OSError | None, adopted: int) -> None:
            written = run.finish()
            if failure is not None:
                answer.fail(failure)
            else:
                answer.give(status, int(run.timed_out), written, adopted)

        if pid_file and slot is None:
            slot = self._new_slot(number, b"")
        run = Run(
            self._tools.loop, pid, output, limit_bytes, slot, pid_file, _seconds(deadline_ns), done
        )  # fmt: skip
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
    ) -> None:
        """Start an external process, whose streams are the connections themselves, or a pty."""
        slot = self._new_slot(number, label, is_terminal=bool(is_terminal), external=True)

        def done(made: list[_socket.socket | None]) -> None:
            slot.connecting = None
            try:
                if not answer.wanted:
                    raise OSError(errno.EPIPE, "the daemon is gone")
                if is_terminal:
                    pid = self._start_in_pty(slot, argv, env, cwd, cgroups, made)
                else:
                    pid = self._start_on_sockets(argv, env, cwd, cgroups, made)
            except OSError as error:
                for sock in made:
                    if sock is not None:
                        sock.close()
                failed(error)
                return
            self._children.add_process(slot, pid)
            answer.give(pid)

        def failed(error: OSError) -> None:
            slot.connecting = None
            self.release(number)
            answer.fail(error)

        targets = self._targets((stdin, stdout, stderr), bool(discard))
        if not any(targets):
            done([None, None, None])
            return
        slot.connecting = dial.DialAll(
            self._tools.loop, targets, done, failed, deadline_s=_seconds(deadline_ns)
        )

    def dial_port(self, answer: Answer, _fds: list[int], port: int, deadline_ns: int) -> None:
        """Connect to a port of the host for the daemon itself."""
        (target,) = self._targets((port,), False)
        if target is None:
            raise OSError(errno.EINVAL, f"port {port}")

        def done(sock: _socket.socket) -> None:
            self._dials.discard(attempt)
            sock.setblocking(True)
            answer.give(fds=[sock.fileno()])
            sock.close()

        def failed(error: OSError) -> None:
            self._dials.discard(attempt)
            answer.fail(error)

        attempt = dial.Dial(self._tools.loop, target, done, failed, deadline_s=_seconds(deadline_ns))
        self._dials.add(attempt)

    def release(self, number: int) -> None:
        """Close everything of a slot and forget it."""
        slot = self.slots.pop(number, None)
        if slot is not None:
            self._children.forget(slot)
            slot.close()

    def daemon_gone(self) -> None:
        """Give up what only the daemon that is gone could have used."""
        for attempt in self._dials:
            attempt.cancel()
        self._dials.clear()

    def _new_slot(
        self, number: int, label: bytes, *, is_terminal: bool = False, external: bool = False
    ) -> Slot:
        if number <= 0 or number in self.slots:
            raise OSError(errno.EEXIST, f"slot {number} cannot be opened")
        slot = Slot(
            self._tools, number, label, self._on_drained, is_terminal=is_terminal, external=external
        )  # fmt: skip
        self.slots[number] = slot
        return slot

    def _targets(self, ports: Sequence[int], discard: bool) -> list[dial.Target | None]:
        for port in ports:
            if port > 0xFFFFFFFF:
                raise OSError(errno.EINVAL, f"port {port}")
        return [None if discard or port < 0 else self.base(port) for port in ports]

    def _start_on_sockets(
        self,
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
        pid = self._spawner.spawn(
            argv, exact_environment(env), (fds[0], fds[1], fds[2]), cwd=cwd or b"/", cgroups=cgroups
        )
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
        null = self._spawner.devnull
        try:
            pid = self._spawner.spawn(
                argv,
                exact_environment(env),
                (null, null, null),
                cwd=cwd or b"/",
                terminal=slave,
                cgroups=cgroups,
            )
        except OSError:
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


def _seconds(ns: int) -> float:
    return min(max(0.0, ns / _NS), _MAX_DEADLINE_S)
