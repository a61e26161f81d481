"""The enforcer ``rego`` of a daemon: a policy's session, and what of it outlives a restart.

The engine runs in this process, on a thread of its own (``worker.py``). It has no limit
of time or memory of its own and keeps the interpreter while it evaluates, so a policy
that loops holds up the daemon; it is the VM's own, measured policy, a host cannot choose
another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from uvmd.api import Decision, Enforcer, Environment
from uvmd.errors import Failed, PolicyDenied, Refused
from uvmd_policy_rego import denial
from uvmd_policy_rego.engine import EngineError
from uvmd_policy_rego.fragments import Ledgers, load_fragment, load_trust_list
from uvmd_policy_rego.legacy import LegacyError, policy_text
from uvmd_policy_rego.results import capabilities_of, env_of, stdio_of
from uvmd_policy_rego.session import Answer, Refusal, Session
from uvmd_policy_rego.states import Saved, load_state, state_of
from uvmd_policy_rego.worker import Worker

#: Whose yes changes nothing that a restart must know.
_STATELESS = frozenset(
    ("get_properties", "dump_stacks", "runtime_logging", "host_network", "exec_external", "modify_resource")
)


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
    """See the module."""

    wants_user_info = True

    def __init__(self, text: str, env: Environment | None = None) -> None:
        self.text = text
        try:
            policy = binascii.a2b_base64(text.replace("\r", "").replace("\n", ""), strict_mode=True)
        except ValueError:
            raise Refused("unable to decode policy from Base64 format: not standard base64") from None
        self._digest = hashlib.sha256(policy).hexdigest()
        self._lock = threading.Lock()
        self._state = env.state if env is not None else None
        self._stdio: dict[str, bool] = {}
        self._ledgers = Ledgers()
        self._added_mounts: list[dict[str, Any]] = []
        try:
            source = policy_text(policy.decode("utf-8", "replace"))
            self._worker = Worker(lambda: Session(source))
        except (EngineError, LegacyError) as error:
            failed = "error creating Rego policy: rego compilation failed"
            raise Refused(f"{failed}: rego compilation failed: {error}") from None
        try:
            self._worker.call(self._take_up)
        except BaseException:
            self._worker.close()
            raise

    # Questions

    def decide(self, point: str, input: Mapping[str, Any]) -> Decision:
        """Answer one question; the reason of a denial is a sentence and the decision document."""
        if point in ("create_container", "exec_in_container") and input.get("capabilities") is None:
            text = "capabilities object provided by the UVM to the policy engine is nil"
            return Decision(False, reason=text)
        with self._lock:
            return self._worker.call(lambda session: self._decide(session, point, input))

    def _decide(self, session: Session, point: str, input: Mapping[str, Any]) -> Decision:
        before = self._everything(session)
        answer = session.enforce(point, input)
        if not answer.allowed:
            return self._denied(answer, point)
        try:
            decision = self._allowed(point, input, answer.result)
        except Refusal as refusal:
            return Decision(False, reason=str(refusal))
        if point not in _STATELESS:
            self._save_or(session, before)
        return decision

    def _allowed(self, point: str, input: Mapping[str, Any], result: Mapping[str, Any]) -> Decision:
        container = str(input.get("containerID", ""))
        stdio = stdio_of(point, result)
        if point == "create_container":
            self._stdio[container] = stdio
        elif point == "exec_in_container":
            stdio = self._stdio.get(container, False)
        env = env_of(point, result, input)
        capabilities = capabilities_of(point, result, input)
        return Decision(True, env=env, capabilities=capabilities, stdio=stdio)

    @staticmethod
    def _denied(answer: Answer, point: str) -> Decision:
        return Decision(False, reason=denial.message(answer.decision, point))

    def extend_default_mounts(self, mounts: Sequence[Mapping[str, Any]]) -> None:
        """Add mounts that every container may have.

        Raises:
            Failed: it could not be kept for a restart.
        """
        added = [dict(mount) for mount in mounts]

        def extend_and_save(session: Session) -> None:
            session.documents.extend_default_mounts(added)
            self._added_mounts.extend(added)
            self._save(session)

        if added:
            with self._lock:
                self._worker.call(extend_and_save)

    # Fragments, once their envelopes were validated

    def load_validated_fragment(
        self,
        issuer: str,
        feed: str,
        code: str,
        header_svn: int | None,
        receipts: Sequence[Mapping[str, Any]],
    ) -> None:
        """Load a fragment's text; its envelope and receipts are valid.

        Raises:
            PolicyDenied: the policy does not take it.
        """

        def load(session: Session) -> Answer:
            return load_fragment(session, issuer, feed, code, header_svn, receipts)

        self._load(load, "load_fragment")

    def load_validated_trust_list(
        self, issuer: str, subject: str, svn: int, keys: Mapping[str, Mapping[str, str]]
    ) -> None:
        """Take the keys of a trust list, ledger to key id to public key (DER in base64).

        Raises:
            PolicyDenied: the policy does not take it.
        """

        def load(session: Session) -> Answer:
            return load_trust_list(session, self._ledgers, issuer, subject, svn, keys)

        self._load(load, "load_transparency_trust_list")

    def _load(self, load: Callable[[Session], Answer], point: str) -> None:
        def load_and_save(session: Session) -> None:
            before = self._everything(session)
            try:
                answer = load(session)
            except Refusal as refusal:
                raise PolicyDenied(str(refusal)) from None
            if not answer.allowed:
                raise PolicyDenied(denial.message(answer.decision, point))
            self._save_or(session, before)

        with self._lock:
            self._worker.call(load_and_save)

    def ledger_keys(self) -> dict[str, dict[str, tuple[str, tuple[str, ...]]]]:
        """Return the keys by which receipts are validated: ledger, key id, (key, offered by)."""
        with self._lock:
            return self._ledgers.snapshot()

    def load_fragment(self, fragment: bytes, media_type: str) -> None:
        """Load a signed artefact, once its envelope is found to be valid.

        Raises:
            PolicyDenied: the envelope is not valid, or the policy does not take it.
        """
        # 20 MiB that most VMs never need: imported when the first fragment comes.
        from uvmd_policy_rego.envelopes import load

        load.load(self, fragment, media_type)

    # Metadata

    def snapshot(self) -> object:
        """Return the metadata and the ledgers' keys as they are."""
        with self._lock:
            return self._worker.call(self._everything)

    def restore(self, snapshot: object) -> None:
        """Put metadata and ledgers' keys back.

        Raises:
            Failed: it could not be kept for a restart.
        """
        assert isinstance(snapshot, tuple)

        def put_back_and_save(session: Session) -> None:
            self._put_back(session, snapshot)
            self._save(session)

        with self._lock:
            self._worker.call(put_back_and_save)

    def _everything(self, session: Session) -> tuple[Any, Any]:
        return session.documents.store.snapshot(), self._ledgers.snapshot()

    def _put_back(self, session: Session, before: tuple[Any, Any]) -> None:
        session.documents.store.restore(before[0])
        self._ledgers.keys = before[1]

    def _save_or(self, session: Session, before: tuple[Any, Any]) -> None:
        """A yes that a restart would forget must not be given."""
        try:
            self._save(session)
        except Failed:
            self._put_back(session, before)
            raise

    def _save(self, session: Session) -> None:
        if self._state is None:
            return
        saved = Saved(self._digest, self._stdio, self._added_mounts, self._ledgers.keys)
        try:
            self._state.save(state_of(saved, session.documents))
        except OSError as error:
            raise Failed(f"the policy's metadata could not be kept: {error}") from error

    def _take_up(self, session: Session) -> None:
        """Go on where an earlier daemon with the same policy ended."""
        if self._state is None:
            return
        state = self._state.load()
        if state.get("policy") != self._digest:
            return
        saved = load_state(state, session.documents)
        self._stdio, self._added_mounts, self._ledgers.keys = saved.stdio, saved.mounts, saved.ledgers

    def close(self) -> None:
        """Let the engine go."""
        self._worker.close()

    def dump_state(self) -> Mapping[str, Any]:
        """Describe the enforcer for people: how much it holds, nothing of what."""
        with self._lock:
            return self._worker.call(self._described)

    def _described(self, session: Session) -> dict[str, Any]:
        documents = session.documents
        held = {name: documents.store.document(name)[0] for name in documents.store.names()}
        return {
            "policy": self._digest,
            "indexed": documents.static,
            "metadata": {name: len(value) for name, value in held.items()},
            "namespaces": sorted(namespace for namespace, _ in documents.kept.values()),
        }


def encode(policy: str) -> str:
    """Encode a policy's text as a host sends it."""
    return base64.b64encode(policy.encode()).decode()
