"""The monitor's unit: one set of streams plus at most one process.

A slot outlives the daemon that opened it; it goes when a daemon releases it, that is,
when the exit status has been acknowledged.
"""

from __future__ import annotations

import _socket
import errno
import os

from uvmd.monitor import terminal, wire
from uvmd.monitor.input import Input
from uvmd.monitor.loop import EDGE, IN, OUT, Timer
from uvmd.monitor.output import Output
from uvmd.monitor.tools import Tools

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uvmd.monitor.dial import DialAll, Target

_NAMES = ("stdin", "stdout", "stderr")


class Slot:
    """Streams and process of one container init, exec, external process or service."""

    def __init__(
        self,
        tools: Tools,
        number: int,
        label: bytes,
        on_drained: Callable[[Slot], None],
        *,
        is_terminal: bool = False,
        external: bool = False,
        service: bool = False,
        request: int = 0,
    ) -> None:
        self._tools = tools
        self._on_drained = on_drained
        self.number = number
        self.label = label
        self.is_terminal = is_terminal
        self.external = external
        self.service = service
        #: The request of the host that made it.
        self.request = request
        #: Whether the host was, or is being, told of the end.
        self.told = False
        #: The last of SIGTERM and SIGKILL that was sent for the host.
        self.signalled = 0
        self.pid = 0
        self.status: int | None = None
        self.drained = False
        self.connecting: DialAll | None = None
        self._console: terminal.ConsoleSocket | None = None
        self._master = -1
        self._child_ends: tuple[int, ...] = ()
        self._our_ends: tuple[int, ...] = ()
        self._connections: list[_socket.socket | None] | None = None
        self._tees: tuple[int, int] = (-1, -1)
        self._redial: Sequence[Target | None] = (None, None, None)
        self._input: Input | None = None
        self._outputs: list[Output] = []
        self._exited_at: float | None = None
        self._grace: Timer | None = None

    def open_pipes(self) -> None:
        """Make the three pipes; ours are non-blocking."""
        ends: list[int] = []
        try:
            for _ in range(3):
                ends += os.pipe2(os.O_CLOEXEC)
        except OSError:
            for fd in ends:
                os.close(fd)
            raise
        self._child_ends = (ends[0], ends[3], ends[5])
        self._our_ends = (ends[1], ends[2], ends[4])
        for fd in self._our_ends:
            os.set_blocking(fd, False)

    def unread_errors(self, limit_bytes: int) -> bytes:
        """Return what was written to standard error, as long as no relay takes it to the host."""
        if not self._our_ends or self._connections is not None:
            return b""
        try:
            return os.read(self._our_ends[2], limit_bytes)
        except BlockingIOError:
            return b""

    def open_console(self, path: bytes) -> None:
        """Listen for the master that a runtime will send."""
        self._console = terminal.ConsoleSocket(path)

    def set_master(self, master: int) -> None:
        """Take over a pty master."""
        self._master = master
        self._start_relays()

    def take_master(self) -> None:
        """Receive the master from the runtime, which has finished.

        Raises:
            OSError: it did not send one.
        """
        if self._console is not None:
            console, self._console = self._console, None
            try:
                self.set_master(console.take_master())
            finally:
                console.close()

    def stdio_for_child(self, devnull: int) -> tuple[int, int, int]:
        """Return what a runtime gets as its descriptors 0 to 2."""
        if self._child_ends:
            return self._child_ends[0], self._child_ends[1], self._child_ends[2]
        return devnull, devnull, devnull

    def close_child_ends(self) -> None:
        """Close our copies of what the child now has; only then its end can be seen."""
        ends, self._child_ends = self._child_ends, ()
        for fd in ends:
            os.close(fd)

    @property
    def connectable(self) -> bool:
        """True while streams can still be connected."""
        return self._connections is None and self.connecting is None and not self.drained

    def take_tee(self, tee: int) -> None:
        """Have the outputs write a file too; they share it, each with its own descriptor.

        Raises:
            OSError: no descriptor for the second; the first stays the caller's.
        """
        self._tees = (tee, -1 if self.is_terminal else os.dup(tee))

    def drop_tee(self) -> None:
        """Close the file that no output has taken yet."""
        tees, self._tees = self._tees, (-1, -1)
        for tee in tees:
            if tee >= 0:
                os.close(tee)

    def connect(
        self, connections: list[_socket.socket | None], redial: Sequence[Target | None] = (None, None, None)
    ) -> None:
        """Take the host's connections and relay, at once or when the master arrives."""
        self._connections = connections
        self._redial = redial
        self._start_relays()

    def exited(self, status: int) -> None:
        """The process was reaped: see that what it wrote gets out, then report drained."""
        self.status = status
        self._exited_at = self._tools.loop.now()
        if self._input is not None:
            self._input.stop()
        for output in self._outputs:
            output.process_gone(self._exited_at)
        self.check_drained()
        if not self.drained:
            self._check_grace()

    def check_drained(self) -> None:
        """Report drained if the process is gone and no wanted output is left."""
        if self.status is None or self.drained or self.connecting is not None:
            return
        if any(output.wanted and not output.done for output in self._outputs):
            return
        self.drained = True
        self._close_streams()
        self._on_drained(self)

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size; nothing to do once it is closed.

        Raises:
            OSError: ENOTTY if the slot has no terminal.
        """
        if not self.is_terminal:
            raise OSError(errno.ENOTTY, "not a terminal")
        if self._master >= 0:
            terminal.resize(self._master, rows, columns)

    def stop_redial(self) -> None:
        """From now on a vanished host ends the output streams."""
        self._redial = (None, None, None)
        for output in self._outputs:
            output.stop_redial()

    def state(self) -> bytes:
        """Return the slot's line in the answer to HELLO."""
        return wire.encode_slot(
            self.number,
            self.pid,
            self.status,
            self.drained,
            self.is_terminal,
            self.label,
            self.service,
            self.request,
            self.told,
            self.signalled,
        )

    def close(self) -> None:
        """Close everything."""
        self.drained = True  # whatever ends below reports nothing any more
        if self.connecting is not None:
            self.connecting.cancel()
            self.connecting = None
        self._close_streams()

    def _start_relays(self) -> None:
        if self._connections is None or self._input is not None or self.drained:
            return
        if self.is_terminal:
            if self._master >= 0:
                self._start_terminal(self._connections)
        elif self._our_ends:
            self._start_pipes(self._connections)
        if self._exited_at is not None:
            self.exited(self.status or 0)

    def _start_pipes(self, connections: list[_socket.socket | None]) -> None:
        ends, self._our_ends = self._our_ends, ()
        self._input = Input(self._tools, connections[0], ends[0], terminal=False)
        tees, self._tees = self._tees, (-1, -1)
        for index in (1, 2):
            self._outputs.append(
                Output(
                    self._tools,
                    f"{self.number}.{_NAMES[index]}",
                    ends[index],
                    connections[index],
                    self.check_drained,
                    tee=tees[index - 1],
                    redial=self._redial[index] if connections[index] is not None else None,
                )
            )
        self._input.start()
        for output in self._outputs:
            output.start()

    def _start_terminal(self, connections: list[_socket.socket | None]) -> None:
        self._input = Input(self._tools, connections[0], self._master, terminal=True)
        (tee, _), self._tees = self._tees, (-1, -1)
        output = Output(
            self._tools,
            f"{self.number}.terminal",
            self._master,
            connections[1],
            self.check_drained,
            terminal=True,
            tee=tee,
            redial=self._redial[1] if connections[1] is not None else None,
        )
        self._outputs.append(output)
        self._tools.loop.watch(self._master, IN | OUT | EDGE, self._on_master)
        self._input.start()
        output.start()

    def _on_master(self, events: int) -> None:
        for output in self._outputs:
            output.advance(events)
        if self._input is not None:
            self._input.advance(events)

    def _check_grace(self) -> None:
        if self.drained:
            return
        delay_s = min((output.check_grace() for output in self._outputs if not output.done), default=None)
        if delay_s is not None and not self.drained:
            self._grace = self._tools.loop.call_later(delay_s, self._check_grace)

    def _close_streams(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        if self._input is not None:
            self._input.close()
        for output in self._outputs:
            output.close()
        self._outputs = []
        for connection in self._connections or ():
            if connection is not None:
                connection.close()
        if self._console is not None:
            self._console.close()
            self._console = None
        if self._master >= 0:
            self._tools.loop.unwatch(self._master)
            os.close(self._master)
            self._master = -1
        self.drop_tee()
        self.close_child_ends()
        ends, self._our_ends = self._our_ends, ()
        for fd in ends:
            os.close(fd)
