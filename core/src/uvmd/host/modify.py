"""ModifySettings: find, plan, ask, apply, for every resource type in the same order.

Decode, id pattern, target, latch, verb, find (unlocked), lock, latch again, plan,
questions, claims, apply, commit. Claims may be entered while the questions are out
(``readiness``); a conflict is told after a yes all the same. When a step after the plan
fails, the undo stack runs, then the mount table and the policy's metadata are put back,
and the response carries the original error. An undo that fails marks the VM.

What a type does is its handler's business, in core as in a plugin; nothing here knows a
device. What this room owns is the order, and that no plan escapes the policy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol

from uvmd.api.names import MODIFY_RESOURCE
from uvmd.api.resources import (
    Answers,
    Containers,
    Context,
    Found,
    Handler,
    Keep,
    Plan,
    Question,
    Record,
    Registered,
    Target,
    Verb,
    View,
)
from uvmd.api.transaction import Undo, transaction
from uvmd.errors import (
    ContainerNotFound,
    DeadlineExceeded,
    Failed,
    InvalidMessage,
    Refused,
    UvmdError,
)
from uvmd.host.bounded import Bounded
from uvmd.host.doing import doing
from uvmd.host.locks import REQUEST_LIMIT_S, ChangeLock
from uvmd.host.plans import check_plan, cleaned, verb_of
from uvmd.host.readiness import Line, Readiness, take_away
from uvmd.host.records import Records
from uvmd.host.requests import NULL_ID, check_strict_id
from uvmd.host.table import MountTable
from uvmd.linux.files import close_all
from uvmd.observe.steps import step
from uvmd.policy.gate import Gate

log = logging.getLogger(__name__)

#: Time between a handler's deadline and the request's, so that the handler's own error,
#: which names what it waited for, is the answer.
GRACE_S = 10.0
#: Has the VM for itself also where changes are shared: strictness itself changes.
ALWAYS_EXCLUSIVE = frozenset({"SecurityPolicy"})


Watch = Callable[[Collection[str]], Callable[[Undo], None]]


def _ignore(undo: Undo) -> None:
    """Nobody else follows the change."""


def _close(kept: list[int]) -> None:
    close_all(kept)
    kept.clear()


class HostView(Protocol):
    """What this room needs of the host."""

    @property
    def containers(self) -> Containers: ...

    def require_created(self, container_id: str) -> object:
        """Raise ContainerNotFound, or InvalidState while it is being created."""


class _Request(NamedTuple):
    """A request that was decoded, and is known to be one that its type serves."""

    entry: Registered
    handler: Handler
    settings: Any
    container_id: str
    request_type: str
    verb: Verb
    identity: str

    @property
    def what(self) -> str:
        """For error texts and the table of locks."""
        return f"{self.request_type} {self.entry.type.name} {self.identity:.256}".rstrip()

    @property
    def whole(self) -> str:
        """For the line on record, of which a later daemon takes the identity."""
        return f"{self.request_type} {self.entry.type.name} {self.identity}".rstrip()


class Modifier:
    """See the module. Called from several threads, each with one request.

    What watches a request's time is ``doing().bounded``.

    Args:
        types: the resource types by name, core's and the plugins'.
        watch: called with the keys of a request before it changes anything; what it returns
            is called after ``apply``, in its transaction.
    """

    def __init__(
        self,
        gate: Gate,
        lock: ChangeLock,
        table: MountTable,
        types: Mapping[str, Registered],
        host: HostView,
        records: Records,
        watch: Watch = lambda keys: _ignore,
    ) -> None:
        self._gate = gate
        self._lock = lock
        self._table = table
        self._types = types
        self._host = host
        self._records = records
        self._watch = watch
        self._interrupted: dict[int, tuple[str, tuple[str, ...]]] = {}

    def resume(self, open_requests: Collection[int] = ()) -> None:
        """Take up table and records of an earlier daemon; what it was doing marks the VM.

        What it was doing for one of ``open_requests`` is asked for again, and marks the VM
        only if it then fails. Call after the gate's own ``resume``, before the first request.
        """
        try:
            unfinished = self._records.load(self._table, open_requests)
        except (OSError, ValueError, KeyError, TypeError) as error:
            cause = f"the records of devices cannot be read: {error or type(error).__name__}"
            if self._gate.strict:
                self._gate.close_door(cause)
            self._gate.mark(cause)
            return
        for what, (request, *places) in unfinished.items():
            if request in open_requests:
                self._interrupted[request] = what, tuple(places)
            else:
                self._gate.mark(f"the daemon ended in the middle of {what:.300}")

    @property
    def under_way(self) -> list[str]:
        """What requests that are asked for again are about, paths by themselves."""
        return [what.split(" ", 2)[-1].removeprefix("path:") for what, _ in self._interrupted.values()]

    def settle(self, request: int, *, failed: bool) -> None:
        """A request that is asked for again has its outcome."""
        what, _ = self._interrupted.pop(request, ("", ()))
        self._records.settle(request)
        if what and failed:
            self._gate.mark(f"the daemon ended in the middle of {what:.300}, which then failed")

    def modify(
        self,
        container_id: str,
        request_type: str,
        resource_type: str,
        settings: Any,
        has_settings: bool,
    ) -> None:
        """Carry out one ModifySettings request.

        Raises:
            Refused: unknown type, wrong target or verb, denied, or a conflict.
            InvalidMessage: the settings are missing or not what the type takes.
            ContainerNotFound, InvalidState: the container it is addressed to.
            Inconsistent: strict, and an earlier undo failed.
            DeadlineExceeded: not done within the limit of a request.
            Failed: it was tried; everything is as before.
        """
        number = doing().number
        if doing().again and self._records.was_done(number):
            return
        bounded = doing().bounded or Bounded(REQUEST_LIMIT_S)

        def accept() -> _Request:
            return self._accept(container_id, request_type, resource_type, settings, has_settings)

        request = accept()
        bounded.what = request.what
        with self._telling(request.what):
            while not self._attempt(request, bounded):
                # A policy came into force meanwhile: what was accepted before is judged anew.
                request = accept()

    # Before anything is looked for

    def _accept(
        self, container_id: str, request_type: str, resource_type: str, settings: Any, has_settings: bool
    ) -> _Request:
        entry = self._types.get(resource_type)
        if entry is None:
            raise Refused(f"invalid ResourceType '{resource_type:.64}'")
        declared = entry.type
        handler = self._handler(entry)
        decoded = self._decode(handler, settings, has_settings)
        check_strict_id(container_id, strict=self._gate.strict)
        self._check_target(declared.name, declared.target, container_id)
        self._check_latch(entry)
        request_type = request_type or Verb.ADD.value
        verb = verb_of(entry, request_type)
        with self._telling(f"{request_type:.64} {declared.name}"):
            identity = cleaned(handler.identity(decoded))
        return _Request(entry, handler, decoded, container_id, request_type, verb, identity)

    @staticmethod
    def _handler(entry: Registered) -> Handler:
        try:
            return entry.handler()
        except UvmdError:
            raise
        except Exception as error:
            kind = type(error).__name__
            raise Failed(f"{entry.type.name}: its handler cannot be loaded: {kind}") from error

    def _decode(self, handler: Handler, settings: Any, has_settings: bool) -> Any:
        model = getattr(handler, "settings", None)
        if model is None:
            return None
        if not has_settings or settings is None:
            raise InvalidMessage("body.Request.Settings: is missing")
        # Late: the decoder's first model brings pydantic.
        from uvmd.codec import decode_value

        return decode_value(settings, model, what="body.Request.Settings", strict=self._gate.strict)

    def _check_target(self, name: str, target: Target, container_id: str) -> None:
        if target is Target.VM and container_id == NULL_ID:
            return
        if container_id == NULL_ID:
            raise ContainerNotFound(f"{name} is addressed to a container, and the VM is none")
        self._host.require_created(container_id)
        if target is Target.VM:
            raise Refused(f'the ResourceType "{name}" is not supported for containers')

    def _check_latch(self, entry: Registered) -> None:
        if entry.type.latched:
            self._gate.require_consistent()

    # What may take long

    def _attempt(self, request: _Request, bounded: Bounded) -> bool:
        """Find, lock, and go on; False when a policy came into force between the two."""
        handler, strict = request.handler, self._gate.strict
        kept: list[int] = []
        try:
            deadline = bounded.deadline - GRACE_S
            context = Context(deadline, strict, kept.append)
            with step("find", request.entry.type.name):
                found = handler.find(request.settings, request.verb, context)
            name, keys = request.entry.type.name, self._keys(request, found)
            with self._lock.hold(
                keys,
                True if name in ALWAYS_EXCLUSIVE else lambda: self._gate.strict,
                deadline=deadline,
                who=request.what,
            ):
                try:
                    if self._gate.strict is not strict:
                        return False
                    self._check_latch(request.entry)
                    self._plan_and_apply(request, found, strict, keys, bounded.settle, kept.append)
                    return True
                finally:
                    # Not after the lock: whoever unmounts next would find it in use.
                    _close(kept)
        finally:
            _close(kept)

    def _keys(self, request: _Request, found: Found) -> set[str]:
        keys = {*map(cleaned, request.handler.keys(request.settings, found))}
        if request.entry.type.target is Target.CONTAINER:
            return keys | {f"container:{request.container_id}"}
        return keys | {request.identity}

    def _plan_and_apply(
        self,
        request: _Request,
        found: Found,
        strict: bool,
        keys: set[str],
        settle: Callable[[], bool],
        keep: Keep,
    ) -> None:
        key = self._record_key(request)
        record = self._records.get(*key)
        view = View(strict, request.container_id, self._table, self._host.containers)
        method = getattr(request.handler, request.verb.value.lower())
        with step("plan"):
            plan = method(request.settings, found, view, record)
        check_plan(request.entry, request.verb, plan)
        if plan is Plan.nothing():
            settle()
            return

        again = doing().number in self._interrupted
        line = None
        if request.entry.plugin:
            asking = strict and bool(plan.questions) and not again
            line = Line(key, request.whole, doing().number, asking)
        ready = Readiness(plan, self._table, self._records, line, keep, strict=strict)
        with self._gate.metadata_transaction() if plan.questions else nullcontext():
            try:
                if not again:
                    ready.look()
                answers = self._ask(request, plan.questions, None if again else ready.get)
                if again:
                    # What an earlier daemon has mounted for it goes first, and only after a yes.
                    for place in self._interrupted.get(doing().number, ("", ()))[1]:
                        take_away(place)
                    ready.look()
                    ready.get()
                self._apply(request, plan, answers, record, self._watch(keys), settle, ready)
            except BaseException:
                ready.put_back()
                raise

    def _ask(
        self, request: _Request, questions: Sequence[Question], meanwhile: Callable[[], None] | None
    ) -> Answers:
        if not questions:
            if meanwhile is not None:
                meanwhile()
            return ()
        try:
            asked = (self._full(request, one) for one in questions)
            return self._gate.ask_all(*asked, meanwhile=meanwhile)
        finally:
            if self._records.was_asking(doing().number) and not doing().recalled:
                # The earlier daemon had got no further than to ask.
                self._interrupted.pop(doing().number, None)

    @staticmethod
    def _full(request: _Request, question: Question) -> Question:
        """Return the question with what a third party's type has no say in."""
        if question.point != MODIFY_RESOURCE:
            return question
        settings, name = request.settings, request.entry.type.name
        asked = {
            **question.input,
            "resource_type": name,
            "request_type": request.request_type,
            "target": request.container_id,
            "settings": settings and settings.model_dump(mode="json", by_alias=True),
        }
        return Question(MODIFY_RESOURCE, asked, question.refusal or f"{name} denied by policy: ")

    def _apply(
        self,
        request: _Request,
        plan: Plan,
        answers: Answers,
        record: Record | None,
        follow: Callable[[Undo], None],
        settle: Callable[[], bool],
        ready: Readiness,
    ) -> None:
        def report(failure: str) -> None:
            self._gate.mark(f"{request.what}: {failure}")

        with transaction(report) as undo:
            with step("apply", request.entry.type.name):
                made = plan.apply(undo, answers)
                follow(undo)
            # The host was told that it failed. What can be undone is, or the host and we
            # would part ways; what cannot is done, and is recorded as done.
            if not settle() and undo.irreversible is None:
                raise DeadlineExceeded(f"{request.what}: finished after its time, undone")
            ready.commit(None if request.verb is Verb.REMOVE else made if made is not None else record)

    @staticmethod
    def _record_key(request: _Request) -> tuple[str, str]:
        identity = request.identity
        if request.entry.type.target is Target.CONTAINER:
            identity = f"{request.container_id} {identity}"
        return request.entry.type.name, identity

    @staticmethod
    @contextmanager
    def _telling(what: str) -> Iterator[None]:
        """Turn what a handler raises by mistake into an error that a host may read."""
        try:
            yield
        except UvmdError:
            raise
        except OSError as error:
            where = f": {error.filename}" if isinstance(error.filename, str) else ""
            raise Failed(f"{what}{where}: {(error.strerror or str(error)).lower()}") from error
        except Exception as error:
            # Its text may quote the settings.
            raise Failed(f"{what}: {type(error).__name__} in its handler") from error
