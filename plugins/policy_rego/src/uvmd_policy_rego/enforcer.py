"""The enforcer ``rego`` of a daemon: asks policyd, and keeps what must outlive it.

policyd has the policy, the engine and the metadata, and is bounded in time and memory.
This side has the record of the metadata. Where the two disagree nothing can be decided
any more; where policyd is merely gone, or knows more than was ever answered, another one
is made from the record.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from uvmd.api import Decision, Enforcer, Environment, Fragment, LedgerKeys, TrustList
from uvmd.errors import Failed, PolicyDenied, PolicyLost, Refused
from uvmd_policy_rego import denial, protocol
from uvmd_policy_rego.config import PolicyRegoConfig
from uvmd_policy_rego.kept import Kept
from uvmd_policy_rego.memory import Memory
from uvmd_policy_rego.remote import Channel, Local, Unanswered, nothing, policyd

#: What narrows an environment or is remembered here needs a question of its own.
_OF_PROCESSES = frozenset(("create_container", "exec_in_container", "exec_external"))
_FAILED = "error creating Rego policy: rego compilation failed"


def make(env: Environment, text: str) -> RegoEnforcer:
    """Make the enforcer of an encoded policy, with the metadata of an earlier daemon's.

    Raises:
        Refused: the policy is not base64 or cannot be loaded.
    """
    if env.config is not None and env.config.record:
        # Nearly nobody wants it, and it derives from what is below.
        from uvmd_policy_rego.recording import RecordingEnforcer

        return RecordingEnforcer(text, env, env.config.record)
    return RegoEnforcer(text, env)


class RegoEnforcer(Enforcer):
    """See the module. Without an environment everything is in this process, and nothing is kept.

    Raises:
        Refused: the policy is not base64 or cannot be loaded.
    """

    wants_user_info = True

    def __init__(self, text: str, env: Environment | None = None) -> None:
        self.text = text
        try:
            policy = binascii.a2b_base64(text.replace("\r", "").replace("\n", ""), strict_mode=True)
        except ValueError:
            raise Refused("unable to decode policy from Base64 format: not standard base64") from None
        self._policy = policy.decode("utf-8", "replace")
        self._digest = hashlib.sha256(policy).hexdigest()
        config = env.config if env is not None else None
        self._config: PolicyRegoConfig = config or PolicyRegoConfig.model_validate({})
        self._lock = threading.Lock()
        self._lost: str | None = None
        self._memory = Memory(env.state if env is not None else None, self._digest)
        self._channel: Channel = (
            policyd(env.service, self._digest, self._config.memory_mib) if env is not None else Local()
        )
        self._ready = self._channel.attach() and self._is_ours()
        if not self._ready:
            try:
                self._load()
            except Unanswered as error:
                raise Refused(f"{_FAILED}: {error}") from None

    # Questions

    def decide(self, point: str, input: Mapping[str, Any]) -> Decision:
        """Answer one question; the reason of a denial is a sentence and the decision document."""
        return self._decide(point, input)

    def _decide(
        self, point: str, input: Mapping[str, Any], meanwhile: Callable[[], None] = nothing
    ) -> Decision:
        if point in ("create_container", "exec_in_container") and input.get("capabilities") is None:
            text = "capabilities object provided by the UVM to the policy engine is nil"
            return Decision(False, reason=text)
        with self._lock:
            try:
                asked = _line(point, input)
                answer = self._ask(protocol.DECIDE, asked, self._config.decision_timeout_s, meanwhile)
            except Unanswered as error:
                return _unanswered(point, input, error)
            allowed = answer["allowed"] is True
            stdio = answer.get("stdio", False)
            container = str(input.get("containerID", ""))
            created = allowed and point == "create_container"
            self._record(answer, {container: stdio} if created else None)
            if point == "exec_in_container":
                stdio = self._memory.stdio.get(container, False)
        if not allowed:
            return Decision(False, reason=answer["reason"])
        return Decision(True, env=answer["env"], capabilities=answer["capabilities"], stdio=stdio)

    def decide_all(
        self, questions: Sequence[tuple[str, Mapping[str, Any]]], meanwhile: Callable[[], None] = nothing
    ) -> Sequence[Decision]:
        """Answer the questions of one request on one way to policyd."""
        if not _OF_PROCESSES.isdisjoint(point for point, _ in questions):
            alone = len(questions) == 1
            return [self._decide(*questions[0], meanwhile)] if alone else super().decide_all(questions)
        asked = b"\n".join(_line(point, input) for point, input in questions)
        with self._lock:
            try:
                answer = self._ask(protocol.DECIDE_ALL, asked, self._config.decision_timeout_s, meanwhile)
            except Unanswered as error:
                return [_unanswered(*questions[0], error)]
            self._record(answer)
        return [
            Decision(True) if one["allowed"] is True else Decision(False, reason=one["reason"])
            for one in answer["answers"]
        ]

    def extend_default_mounts(self, mounts: Sequence[Mapping[str, Any]]) -> None:
        """Add mounts that every container may have.

        Raises:
            Failed: policyd did not answer, or it could not be kept for a restart.
        """
        added = [dict(mount) for mount in mounts]
        if not added:
            return
        with self._lock:
            try:
                self._ask_json(protocol.MOUNTS, {"mounts": added}, self._config.decision_timeout_s)
            except Unanswered as error:
                raise Failed(f"the policy could not be told of default mounts: {error}") from None
            self._kept(lambda: self._memory.add(mounts=added))

    # Fragments, whose envelopes are valid

    def load_fragment(self, fragment: Fragment) -> None:
        """Load a fragment's text.

        Raises:
            PolicyDenied: the policy does not take it.
        """
        with self._lock:
            self._saved(self._load_answer(protocol.FRAGMENT, fragment._asdict()))

    def load_trust_list(self, trust_list: TrustList) -> None:
        """Take the keys of a trust list, of the ledgers that the policy lets it speak for.

        Raises:
            PolicyDenied: the policy does not take it.
        """
        # The keys stay here: policyd is told names, and has no use for more.
        asked = trust_list._replace(keys={ledger: {} for ledger in trust_list.keys})._asdict()
        with self._lock:
            answer = self._load_answer(protocol.TRUST_LIST, asked)
            allowed = {name: trust_list.keys[name] for name in answer["ledgers"] if name in trust_list.keys}
            self._memory.ledgers.merge(trust_list.subject, allowed)
            self._saved(answer)

    def ledger_keys(self) -> LedgerKeys:
        """Return the keys by which receipts are validated."""
        with self._lock:
            return self._memory.ledgers.snapshot()

    def _load_answer(self, op: int, asked: Mapping[str, Any]) -> dict[str, Any]:
        try:
            answer = self._ask_json(op, asked, self._config.load_timeout_s)
        except Unanswered as error:
            raise PolicyDenied(f"the policy could not answer: {error}") from None
        before = self._memory.modules
        if "modules" in answer:
            self._memory.modules = [(one[0], one[1], one[2], one[3]) for one in answer["modules"]]
        if answer["allowed"] is not True:
            self._record(answer)
            if self._memory.modules != before:
                self._kept(self._memory.save)
            raise PolicyDenied(answer["reason"])
        return answer

    # Metadata

    def snapshot(self) -> object:
        """Return the metadata and the ledgers' keys as they are."""
        with self._lock:
            return self._memory.kept.snapshot(), self._memory.ledgers.snapshot()

    def restore(self, snapshot: object) -> None:
        """Put metadata and ledgers' keys back.

        Raises:
            Failed: it could not be kept for a restart.
        """
        assert isinstance(snapshot, tuple)
        kept, ledgers = snapshot
        assert isinstance(kept, Kept)
        with self._lock:
            changes = self._memory.kept.changes_to(kept)
            same_keys = ledgers == self._memory.ledgers.keys
            self._memory.ledgers.keys = ledgers
            if changes and self._ready:
                try:
                    asked = {"changes": changes}
                    told = self._ask_json(protocol.APPLY, asked, self._config.decision_timeout_s)
                    if told["digest"] != kept.digest():
                        self._drop()
                except Unanswered:
                    pass  # the record says all that the next one must know
            self._kept(lambda: self._memory.add(changes, digest=kept.digest()))
            if not same_keys:
                self._kept(self._memory.save)

    def dump_state(self) -> Mapping[str, Any]:
        """Describe the enforcer for people: how much it holds, nothing of what."""
        with self._lock:
            try:
                described = self._ask_json(protocol.DESCRIBE, {}, self._config.decision_timeout_s)
            except (Unanswered, PolicyLost) as error:
                described = {"error": str(error)}
        return {"policy": self._digest, **described}

    def close(self) -> None:
        """Let policyd go."""
        with self._lock:
            self._ready = False
            self._channel.end()

    # policyd and the record

    def _record(self, answer: Mapping[str, Any], stdio: Mapping[str, bool] | None = None) -> None:
        """Record what an answer changes; a yes that a restart would forget must not be given."""
        try:
            self._kept(lambda: self._memory.add(answer["changes"], stdio, digest=answer["digest"]))
        except Failed as failure:
            raise PolicyDenied(f"the policy's answer does not count: {failure}") from failure

    def _saved(self, answer: Mapping[str, Any]) -> None:
        self._kept(lambda: self._memory.take({"changes": answer["changes"]}))
        self._kept(lambda: self._memory.add(digest=answer["digest"]))
        self._kept(self._memory.save)

    def _kept(self, record: Any) -> None:
        try:
            record()
        except PolicyLost as lost:
            self._lose(str(lost))
        except Failed:
            # policyd knows more than is on record: the next one will not.
            self._drop()
            raise

    def _ask_json(self, op: int, asked: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        return self._ask(op, json.dumps(asked).encode(), timeout_s)

    def _ask(
        self, op: int, body: bytes, timeout_s: float, meanwhile: Callable[[], None] = nothing
    ) -> dict[str, Any]:
        """Ask policyd, a new one if need be.

        Raises:
            Unanswered: it did not answer; the next question goes to another one.
            PolicyLost: what is on record cannot be brought back.
        """
        if self._lost is not None:
            raise PolicyLost(self._lost)
        if not self._ready:
            self._load_again()
        try:
            return self._channel.ask(op, body, timeout_s, meanwhile)
        except Unanswered:
            self._drop()
            raise

    def _drop(self) -> None:
        self._ready = False
        self._channel.end()

    def _lose(self, cause: str) -> None:
        self._lost = cause
        self._drop()
        raise PolicyLost(cause)

    def _is_ours(self) -> bool:
        """Say whether the policyd that was found is where the record is."""
        memory = self._memory
        try:
            found = self._channel.ask(protocol.HELLO, b"", self._config.decision_timeout_s)
        except Unanswered:
            return False
        if found.get("v") != protocol.VERSION or found["policy"] != self._digest:
            return False
        if not memory.recorded and found["fresh"] is not None:
            memory.begin(found["fresh"])
        told = found["digest"], found["modules"], found["mounts"]
        return bool(told == (memory.digest, len(memory.modules), len(memory.mounts)))

    def _load_again(self) -> None:
        try:
            self._load()
        except Refused as error:
            # It could be loaded before: what the record says no longer fits.
            self._lose(f"the policy could not be brought back: {error}")

    def _load(self) -> None:
        """Make a new policyd that is where the record is.

        Raises:
            Unanswered: it took too long, or too much.
            Refused: the policy cannot be loaded, or the record does not fit it.
        """
        memory = self._memory
        self._channel.start()
        try:
            told = json.dumps(memory.asked_to_load(self._policy)).encode()
            answer = self._channel.ask(protocol.LOAD, told, self._config.load_timeout_s)
            if "error" in answer:
                raise Refused(f"{_FAILED}: rego compilation failed: {answer['error']}")
            if "lost" in answer:
                raise Refused(answer["lost"])
            if answer["fresh"] is not None:
                memory.begin(answer["fresh"])
            if answer["digest"] != memory.digest:
                raise Refused("the policy's metadata are not what was recorded of them")
        except BaseException:
            self._channel.end()
            raise
        self._ready = True


def _line(point: str, input: Mapping[str, Any]) -> bytes:
    return f"{point}\n{json.dumps(input)}".encode()


def _unanswered(point: str, input: Mapping[str, Any], error: Unanswered) -> Decision:
    return Decision(False, reason=denial.message(denial.by_error(input, str(error)), point))


def encode(policy: str) -> str:
    """Encode a policy's text as a host sends it."""
    return base64.b64encode(policy.encode()).decode()
