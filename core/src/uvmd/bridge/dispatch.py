"""Which request runs where and when (spec bridge.md 4.2, 4.3).

Four lanes: inline on the poll thread (Negotiate, Start, Wait: none of them blocks), the
control pool (what must not wait behind slow work), the work pool, and the pool of what may
wait for hardware, whose requests are answered in time even so. A thread that has read a
request may serve it in the pool's place (``host.pools.own``). In a VM with
confidential hardware one request runs at a time, in order of arrival, over all
connections; waits are exempt once their turn has come.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from uvmd.bridge.call import LATER, Call
from uvmd.bridge.deadlines import Deadlines
from uvmd.bridge.identifiers import NO_VERSION, PROTOCOL_VERSION, Message
from uvmd.bridge.plain import check_base, read_negotiate, read_wait
from uvmd.errors import Failed, UnknownMessage, UnsupportedProtocol
from uvmd.observe.steps import step

if TYPE_CHECKING:
    from uvmd.bridge.facade import HostFacade

log = logging.getLogger(__name__)

#: Requests that run or wait for a thread; a host has a handful outstanding.
MAX_OPEN = 10_000
#: Bodies that they hold. The monitor stops reading before this is reached.
MAX_OPEN_BYTES = 128 << 20
#: Waits are bounded by processes on any sane host; each costs a few hundred bytes.
MAX_WAITS = 100_000
#: After this a request that holds up all others in sequential mode is logged, once.
SLOW_S = 5.0

INLINE, CONTROL, WORK, FIND = "inline", "control", "work", "find"

_CAPABILITIES = {
    "SupportedSchemaVersions": [{"Major": 2, "Minor": 1}],
    "RuntimeOsType": "Linux",
    "GuestDefinedCapabilities": {
        "NamespaceAddRequestSupported": True,
        "SignalProcessSupported": True,
        "DumpStacksSupported": True,
        "DeleteContainerStateSupported": True,
    },
}


class Operation(NamedTuple):
    """A message, as far as dispatch is concerned."""

    name: str
    lane: str
    run: Callable[[HostFacade, Call], object]
    is_wait: bool = False


def _with_models(name: str) -> Callable[[HostFacade, Call], object]:
    def run(host: HostFacade, call: Call) -> object:
        with step("load"):  # the first request after a start may come before the models
            from uvmd.bridge import operations

        result: object = getattr(operations, name)(host, call)
        return result

    return run


def _start(host: HostFacade, call: Call) -> object:
    check_base(call.value(), strict=call.strict)
    host.start_container(call.common.container_id)
    return None


def _wait(host: HostFacade, call: Call) -> object:
    container_id, process_id, timeout_ms = read_wait(call.value(), strict=call.strict)
    call.forget_body()
    host.wait(container_id, process_id, timeout_ms, call.exited)
    return LATER


def _negotiate(host: HostFacade, call: Call) -> object:
    minimum, maximum, events = read_negotiate(call.value(), strict=call.strict)
    if maximum < PROTOCOL_VERSION or minimum > PROTOCOL_VERSION:
        raise UnsupportedProtocol(
            f"versions {minimum} to {maximum} are offered, {PROTOCOL_VERSION} is spoken here"
        )
    # Before the answer is queued: a request that comes right behind it must find it.
    call.connection.version = PROTOCOL_VERSION
    call.connection.events = events
    call.state = call.connection.state
    return {"Version": PROTOCOL_VERSION, "Capabilities": _CAPABILITIES}


def _unknown(host: HostFacade, call: Call) -> object:
    raise UnknownMessage(
        f"no handler for message 0x{call.type:08x} in protocol version {call.connection.version}"
    )


UNKNOWN = Operation("unknown", INLINE, _unknown)

OPERATIONS: dict[int, dict[int, Operation]] = {
    NO_VERSION: {Message.NEGOTIATE: Operation("negotiate", INLINE, _negotiate)},
    PROTOCOL_VERSION: {
        Message.CREATE: Operation("create", WORK, _with_models("create")),
        Message.START: Operation("start", INLINE, _start),
        Message.SHUTDOWN_GRACEFUL: Operation("shutdown_graceful", CONTROL, _with_models("shutdown")),
        Message.SHUTDOWN_FORCED: Operation("shutdown_forced", CONTROL, _with_models("shutdown")),
        Message.EXECUTE: Operation("execute", WORK, _with_models("execute")),
        Message.WAIT: Operation("wait", INLINE, _wait, is_wait=True),
        Message.SIGNAL: Operation("signal", CONTROL, _with_models("signal")),
        Message.RESIZE: Operation("resize", CONTROL, _with_models("resize")),
        Message.GET_PROPERTIES: Operation("get_properties", CONTROL, _with_models("get_properties")),
        Message.MODIFY: Operation("modify", FIND, _with_models("modify")),
        Message.DUMP_STACKS: Operation("dump_stacks", CONTROL, _with_models("dump_stacks")),
        Message.DELETE: Operation("delete", WORK, _with_models("delete")),
    },
}


class Dispatcher:
    """Runs calls. ``run(call)`` serves one to its answer; ``refuse(call, error)`` answers it unread.

    ``late(call)`` answers one whose thread has not come back in time.
    """

    def __init__(
        self,
        host: HostFacade,
        run: Callable[[Call], None],
        refuse: Callable[[Call, Exception], None],
        late: Callable[[Call], None],
        *,
        v4: bool = True,
    ) -> None:
        self._host = host
        self._run = run
        self._refuse = refuse
        self._v4 = v4
        self._deadlines = Deadlines(host.timers, late)
        self._lock = Lock()
        self._open = 0
        self._open_bytes = 0
        self._waits = 0
        # Sequential mode; both belong to the poll thread.
        self._queue: deque[Call] = deque()
        self._current: Call | None = None
        self._stopped = False

    def submit(self, call: Call) -> None:
        """Take a call that has just arrived. Poll thread only."""
        if self._stopped:
            return
        if self._host.sequential:
            if self._admit(call):
                self._queue.append(call)
                self._advance()
            return
        call.operation = self._operation_of(call)
        if call.operation.lane is INLINE:
            self._run_inline(call)
        elif self._admit(call):
            self._run_on_pool(call)

    def finished(self, call: Call) -> None:
        """Note that the answer of ``call`` is queued. From any thread."""
        operation = call.operation
        if call.bounded is not None:
            self._deadlines.forget(call)
        if call.counted or (operation is not None and operation.is_wait):
            with self._lock:
                self._uncount(call)
                if operation is not None and operation.is_wait:
                    self._waits -= 1
        # Whoever has stopped us may wait for the last one.
        if self._current is call or self._stopped:
            self._host.timers.post(self._next)

    def stop(self) -> None:
        """Take no more calls. From any thread."""
        self._stopped = True

    def leave(self) -> None:
        """Take no more calls, and none of those whose turn has not come. Poll thread only."""
        self._stopped = True
        with self._lock:
            while self._queue:
                self._uncount(self._queue.popleft())

    @property
    def open(self) -> int:
        """How many requests run or wait for a thread; pending waits are not among them."""
        return self._open

    @property
    def waits(self) -> int:
        """How many waits are pending."""
        return self._waits

    def _operation_of(self, call: Call) -> Operation:
        if not self._v4:
            return UNKNOWN
        return OPERATIONS[call.connection.version].get(call.type, UNKNOWN)

    def _admit(self, call: Call) -> bool:
        with self._lock:
            admitted = self._open < MAX_OPEN and self._open_bytes + call.size <= MAX_OPEN_BYTES
            if admitted:
                self._open += 1
                self._open_bytes += call.size
                call.counted = True
        if not admitted:
            self._refuse(call, Failed(f"busy: {self._open} requests are waiting already"))
        return admitted

    def _uncount(self, call: Call) -> None:
        if call.counted:
            call.counted = False
            self._open -= 1
            self._open_bytes -= call.size

    def _run_inline(self, call: Call) -> None:
        operation = call.operation
        if operation is not None and operation.is_wait:
            with self._lock:
                self._uncount(call)
                self._waits += 1
            if self._waits > MAX_WAITS:
                self._refuse(call, Failed(f"busy: {MAX_WAITS} waits are pending already"))
                return
        self._run(call)

    def _run_on_pool(self, call: Call) -> None:
        pools = self._host.pools
        lane = CONTROL if call.operation is None else call.operation.lane
        if lane is FIND:
            self._deadlines.watch(call)
        if pools.own.keep(self._run, call):
            return
        pool = pools.find if lane is FIND else pools.work if lane is WORK else pools.control
        try:
            pool.submit(self._run, call)
        except RuntimeError as error:
            failure = Failed("busy: no thread can be started")
            failure.__cause__ = error
            self._refuse(call, failure)

    def _advance(self) -> None:
        while self._queue and self._current is None and not self._stopped:
            call = self._queue.popleft()
            call.operation = self._operation_of(call)
            if call.operation.lane is INLINE:
                self._run_inline(call)
                continue
            self._current = call
            call.timer = self._host.timers.call_later(SLOW_S, partial(_warn_of_slow, call))
            self._run_on_pool(call)

    def _next(self) -> None:
        if self._current is not None and self._current.timer is not None:
            self._current.timer.cancel()
        self._current = None
        self._advance()


def _warn_of_slow(call: Call) -> None:
    log.warning(
        "a request holds up all others",
        extra={
            "operation": call.operation.name if call.operation else "",
            "message_id": call.id,
            "activity": call.activity_id,
            "container": call.common.container_id,
            "after_s": SLOW_S,
        },
    )
