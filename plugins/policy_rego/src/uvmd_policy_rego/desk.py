"""One policy and everything that is asked of it, bytes in and bytes out: what policyd does.

A question that the policy answers with no is an answer like any other. What raises here
was not foreseen, and then nobody can say what the policy remembers: policyd ends, and the
daemon makes another one from what it has kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from uvmd.api.envelopes import Fragment, TrustList
from uvmd_policy_rego import denial, protocol
from uvmd_policy_rego.engine import EngineError
from uvmd_policy_rego.fragments import load_fragment, load_trust_list
from uvmd_policy_rego.kept import Change, Kept, from_json
from uvmd_policy_rego.ledgers import Ledgers
from uvmd_policy_rego.legacy import LegacyError, policy_text
from uvmd_policy_rego.results import capabilities_of, env_of, stdio_of
from uvmd_policy_rego.session import Answer, Refusal, Session

_encode = json.JSONEncoder(separators=(",", ":")).encode


class Desk:
    """See the module. Used by one thread alone."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._policy = ""
        self._kept = Kept()
        #: What a policy remembers from the start, as long as nothing else has come to it.
        self._fresh: list[Change] | None = None
        self._operations: dict[int, Callable[[Any], dict[str, Any]]] = {
            protocol.LOAD: self._load,
            protocol.FRAGMENT: self._fragment,
            protocol.TRUST_LIST: self._trust_list,
            protocol.MOUNTS: self._mounts,
            protocol.APPLY: self._apply,
            protocol.DESCRIBE: self._describe,
        }

    def handle(self, op: int, body: bytes) -> bytes:
        """Answer one question."""
        if op == protocol.DECIDE:
            answer = self._decide(body)
        elif op == protocol.DECIDE_ALL:
            answer = self._decide_all(body)
        elif op == protocol.HELLO:
            answer = self._hello()
        else:
            answer = self._operations[op](json.loads(body))
        # Half of a surrogate pair has no UTF-8; escaped it does no harm.
        return _encode(answer).encode()

    def close(self) -> None:
        """Let the policy go."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    @property
    def _policys(self) -> Session:
        if self._session is None:
            raise protocol.Broken("no policy is loaded")
        return self._session

    # The policy

    def _hello(self) -> dict[str, Any]:
        documents = None if self._session is None else self._session.documents
        return {
            "v": protocol.VERSION,
            "policy": self._policy,
            "digest": self._kept.digest(),
            "modules": 0 if documents is None else len(documents.kept),
            "mounts": 0 if documents is None else documents.added_mounts,
            "fresh": self._fresh,
        }

    def _load(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        self.close()
        try:
            session = Session(policy_text(asked["text"]))
        except (EngineError, LegacyError) as error:
            return {"error": str(error)}
        self._session, self._policy, self._kept = session, asked["policy"], Kept()
        try:
            self._put_in_place(session, asked)
        except (EngineError, KeyError, ValueError, TypeError) as error:
            return {"lost": f"what was kept does not fit the policy: {type(error).__name__}"}
        changes = self._changes()
        self._fresh = None if asked["kept"] or asked["modules"] or asked["mounts"] else changes
        return {"digest": self._kept.digest(), "fresh": self._fresh}

    @staticmethod
    def _put_in_place(session: Session, asked: Mapping[str, Any]) -> None:
        """Go on where another policyd ended."""
        documents = session.documents
        changes = Kept().changes_to(from_json(asked["kept"]))
        # Which candidates there are depends on the fragments, so matches come last.
        documents.apply(change for change in changes if change[0] != "matches")
        documents.apply(change for change in changes if change[0] == "matches")
        for issuer, feed, namespace, text in asked["modules"]:
            documents.keep((issuer, feed), namespace, text)
        if asked["mounts"]:
            documents.extend_default_mounts(asked["mounts"])
        for name in documents.store.names():
            documents.store.touched.setdefault(name, {})
            documents.store.touch(name)

    def _changes(self) -> list[Change]:
        """Return what has changed, as texts, and reckon with it."""
        found = []
        for change in self._policys.documents.changes():
            name, _, key, text = change
            known = name in self._kept.names() if key is None else self._kept.text(name, key) == text
            if not known:
                self._kept.apply([change])
                found.append(change)
        if found:
            self._fresh = None
        return found

    # Questions

    def _decide(self, body: bytes) -> dict[str, Any]:
        point, _, text = body.partition(b"\n")
        return {**self._answer(point.decode(), text.decode()), **self._news()}

    def _decide_all(self, body: bytes) -> dict[str, Any]:
        lines = iter(body.decode().split("\n"))
        answers: list[dict[str, Any]] = []
        for point, text in zip(lines, lines, strict=True):
            answers.append(self._answer(point, text))
            if not answers[-1]["allowed"]:
                break
        return {"answers": answers, **self._news()}

    def _answer(self, point: str, asked: str) -> dict[str, Any]:
        input = json.loads(asked)
        answer = self._policys.enforce(point, input, asked)
        if not answer.allowed:
            return _no(denial.message(answer.decision, point))
        try:
            return {
                "allowed": True,
                "stdio": stdio_of(point, answer.result),
                "env": env_of(point, answer.result, input),
                "capabilities": capabilities_of(point, answer.result, input),
            }
        except Refusal as refusal:
            return _no(str(refusal))

    def _denied(self, answer: Answer, point: str) -> dict[str, Any]:
        return {**_no(denial.message(answer.decision, point)), **self._news()}

    def _refused(self, refusal: Refusal) -> dict[str, Any]:
        return {**_no(str(refusal)), **self._news()}

    def _news(self) -> dict[str, Any]:
        # Also of a denial: what it wanted remembered is (policy.md 4.3).
        return {"changes": self._changes(), "digest": self._kept.digest()}

    # Fragments, whose envelopes are valid

    def _fragment(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        try:
            answer = load_fragment(self._policys, Fragment(**asked))
        except Refusal as refusal:
            return {**self._refused(refusal), **self._modules()}
        if not answer.allowed:
            return {**self._denied(answer, "load_fragment"), **self._modules()}
        self._fresh = None
        return {"allowed": True, **self._modules(), **self._news()}

    def _modules(self) -> dict[str, Any]:
        # Also of a denial: it takes out what the same issuer and feed had brought.
        kept = self._policys.documents.kept
        return {"modules": [[*identity, *module] for identity, module in kept.items()]}

    def _trust_list(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        allowed = Ledgers()
        try:
            answer = load_trust_list(self._policys, allowed, TrustList(**asked))
        except Refusal as refusal:
            return self._refused(refusal)
        if not answer.allowed:
            return self._denied(answer, "load_transparency_trust_list")
        return {"allowed": True, "ledgers": list(allowed.keys), **self._news()}

    # The rest

    def _mounts(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        self._policys.documents.extend_default_mounts(asked["mounts"])
        self._fresh = None
        return {}

    def _apply(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        changes: list[Change] = [(name, kind, key, text) for name, kind, key, text in asked["changes"]]
        self._policys.documents.apply(changes)
        self._kept.apply(changes)
        self._fresh = None
        return {"digest": self._kept.digest()}

    def _describe(self, _asked: Mapping[str, Any]) -> dict[str, Any]:
        documents = self._policys.documents
        held = {name: documents.store.document(name)[0] for name in documents.store.names()}
        return {
            "indexed": documents.static,
            "metadata": {name: len(value) for name, value in held.items()},
            "namespaces": sorted(namespace for namespace, _ in documents.kept.values()),
        }


def _no(reason: str) -> dict[str, Any]:
    return {"allowed": False, "reason": reason}
