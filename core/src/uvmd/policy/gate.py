"""The gate: nothing that a host asks for happens before it was asked here.

It holds the one enforcer in force and fails closed: an exception, an answer of another
type, a time that ran out or no answer is a no. It also holds the two latches of the VM,
because both decide whether a change may be tried at all: *inconsistent* (strict: an undo
failed and changes are over) and *degraded* (not strict: an undo failed and people are
told). What a question is about, and what follows from a yes, is ``host``'s business.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from uvmd.api.policy import Decision, Enforcer
from uvmd.api.resources import Question
from uvmd.errors import DeadlineExceeded, Failed, Inconsistent, PolicyDenied, PolicyLost, Refused, UvmdError
from uvmd.observe.steps import step
from uvmd.policy import answers, fragments, selection, stances
from uvmd.policy.meanwhile import Meanwhile
from uvmd.policy.selection import Factory, HostData, PolicySettings

log = logging.getLogger(__name__)

CHANGES_ARE_OVER = (
    "mount, unmount, container creation and deletion have been disabled in this UVM due to a previous error: "
)


#: Enforcement point and input.
Asked = tuple[str, object]


class Memory(Protocol):
    """What of a request's answers outlives the daemon: who serves it again must not ask again.

    A question may change the policy's metadata, which would then say no the second time.
    """

    def recall(self, *asked: Asked) -> Sequence[Decision] | None:
        """Return the answers that an earlier daemon was given for this request, to these together."""

    def get_ready(self, *asked: Asked) -> None:
        """Do what :meth:`remember` would have to for these, while they are being asked; raises nothing."""

    def remember(self, *asked: Asked, decisions: Sequence[Decision]) -> None:
        """Keep the answers to questions that were asked together, for a later daemon."""


class _Forgetful:
    """Keeps nothing."""

    def recall(self, *asked: Asked) -> Sequence[Decision] | None:
        return None

    def get_ready(self, *asked: Asked) -> None:
        pass

    def remember(self, *asked: Asked, decisions: Sequence[Decision]) -> None:
        pass


_FORGETFUL = _Forgetful()


class _InForce(NamedTuple):
    """Swapped as one, so that nobody sees the new enforcer with the old strictness."""

    enforcer: Enforcer
    strict: bool


class Gate:
    """See the module.

    Args:
        stance: the operator's wish for the time before a policy: ``allow`` or ``deny``.
        hardware: kinds of confidential hardware found (``policy/hardware.py``).
        find_hardware: looks again when a policy comes. Its driver may be a module that the
            kernel loads after our start, and a policy must not be faster than that.
        enforcers: factories of the plugins' enforcers by name.
        selectable: names that a host may select (``[policy] enforcers``).
        envelope_readers: makers of the readers of signed envelopes, by format.
        host_data: readers of the launch data, by kind of hardware.
        set_logging: called when a policy decides whether the daemon may log.
        save: keeps what :meth:`resume` needs after a restart of the daemon.
        memory: keeps the answers that a strict VM's requests under way were given.
    """

    def __init__(
        self,
        stance: str = stances.ALLOW,
        *,
        hardware: Iterable[str] = (),
        find_hardware: Callable[[], frozenset[str]] = frozenset,
        enforcers: Mapping[str, Factory] | None = None,
        selectable: Iterable[str] = (stances.OPEN_DOOR, selection.REGO),
        envelope_readers: Mapping[str, fragments.MakeReader] | None = None,
        host_data: Mapping[str, HostData] | None = None,
        set_logging: Callable[[bool], None] = lambda allowed: None,
        save: Callable[[Mapping[str, Any]], None] = lambda state: None,
        memory: Memory | None = None,
    ) -> None:
        self._memory = memory or _FORGETFUL
        self._hardware = frozenset(hardware)
        self._find_hardware = find_hardware
        self._factories = dict(enforcers or {})
        self._selectable = frozenset(selectable)
        self._envelopes = fragments.Envelopes(envelope_readers or {})
        self._host_data = dict(host_data or {})
        self._set_logging = set_logging
        self._save = save
        self._mutex = threading.Lock()
        first = stances.initial(stance, bool(self._hardware))
        self._in_force = _InForce(first, False)
        self._settings: PolicySettings | None = None
        self._reference_info: dict[str, str] = {}
        self._door_closed: str | None = None
        #: What was saved and could not be taken up: a later daemon must not find less.
        self._left: Mapping[str, Any] = {}
        self.inconsistent: str | None = None
        self.degraded: str | None = None
        #: Whether the daemon may log: not behind a closed door (spec policy.md 3.2).
        self.logging_allowed = not isinstance(first, stances.ClosedDoor)

    @property
    def strict(self) -> bool:
        """Whether a non-empty policy text is in force. Once true, true until the VM ends."""
        return self._in_force.strict

    @property
    def wants_user_info(self) -> bool:
        """Whether create and exec must look up users and groups for the policy."""
        return self._in_force.enforcer.wants_user_info

    @property
    def door_closed(self) -> str | None:
        """Why every question is denied, if it is."""
        return self._door_closed

    # Questions

    def ask(self, point: str, input: Mapping[str, Any], refusal: str = "") -> Decision:
        """Return the decision if it is a yes, narrowed to what was asked for.

        ``refusal`` goes before the reason of a denial.

        Raises:
            PolicyDenied: every other outcome.
        """
        return self.ask_all(Question(point, input, refusal))[0]

    def ask_all(
        self, *questions: Question, meanwhile: Callable[[], None] | None = None
    ) -> tuple[Decision, ...]:
        """Return the decisions if each is a yes; the first no ends it, as if asked one by one.

        ``meanwhile`` must not wait. It is called at most once; what it raises is raised after
        a yes.

        Raises:
            PolicyDenied: every other outcome.
        """
        aside = Meanwhile(meanwhile)
        decisions = self._ask_all(questions, aside)
        aside.finish()
        return decisions

    def _ask_all(self, questions: Sequence[Question], meanwhile: Callable[[], None]) -> tuple[Decision, ...]:
        refusal = questions[0].refusal
        if self._door_closed is not None:
            raise PolicyDenied(refusal + self._door_closed)
        points = ", ".join(question.point for question in questions)
        asked = [(question.point, question.input) for question in questions]
        memory = self._memory if self.strict else _FORGETFUL

        def aside() -> None:
            meanwhile()
            memory.get_ready(*asked)

        try:
            with step("policy", points):
                if (recalled := memory.recall(*asked)) is not None:
                    return tuple(recalled)
                decisions = []
                given = iter(self._in_force.enforcer.decide_all(asked, aside))
                for question in questions:
                    refusal = question.refusal
                    answer = answers.require_yes(next(given, None))
                    decisions.append(answers.narrow(answer, question.input))
                memory.remember(*asked, decisions=decisions)
                return tuple(decisions)
        except PolicyLost as lost:
            self.close_door(str(lost))
            raise PolicyDenied(f"{refusal}{lost}") from None
        except (answers.Unusable, PolicyDenied) as no:
            raise PolicyDenied(f"{refusal}{no}") from None
        except (DeadlineExceeded, TimeoutError) as late:
            log.error("policy did not answer in time", extra={"point": points})
            raise PolicyDenied(f"{refusal}the policy did not answer in time") from late
        # A native engine's panic is no Exception, and must be a no all the same.
        except BaseException as error:
            # Its text may quote the input, which holds environments: the type must do.
            kind = type(error).__name__
            log.error("policy could not be evaluated", extra={"point": points, "error": kind})
            raise PolicyDenied(f"{refusal}the policy could not be evaluated: {kind}") from None

    def extend_default_mounts(self, mounts: Sequence[Mapping[str, Any]]) -> None:
        """Tell the policy of mounts that every container may have.

        Raises:
            PolicyDenied: it cannot be told; what would be asked next would be another question.
        """
        if self._door_closed is not None:
            raise PolicyDenied(self._door_closed)
        try:
            if self.strict and self._memory.recall(("default mounts", mounts)) is not None:
                return
            with step("policy", "default mounts"):
                self._in_force.enforcer.extend_default_mounts(mounts)
            if self.strict:
                self._memory.remember(("default mounts", mounts), decisions=[Decision(True)])
        except PolicyLost as lost:
            self.close_door(str(lost))
            raise
        except BaseException as error:
            kind = type(error).__name__
            log.error("policy could not be told of default mounts", extra={"error": kind})
            raise PolicyDenied(f"the policy could not be told of the pod's mounts: {kind}") from None

    @contextmanager
    def metadata_transaction(self) -> Iterator[None]:
        """Put the policy's metadata back as they were when the body raises.

        The caller holds the change lock: a snapshot covers everything, also what other
        requests did meanwhile. Metadata that cannot be put back close the door, since
        every later decision would rest on something that did not happen.

        Raises:
            Failed: no snapshot could be taken; the body did not run.
        """
        enforcer = self._in_force.enforcer
        try:
            with step("policy", "snapshot"):
                snapshot = enforcer.snapshot()
        except BaseException as error:  # a native engine's panic is no Exception
            raise Failed(f"failed to snapshot policy metadata: {type(error).__name__}") from error
        try:
            yield
        except BaseException:
            try:
                enforcer.restore(snapshot)
            except BaseException as error:
                self.close_door(f"policy metadata could not be put back: {type(error).__name__}")
            raise

    # The latches

    def require_consistent(self) -> None:
        """Refuse changes in a strict VM whose guest is no longer what was recorded.

        Raises:
            Inconsistent: naming the first cause.
        """
        if self.inconsistent is not None:
            raise Inconsistent(CHANGES_ARE_OVER + self.inconsistent)

    def mark(self, cause: str) -> None:
        """Record that an undo failed: final in a strict VM, elsewhere a note for people."""
        with self._mutex:
            if self.strict:
                if self.inconsistent is not None:
                    return
                self.inconsistent = cause
            else:
                if self.degraded is not None:
                    return
                self.degraded = cause
            self._try_to_save()
            state = "inconsistent" if self.strict else "degraded"
        log.error("the guest is not as it was before a request", extra={"state": state, "cause": cause})

    def close_door(self, cause: str) -> None:
        """Deny every later question with ``cause``, until the VM ends.

        Strictness stays as it was; what runs, runs on. Only the first cause counts.
        """
        with self._mutex:
            if self._door_closed is not None:
                return
            self._door_closed = cause
            self._try_to_save()
        log.error("the policy can no longer be trusted, everything is denied", extra={"cause": cause})

    # Setting the policy

    def prepare(self, settings: PolicySettings) -> Enforcer:
        """Make the enforcer of a SecurityPolicy message; nothing comes into force yet.

        Slow for large policies, so call it without the change lock. What is made goes
        to :meth:`adopt` or is closed.

        Raises:
            Refused: set before, digest, host data, selection or the policy itself.
        """
        self._require_settable()
        policy = selection.decode_base64(settings.policy, "base64 security policy")
        # What was there once counts for ever: a device that is gone is no way around it.
        self._hardware |= self._find_hardware()
        selection.check_host_data(policy, self._hardware, self._host_data)
        factory = selection.select(settings, self._factories, self._selectable)
        return selection.build(factory, settings)

    def adopt(self, settings: PolicySettings, enforcer: Enforcer) -> None:
        """Bring a prepared enforcer into force. The caller holds the change lock exclusively.

        Raises:
            Refused: another message was faster; the enforcer is closed.
            Failed: the policy could not be recorded; the enforcer is closed.
        """
        logging_allowed = self._allows_logging(enforcer)
        try:
            with self._mutex:
                self._require_settable()
                self._record(settings)
                self._swap(enforcer, logging_allowed)
        except BaseException:
            enforcer.close()
            raise
        self._set_logging(logging_allowed)

    def set_policy(self, settings: PolicySettings) -> None:
        """Prepare and adopt in one go."""
        self.adopt(settings, self.prepare(settings))

    def _require_settable(self) -> None:
        if self._door_closed is not None:
            raise Refused(f"the policy can no longer be changed: {self._door_closed}")
        if self._settings is not None:
            raise Refused("security policy has already been set")

    def _record(self, settings: PolicySettings) -> None:
        """Save before the swap: a restarted daemon must not find a VM without a policy."""
        self._settings = settings
        try:
            self._save(self._state())
        except BaseException as error:
            self._settings = None
            raise Failed(f"the security policy could not be recorded: {error}") from error

    def _swap(self, enforcer: Enforcer, logging_allowed: bool) -> None:
        self._in_force = _InForce(enforcer, self.strict or bool(enforcer.text))
        self.logging_allowed = logging_allowed

    @staticmethod
    def _allows_logging(enforcer: Enforcer) -> bool:
        try:
            answers.require_yes(enforcer.decide("runtime_logging", {}))
        except BaseException:
            return False
        return True

    def holds(self, settings: PolicySettings) -> bool:
        """Tell whether this very message has been obeyed."""
        return self._settings == settings

    # Fragments and what containers are shown

    def load_fragment(self, fragment: str, media_type: str) -> None:
        """Read a signed artefact, in base64, and hand it to the enforcer in force (attestation.md 5).

        Of reference info only the envelope is checked; it is kept for the containers to come.

        Raises:
            Refused: the media type is unknown, the text no base64, or the envelope not valid.
            PolicyDenied: the enforcer does not accept it.
        """
        kind = fragments.kind_of(media_type)
        blob = selection.decode_base64(fragment, "fragment")
        if self._door_closed is not None:
            raise PolicyDenied(f"{kind.refusal}{self._door_closed}")
        # Loaded for this request by an earlier daemon, whose answer did not get out.
        if self._memory.recall(("load_fragment", fragment)) is not None:
            return
        enforcer = self._in_force.enforcer
        signed = self._envelopes.read(kind, blob, enforcer)
        try:
            if signed is not None:
                fragments.offer(signed, enforcer)
        except UvmdError as error:
            if isinstance(error, PolicyLost):
                self.close_door(str(error))
            raise PolicyDenied(f"{kind.refusal}{error}") from error
        except TimeoutError as late:
            raise PolicyDenied(f"{kind.refusal}the policy did not answer in time") from late
        except BaseException as error:
            log.error("fragment could not be loaded", extra={"error": type(error).__name__})
            raise PolicyDenied(f"{kind.refusal}{type(error).__name__}") from None
        if kind.file:
            with self._mutex:
                self._reference_info[kind.file] = fragments.encode(blob)
                self._try_to_save()
        self._memory.remember(("load_fragment", fragment), decisions=[Decision(True)])

    def security_context(self) -> dict[str, str]:
        """The files of a container's security context directory, by name (policy.md 3.6)."""
        settings = self._settings or PolicySettings()
        files = {
            "security-policy-base64": self._in_force.enforcer.text,
            "reference-info-base64": settings.uvm_reference,
            "transparent-reference-info-base64": settings.hash_envelope_reference,
            **self._reference_info,
        }
        return {name: content for name, content in files.items() if content}

    # Surviving a restart of the daemon

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take up what an earlier daemon of this VM had saved.

        A policy that cannot be brought back leaves a strict VM with a closed door: a
        daemon that forgot its policy would be the host's way around it.
        """
        strict = True  # until it is known that there was no policy
        try:
            if state["v"] != 1:
                raise ValueError(f"version {state['v']!r}, known is 1")
            settings = None if state["settings"] is None else PolicySettings(*state["settings"])
            # The release before said it by the text alone.
            strict = bool(state.get("strict")) or (settings is not None and bool(settings.policy))
            self.inconsistent, self.degraded = state["inconsistent"], state["degraded"]
            self._reference_info = dict(state["reference_info"])
            if settings is not None:
                enforcer = self.prepare(settings)
                self._settings = settings
                self._swap(enforcer, self._allows_logging(enforcer))
            elif strict:
                raise ValueError("the policy itself is lost")
            self._door_closed = state["door_closed"]
        except BaseException as error:  # a native engine's panic is no Exception
            self._left = dict(state)
            cause = f"the policy could not be taken up again after a restart: {error}"
            self.fail_closed(state.get("door_closed") or cause, strict=strict)
        self._set_logging(self.logging_allowed)

    def fail_closed(self, cause: str, *, strict: bool = True) -> None:
        """Close the door on behalf of a policy that may have been in force and is not known."""
        self._in_force = _InForce(self._in_force.enforcer, strict)
        self.logging_allowed = False
        self.close_door(cause)
        self._set_logging(False)

    def _state(self) -> dict[str, Any]:
        own = {
            "v": 1,
            "settings": None if self._settings is None else list(self._settings),
            "strict": self.strict,
            "reference_info": dict(self._reference_info),
            "inconsistent": self.inconsistent,
            "degraded": self.degraded,
            "door_closed": self._door_closed,
        }
        if not self._left:
            return own
        # The door is closed: of what could not be taken up the latches alone can have changed.
        latches = {name: own[name] for name in ("inconsistent", "degraded") if own[name] is not None}
        return {**own, **self._left, **latches, "strict": self.strict, "door_closed": self._door_closed}

    def _try_to_save(self) -> None:
        try:
            self._save(self._state())
        except OSError as error:
            log.warning("the gate's state could not be saved, ignoring", extra={"errno": error.errno})
