"""One request from its frame to its answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from uvmd import codec
from uvmd.bridge.plain import NOTHING, Common, is_guid, read_common
from uvmd.errors import InvalidMessage, UvmdError
from uvmd.observe.steps import step

if TYPE_CHECKING:
    from uvmd.api.wire import WireModel
    from uvmd.bridge.dispatch import Operation
    from uvmd.bridge.facade import Timer
    from uvmd.host.bounded import Bounded
    from uvmd.host.doing import Doing
    from uvmd.observe.steps import Trace

M = TypeVar("M", bound="WireModel")

#: What an operation returns that is answered later, or (power-off) never.
LATER = object()
SILENCE = object()


_VERSION_MASK = 0xFF
_EVENTS = 0x100


class Connection:
    """One connection of the bridge. The host negotiates anew on each.

    ``state`` is what was negotiated, as one number: the monitor keeps it for the next daemon.
    """

    __slots__ = ("events", "generation", "version")

    def __init__(self, generation: int, state: int = 0) -> None:
        self.generation = generation
        self.version = state & _VERSION_MASK
        #: Whether uvmd's own events were asked for.
        self.events = bool(state & _EVENTS)

    @property
    def state(self) -> int:
        """What was negotiated."""
        return self.version | (_EVENTS if self.events else 0)


class Call:
    """A request in progress. A wait may be one for days, so it keeps nothing it does not need."""

    __slots__ = (
        "type",
        "id",
        "connection",
        "size",
        "started",
        "common",
        "strict",
        "operation",
        "bounded",
        "counted",
        "doing",
        "timer",
        "answer",
        "request",
        "attempt",
        "slot",
        "state",
        "trace",
        "_body",
        "_value",
        "_unreadable",
    )

    def __init__(
        self,
        type_: int,
        id_: int,
        connection: Connection,
        body: bytes,
        answer: Callable[[Call, object], None],
        request: int = 0,
        attempt: int = 0,
    ) -> None:
        #: The monitor's number for it, and how many daemons had it before this one.
        self.request = request
        self.attempt = attempt
        #: What goes with the answer: whose end it tells, and the connection's new state.
        self.slot = 0
        self.state = -1
        self.type = type_
        self.id = id_
        self.connection = connection
        self.size = len(body)
        self.started = time.monotonic()
        self.common: Common = NOTHING
        self.strict = False
        self.operation: Operation | None = None
        self.counted = False
        #: The time that it may take, where its answer may not wait for the thread that serves it.
        self.bounded: Bounded | None = None
        #: What the thread that serves it works for, once it does.
        self.doing: Doing | None = None
        self.timer: Timer | None = None
        self.answer = answer
        #: Where its steps are noted, while somebody listens; not of a wait, which may last for days.
        self.trace: Trace | None = None
        self._body = body
        self._value: Any = None
        self._unreadable: InvalidMessage | None = None

    def read(self, *, strict: bool) -> None:
        """Parse the body and the common fields. A failure is kept for whoever decodes."""
        self.strict = strict
        try:
            self._value = codec.parse(self._body, what="body", strict=strict)
        except InvalidMessage as error:
            self._unreadable = error
        else:
            self.common = read_common(self._value)
        self._body = b""

    def value(self) -> Any:
        """Return the parsed body.

        Raises:
            InvalidMessage: it is no JSON.
        """
        if self._unreadable is not None:
            raise self._unreadable
        return self._value

    def decode(self, model: type[M]) -> M:
        """Return the body as a message.

        Raises:
            InvalidMessage: it cannot be decoded.
        """
        with step("decode", "body"):
            return codec.decode_value(self.value(), model, what="body", strict=self.strict)

    def decode_nested(self, text: str, model: type[M], name: str) -> M:
        """Return the JSON inside the string field ``name`` as a message.

        Raises:
            InvalidMessage: it cannot be decoded.
        """
        with step("decode", name):
            return codec.decode(text, model, what=f"body.{name}", strict=self.strict)

    def forget_body(self) -> None:
        """Let go of what was sent; the answer does not need it."""
        self._body = b""
        self._value = self._unreadable = None

    def exited(self, outcome: int | UvmdError) -> None:
        """Answer a wait."""
        self.slot = getattr(outcome, "slot", 0)
        self.answer(self, outcome if isinstance(outcome, UvmdError) else {"ExitCode": outcome & 0xFFFF_FFFF})

    @property
    def activity_id(self) -> str:
        """The activity id if a host can read it, else nothing."""
        return self.common.activity_id if is_guid(self.common.activity_id) else ""
