"""All slots by number: open, connect, release; and the connections made for the daemon."""

from __future__ import annotations

import _socket
import errno

from uvmd.monitor import dial
from uvmd.monitor.answer import Answer, seconds
from uvmd.monitor.slots import Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uvmd.monitor.children import Children
    from uvmd.monitor.tools import Tools


class SlotTable:
    """Owns the slots; dials what they are connected to."""

    def __init__(self, tools: Tools, children: Children, on_drained: Callable[[Slot], None]) -> None:
        self._tools = tools
        self._children = children
        self._on_drained = on_drained
        self._dials: set[dial.Dial] = set()
        self.slots: dict[int, Slot] = {}
        #: The highest number that there ever was: a daemon's records may still name it.
        self.highest = 0
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
        self,
        answer: Answer,
        _fds: list[int],
        number: int,
        is_terminal: int,
        console: bytes,
        label: bytes,
        request: int,
    ) -> None:
        """Make a slot with three pipes, or one that waits for a pty master."""
        slot = self.new_slot(number, label, is_terminal=bool(is_terminal), request=request)
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
        _request: int,
    ) -> None:
        """Dial a slot's streams, all or none, then let the relays run."""
        slot = self.slot(number)
        if not slot.connectable:
            code = errno.ESRCH if slot.drained else errno.EISCONN
            raise OSError(code, "the streams cannot be connected any more")
        targets = self.targets((stdin, stdout, stderr), bool(discard))
        if has_tee and fds:
            slot.take_tee(fds[0])  # before anything is dialled: it may find no descriptor
            del fds[0]
        again = (None, *targets[1:]) if redial else (None, None, None)

        def done(made: list[_socket.socket | None]) -> None:
            slot.connecting = None
            if not answer.wanted:
                # Nobody would know of it, and no port accepts a second time.
                failed(OSError(errno.EPIPE, "the daemon is gone"), made)
                return
            try:
                slot.connect(made, again)
            except OSError as error:  # no memory to watch them; from here they go with the slot
                answer.fail(error)
                return
            answer.give()

        def failed(error: OSError, made: Sequence[_socket.socket | None] = ()) -> None:
            slot.connecting = None
            for sock in made:
                if sock is not None:
                    sock.close()
            slot.drop_tee()
            slot.check_drained()
            answer.fail(error)

        if not any(targets):
            done([None, None, None])
            return
        slot.connecting = dial.DialAll(
            self._tools.loop, targets, done, failed, deadline_s=seconds(deadline_ns)
        )

    def dial_port(self, answer: Answer, _fds: list[int], port: int, deadline_ns: int) -> None:
        """Connect to a port of the host for the daemon itself."""
        (target,) = self.targets((port,), False)
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

        attempt = dial.Dial(self._tools.loop, target, done, failed, deadline_s=seconds(deadline_ns))
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

    def new_slot(
        self,
        number: int,
        label: bytes,
        *,
        is_terminal: bool = False,
        external: bool = False,
        service: bool = False,
        request: int = 0,
    ) -> Slot:
        """Make a slot without streams.

        Raises:
            OSError: EEXIST if the number is taken, or none.
        """
        if number <= 0 or number in self.slots:
            raise OSError(errno.EEXIST, f"slot {number} cannot be opened")
        slot = Slot(
            self._tools,
            number,
            label,
            self._on_drained,
            is_terminal=is_terminal,
            external=external,
            service=service,
            request=request,
        )
        self.slots[number] = slot
        self.highest = max(self.highest, number)
        return slot

    def targets(self, ports: Sequence[int], discard: bool) -> list[dial.Target | None]:
        """Return what to dial for ports (negative: none).

        Raises:
            OSError: EINVAL for a number that is no port.
        """
        for port in ports:
            if port > 0xFFFFFFFF:
                raise OSError(errno.EINVAL, f"port {port}")
        return [None if discard or port < 0 else self.base(port) for port in ports]
