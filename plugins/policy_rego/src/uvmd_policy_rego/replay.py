"""Recorded sessions run again: the enforcer's public test interface (docs/policy-replay.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from uvmd.api.envelopes import Fragment, TrustList
from uvmd_policy_rego.engine import EngineError
from uvmd_policy_rego.fragments import load_fragment, load_trust_list
from uvmd_policy_rego.ledgers import Ledgers
from uvmd_policy_rego.legacy import LegacyError, policy_text
from uvmd_policy_rego.session import Answer, Refusal, Session


def replay(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Run one session and return its line of answers."""
    name = recorded.get("name", "")
    try:
        if recorded.get("os", "linux") != "linux":
            raise LegacyError(f'unsupported operating system: "{recorded["os"]}"')
        session = Session(
            policy_text(recorded["policy"]),
            recorded.get("default_mounts") or [],
            recorded.get("privileged_mounts") or [],
        )
    except (EngineError, LegacyError) as error:
        return {"name": name, "error": str(error)}
    try:
        run = _Run(session)
        return {"name": name, "calls": [run.call(call) for call in recorded.get("calls", [])]}
    finally:
        session.close()


class _Run:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._ledgers = Ledgers()
        self._saved: tuple[Any, Any] | None = None

    def call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        kind = call["kind"]
        if kind == "begin":
            self._saved = self._session.documents.store.snapshot(), self._ledgers.snapshot()
            return {}
        if kind == "end":
            if call.get("rollback") and self._saved is not None:
                self._session.documents.store.restore(self._saved[0])
                self._ledgers.keys = self._saved[1]
            self._saved = None
            return {}
        if kind == "extend_default_mounts":
            self._session.documents.extend_default_mounts(call["mounts"])
            return {}
        return self._shown(call, kind)

    def _shown(self, call: Mapping[str, Any], kind: str) -> dict[str, Any]:
        try:
            answer = self._answer(call, kind)
        except Refusal as refusal:
            answer = Answer(False, {}, {"decision": "deny", "reason": str(refusal)})
        digest = self._session.documents.store.digest()
        if answer.allowed:
            return {"allowed": True, "result": answer.result, "metadata": digest}
        shown = {key: value for key, value in answer.decision.items() if key != "input"}
        return {"allowed": False, "decision": shown, "metadata": digest}

    def _answer(self, call: Mapping[str, Any], kind: str) -> Answer:
        if kind == "enforce":
            return self._session.enforce(call["point"], call["input"])
        if kind == "load_fragment":
            svn, receipts = call.get("header_svn"), call.get("receipts") or []
            fragment = Fragment(call["issuer"], call["feed"], call["code"], svn, receipts)
            return load_fragment(self._session, fragment)
        if kind == "load_transparency_trust_list":
            keys = call.get("keys") or {}
            offered = TrustList(call["issuer"], call["subject"], call["svn"], keys)
            return load_trust_list(self._session, self._ledgers, offered)
        raise Refusal(f"no such kind of call: {kind}")


def replay_line(line: str) -> str:
    """Run the session in one line of JSON and return its answer as another.

    A line that is no session is answered with an error: those after it are run all the same.
    """
    try:
        answer = replay(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        answer = {"name": "", "error": f"the line is no session: {type(error).__name__}: {error}"[:300]}
    return json.dumps(answer, ensure_ascii=False)


def replay_lines(lines: Iterable[str]) -> Iterator[str]:
    """Run sessions one after the other."""
    return (replay_line(line) for line in lines if line.strip())
