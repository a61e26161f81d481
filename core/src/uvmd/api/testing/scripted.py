"""An enforcer that answers by script: the way to a strict VM in tests. And envelopes without any."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from uvmd.api.envelopes import Fragment, LedgerKeys, TrustList
from uvmd.api.policy import Decision, Enforcer
from uvmd.errors import Refused

#: Some policy; the text does not matter to a script.
POLICY = base64.b64encode(b"package policy\n").decode()

#: What a script gives for a point: a decision (or something odd), an exception to raise,
#: or a function of the input that does either.
Answer = Decision | BaseException | bool | Callable[[Mapping[str, Any]], object] | object


class ScriptedEnforcer(Enforcer):
    """Accepts any policy that is not empty, and answers from ``script``.

    A point that the script does not name is allowed, unless ``otherwise`` says
    something else. ``True`` and ``False`` stand for the plain decisions. Every question is
    kept in ``asked``; ``metadata`` is what snapshot and restore are about.

    No distribution declares it and no configuration that is shipped names it: only a test
    that hands it to a gate as a factory can select it.
    """

    def __init__(
        self, text: str = POLICY, script: Mapping[str, Answer] | None = None, otherwise: Answer = True
    ) -> None:
        if not text:
            raise Refused("a scripted policy is not empty")
        self.text = text
        self.script: dict[str, Answer] = dict(script or {})
        self.otherwise = otherwise
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.fragments: list[Fragment | TrustList] = []
        self.metadata: dict[str, Any] = {}
        self.closed = False

    @property
    def points(self) -> list[str]:
        """The points that were asked, in order."""
        return [point for point, _ in self.asked]

    def decide(self, point: str, input: Mapping[str, Any]) -> Decision:
        self.asked.append((point, dict(input)))
        answer = self.script.get(point, self.otherwise)
        if isinstance(answer, bool):
            return Decision(answer, reason="" if answer else f"the script denies {point}")
        if callable(answer):
            answer = answer(input)
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[return-value]  # a test may script something odd

    def snapshot(self) -> object:
        return dict(self.metadata)

    def restore(self, snapshot: object) -> None:
        assert isinstance(snapshot, dict)
        self.metadata = dict(snapshot)

    def load_fragment(self, fragment: Fragment) -> None:
        self.fragments.append(fragment)

    def load_trust_list(self, trust_list: TrustList) -> None:
        self.fragments.append(trust_list)

    def close(self) -> None:
        self.closed = True


class PlainReader:
    """Takes any bytes for a valid envelope of one issuer; what begins with ``!`` is not valid."""

    def fragment(self, blob: bytes, keys: LedgerKeys) -> Fragment:
        self.reference_info(blob)
        return Fragment("did:x", "feed", blob.decode("latin-1"))

    def trust_list(self, blob: bytes) -> TrustList:
        self.reference_info(blob)
        return TrustList("did:x", "subject", 1, {blob.decode("latin-1"): {}})

    def reference_info(self, blob: bytes) -> None:
        if blob.startswith(b"!"):
            raise Refused("not valid")
