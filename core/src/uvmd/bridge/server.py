"""The bridge: frames in, answers and notifications out, whatever a host sends.

Implements the monitor link's events that concern the bridge. Nothing here imports
pydantic; ``warm`` loads the models, on a thread of the composition's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from uvmd.bridge import answers
from uvmd.bridge.call import LATER, SILENCE, Call, Connection
from uvmd.bridge.dispatch import INLINE, Dispatcher
from uvmd.bridge.events import event_frame
from uvmd.bridge.frames import HEADER, HEADER_BYTES
from uvmd.bridge.hresult import HResult, of_error
from uvmd.bridge.identifiers import NO_VERSION, Message, response_type
from uvmd.bridge.limits import TooLarge
from uvmd.bridge.notifications import exit_notification
from uvmd.bridge.outbox import Monitor, Outbox, Parcel
from uvmd.bridge.records import message_of
from uvmd.errors import DeadlineExceeded, Failed, UvmdError
from uvmd.host.doing import Doing, working_for
from uvmd.observe.spans import Spans
from uvmd.observe.stacks import stack_of
from uvmd.observe.steps import Trace, follow, step

if TYPE_CHECKING:
    from uvmd.bridge.facade import HostFacade
    from uvmd.host.requests import ContainerExit

log = logging.getLogger(__name__)


#: A request that ends every daemon must not do so for ever.
MAX_ATTEMPTS = 10


def warm() -> None:
    """Import the models and build them, so that the first request need not."""
    from uvmd.bridge import messages

    import_module("uvmd.bridge.operations")
    models = {*messages.REQUESTS.values(), *messages.NESTED_REQUESTS.values()}
    for model in models:
        model.model_rebuild()
    log.debug("the models are loaded", extra={"models": len(models)})


class Bridge:
    """Serves one host, over as many connections as it takes. ``monitor`` is the link to it."""

    def __init__(
        self,
        host: HostFacade,
        monitor: Monitor,
        *,
        v4: bool = True,
        spans: Spans | None = None,
    ) -> None:
        self._host = host
        self._outbox = Outbox(monitor)
        self._dispatcher = Dispatcher(host, self._serve, self._refuse, self._late, v4=v4)
        self._spans = spans or Spans()
        self._connection: Connection | None = None
        self._call_answered = self._answer  # bound once: a pending wait holds it
        host.on_container_exit(self._container_exited)

    # Events of the link, on the poll thread.

    def bridge_up(self, generation: int, state: int = 0) -> None:
        """A host accepted, and nothing is negotiated; or an earlier daemon's connection is there."""
        self._connection = connection = Connection(generation, state)
        kept = self._outbox.kept
        self._outbox.connected(generation, negotiated=connection.version != NO_VERSION)
        log.info(
            "the bridge is connected",
            extra={"generation": generation, "kept": kept, "version": connection.version},
        )

    def bridge_frame(self, generation: int, request: int, frame: bytes) -> None:
        """A request: a whole frame whose size was checked."""
        connection = self._connection
        if connection is None or connection.generation != generation:
            log.warning("a frame came outside of a connection, ignoring", extra={"generation": generation})
            return
        type_, _, id_ = HEADER.unpack_from(frame)
        body = frame[HEADER_BYTES:]
        self._dispatcher.submit(Call(type_, id_, connection, body, self._call_answered, request))

    def bridge_again(self, generation: int, request: int, attempt: int, state: int, frame: bytes) -> None:
        """A request that came when another daemon was there, or none; nobody has answered it."""
        connection = self._connection
        if connection is None or connection.generation != generation:
            connection = Connection(generation, state)
        type_, _, id_ = HEADER.unpack_from(frame)
        body = frame[HEADER_BYTES:]
        call = Call(type_, id_, connection, body, self._call_answered, request, attempt)
        log.debug("a request is taken up", extra={"number": request, "attempt": attempt})
        self._dispatcher.submit(call)

    def bridge_unsent(self, request: int, slot: int, frame: bytes) -> None:
        """A frame of ours, or of an earlier daemon's, did not reach the host."""
        self._outbox.returned(Parcel(frame, request, slot))

    def bridge_down(self, generation: int, reason: str) -> None:
        """The connection is gone. What runs goes on; what it answers is kept."""
        if self._connection is not None and self._connection.generation == generation:
            self._connection = None
            self._outbox.disconnected()
        log.info(
            "the bridge is disconnected",
            extra={"generation": generation, "reason": reason, "waits": self._dispatcher.waits},
        )

    def leave(self) -> None:
        """Take no more requests: the monitor keeps them for the daemon that comes next."""
        self._dispatcher.leave()

    @property
    def busy(self) -> bool:
        """Whether requests are being served; waits do not count."""
        return self._dispatcher.open > 0

    @property
    def wants_events(self) -> bool:
        """Whether the host of this moment asked for events; lets the teller save the work."""
        connection = self._connection
        return connection is not None and connection.events

    def tell(self, kind: str, container_id: str, facts: Mapping[str, Any]) -> None:
        """Send an event to a host that asked for them. From any thread; never blocks.

        A VM under a policy tells what happened and no figures: those are GetProperties' to
        give, if the policy lets it.
        """
        connection = self._connection
        if connection is not None and connection.events:
            frame = event_frame(kind, container_id, {} if self._host.strict else facts)
            self._outbox.offer(frame, connection.generation)

    # Serving, on the poll thread or a pool's.

    def _serve(self, call: Call) -> None:
        if not self._spans.heard:
            self._carry_out(call)
            return
        began_ns = int(call.started * 1e9)
        trace = call.trace = Trace(began_ns)
        trace.note("queue", began_ns)
        follow(trace)
        try:
            self._carry_out(call)
        finally:
            follow(None)

    def _carry_out(self, call: Call) -> None:
        operation, bounded = call.operation, call.bounded
        assert operation is not None, "dispatch gives every call its operation"
        if bounded is not None and bounded.given_up:
            return  # it has waited too long for a thread
        doing = Doing(call.request, again=bool(call.attempt))
        spent = call.attempt >= MAX_ATTEMPTS and not operation.is_wait
        try:
            if not spent:  # what reads it may be what ends them
                with step("parse"):
                    call.read(strict=self._host.strict)
            doing = self._doing(call)
            if bounded is not None:
                call.doing = doing
                if bounded.given_up:
                    return  # answered, and settled, while we waited for what was under way
            if spent:
                doing.recalled = bool(doing.notes)  # nobody will look at them any more
                raise Failed(f"uvmd was ended {call.attempt} times while it served this request")
            with working_for(doing):
                outcome = operation.run(self._host, call)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin's SystemExit must not leave the host without an answer
            outcome = error
        if outcome is SILENCE:
            log.warning("the VM is being powered off at the host's request; no more requests are taken")
            self._dispatcher.stop()
            self._finish(call, HResult.S_OK, "")
        elif outcome is LATER:
            call.trace = None
        elif bounded is not None and not bounded.settle():
            if isinstance(outcome, BaseException):
                facts = {"request": bounded.what, "error": str(outcome)}
                log.warning("a request failed after it had been answered, ignoring", extra=facts)
        else:
            self._settle(doing, outcome)
            self._answer(call, outcome)

    def _late(self, call: Call) -> None:
        """Answer a request whose thread does not come back. Poll thread."""
        what = call.bounded.what if call.bounded is not None else _name(call)
        self._refuse(call, DeadlineExceeded(f"{what}: not done in time; what it has locked stays locked"))

    def _refuse(self, call: Call, error: Exception) -> None:
        """Answer a request that nobody serves, or whose thread has not come back.

        An earlier daemon may have begun it, and its thread not have come to know that.
        """
        self._settle(call.doing or Doing(call.request, again=bool(call.attempt)), error)
        self._answer(call, error)

    def _settle(self, doing: Doing, outcome: object) -> None:
        if doing.again:
            self._host.settle_request(doing, failed=isinstance(outcome, BaseException))

    def _doing(self, call: Call) -> Doing:
        """Say for what the thread works, once nothing of an earlier daemon's is under way."""
        operation = call.operation
        if not call.attempt or operation is None or operation.lane is INLINE:
            return Doing(call.request, bounded=call.bounded)
        earlier = self._host.await_request(call.request)
        return Doing(call.request, again=True, done=earlier.done, notes=earlier.notes, bounded=call.bounded)

    def _answer(self, call: Call, outcome: object) -> None:
        """Answer ``call`` with the fields of its success, or an error."""
        with step("answer"):
            code, text = self._send_answer(call, outcome)
        self._finish(call, code, text)

    def _send_answer(self, call: Call, outcome: object) -> tuple[HResult, str]:
        call.forget_body()
        code, text = HResult.S_OK, ""
        if isinstance(outcome, BaseException):
            code, text, frame = self._failure(call, outcome)
        else:
            fields = outcome if isinstance(outcome, dict) else None
            try:
                frame = answers.success(call.type, call.id, call.activity_id, fields)
            except TooLarge as error:
                code, text, frame = self._failure(call, Failed(str(error)))
            except (TypeError, ValueError) as error:
                code, text, frame = self._failure(call, error)
        self._outbox.put(Parcel(frame, call.request, call.slot, call.state), call.connection.generation)
        if call.type == Message.NEGOTIATE and code is HResult.S_OK:
            self._outbox.release(call.connection.generation)
        return code, text

    def _failure(self, call: Call, error: BaseException) -> tuple[HResult, str, bytes]:
        code = of_error(error)
        text = message_of(error, code)
        if not isinstance(error, UvmdError):
            log.error(
                "a request failed in a way that nobody planned",
                extra={"operation": _name(call), "message_id": call.id, "stack": stack_of(error)},
            )
        return code, text, answers.failure(call.type, call.id, call.activity_id, code, text, error)

    def _finish(self, call: Call, code: HResult, text: str) -> None:
        duration_s = time.monotonic() - call.started
        if log.isEnabledFor(logging.INFO):
            facts = {
                "operation": _name(call),
                "container": call.common.container_id,
                "result": code.name,
                "duration_ms": round(duration_s * 1000, 3),
            }
            if text:
                facts["error"] = text
            log.info("request", extra=facts)
        if self._spans.wanted:
            self._spans.end(
                name=_name(call),
                message_type=call.type,
                message_id=call.id,
                response_type=response_type(call.type),
                activity_id=call.common.activity_id,
                container_id=call.common.container_id,
                carrier=call.common.trace,
                duration_s=duration_s,
                error=text,
                trace=call.trace,
            )
        self._dispatcher.finished(call)

    def _container_exited(self, exit: ContainerExit) -> None:
        self._outbox.put(Parcel(exit_notification(exit), slot=exit.slot))


def _name(call: Call) -> str:
    return call.operation.name if call.operation else "refused"
