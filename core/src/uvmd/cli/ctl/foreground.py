"""A process in the foreground: our terminal, our signals and our pipes are its own."""

from __future__ import annotations

import os
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from types import FrameType

import click

from uvmd.cli.ctl.settings import note
from uvmd.client.errors import ClientError
from uvmd.client.process import Process
from uvmd.client.streams import Stdio

#: Passed on to the process. Not the ones by which the kernel reports our own faults.
FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
#: That many Ctrl-C kill a process which ignores them.
IMPATIENT = 3
_STDIN, _STDOUT, _STDERR = 0, 1, 2
_KILLED_BY_SIGPIPE = 128 + signal.SIGPIPE


def require_terminal(wanted: bool) -> None:
    """Refuse ``-t`` where there is no terminal to show it in.

    Raises:
        click.UsageError: stdin is none.
    """
    if wanted and not os.isatty(_STDIN):
        raise click.UsageError("-t needs a terminal, and stdin is none; leave -t out for pipes and files")


def window_size() -> tuple[int, int]:
    """Return rows and columns of our terminal; 24 x 80 when it does not say."""
    try:
        columns, rows = os.get_terminal_size(_STDIN)
    except OSError:
        return 24, 80
    return (rows or 24), (columns or 80)


def run_in_foreground(
    process: Process, *, interactive: bool, terminal: bool, kill: Callable[[], None]
) -> int:
    """Attach, wait, and return the exit status as a shell would see it.

    Args:
        interactive: our stdin goes to the process.
        terminal: the process has a terminal.
        kill: ends the process for good; called when our output broke or patience did.
    """
    relay = _Relay(process, kill)
    with ExitStack() as undo:
        undo.callback(relay.close)
        undo.enter_context(_forwarded_signals(relay, terminal))
        if terminal and interactive:
            undo.enter_context(_raw_mode())
        if terminal:
            relay.resize()
        if process.streams.incomplete:
            note("the daemon did not connect all streams; its policy may deny them")
        process.attach(
            Stdio(_STDIN if interactive else None, _STDOUT, None if terminal else _STDERR),
            on_broken=relay.output_broke,
        )
        status = process.wait()
    if relay.broken:
        # What a shell reports of a local program whose reader left.
        return _KILLED_BY_SIGPIPE
    return (status or 0) & 0xFF


class _Relay:
    """Sends signals and sizes from a thread of its own.

    The main thread is inside the wait, reading the connection; a request from a signal
    handler would wait for it for ever.
    """

    def __init__(self, process: Process, kill: Callable[[], None]) -> None:
        self._process = process
        self._kill = kill
        # Its put is reentrant: safe in a signal handler that interrupted another put.
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._interrupts = 0
        self.broken = False
        threading.Thread(target=self._run, daemon=True, name="uvmctl-relay").start()

    def on_signal(self, number: int, _: FrameType | None) -> None:
        """Signal handler."""
        if number == signal.SIGWINCH:
            self.resize()
            return
        self._interrupts += number == signal.SIGINT
        if self._interrupts >= IMPATIENT:
            self._work.put(self._kill)
        else:
            self._work.put(lambda: self._process.signal(number))

    def resize(self) -> None:
        """Give the process's terminal our size."""
        rows, columns = window_size()
        self._work.put(lambda: self._process.resize(rows, columns))

    def output_broke(self) -> None:
        """Our reader left: the process would not notice by itself, its pipe is in the VM."""
        self.broken = True
        self._work.put(self._kill)

    def close(self) -> None:
        """End the thread when it has sent what is queued."""
        self._work.put(None)

    def _run(self) -> None:
        while (job := self._work.get()) is not None:
            try:
                job()
            except ClientError:
                pass  # The process is gone already, or the wait will report the loss.


@contextmanager
def _forwarded_signals(relay: _Relay, terminal: bool) -> Iterator[None]:
    numbers = (*FORWARDED, signal.SIGWINCH) if terminal else FORWARDED
    before = {number: signal.signal(number, relay.on_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _raw_mode() -> Iterator[None]:
    before = termios.tcgetattr(_STDIN)
    sys.stdout.flush()
    tty.setraw(_STDIN, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(_STDIN, termios.TCSADRAIN, before)
