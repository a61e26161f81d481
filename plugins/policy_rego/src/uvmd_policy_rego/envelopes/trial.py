"""What a daemon would make of signed artefacts, tried on files: the same code, with or without a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uvmd.errors import PolicyDenied
from uvmd_policy_rego import denial
from uvmd_policy_rego.engine import EngineError
from uvmd_policy_rego.envelopes import load
from uvmd_policy_rego.envelopes.did_x509 import resolve
from uvmd_policy_rego.envelopes.envelope import open_envelope
from uvmd_policy_rego.envelopes.errors import DidError
from uvmd_policy_rego.fragments import load_fragment, load_trust_list, namespace_of
from uvmd_policy_rego.ledgers import Keys, Ledgers
from uvmd_policy_rego.legacy import LegacyError, policy_text
from uvmd_policy_rego.session import Answer, Refusal, Session


class Trial:
    """Stands in for an enforcer. Without a policy everything valid is taken.

    Raises:
        PolicyDenied: the policy cannot be loaded.
    """

    def __init__(self, policy: str | None = None) -> None:
        self._ledgers = Ledgers()
        self.seen: dict[str, Any] = {}
        try:
            self._session = None if policy is None else Session(policy_text(policy))
        except (EngineError, LegacyError) as error:
            raise PolicyDenied(f"the policy cannot be loaded: {error}") from None

    def offer(self, blob: bytes, media_type: str) -> dict[str, Any]:
        """Return what a daemon sees in an artefact that it takes.

        Raises:
            PolicyDenied: it does not take it; the text is the daemon's.
        """
        load.load(self, blob, media_type)
        if media_type in load.REFERENCE_INFO:
            self.seen = self._reference_info(blob)
        return self.seen

    def close(self) -> None:
        """Let the policy go."""
        if self._session is not None:
            self._session.close()

    def _reference_info(self, blob: bytes) -> dict[str, Any]:
        """Say of reference info what a daemon leaves to the workloads."""
        envelope = open_envelope(blob)
        try:
            resolve(envelope.issuer, envelope.chain, envelope.paths)
            holds = "holds"
        except DidError as error:
            holds = str(error)
        seen = {"kind": "reference info", "issuer": envelope.issuer, "feed": envelope.feed, "did": holds}
        return seen | {"receipts": load.valid_receipts(envelope, self.ledger_keys())}

    # What the loader asks of an enforcer

    def load_validated_fragment(
        self,
        issuer: str,
        feed: str,
        code: str,
        header_svn: int | None,
        receipts: Sequence[Mapping[str, Any]],
    ) -> None:
        """Note the fragment, and ask the policy if there is one."""
        self.seen = {
            "kind": "fragment",
            "issuer": issuer,
            "feed": feed,
            "svn": header_svn,
            "receipts": [dict(one) for one in receipts],
            "text": code.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        }
        if self._session is None:
            try:
                namespace_of(code)
            except Refusal as refusal:
                raise PolicyDenied(str(refusal)) from None
        else:
            session = self._session
            self._ask(
                "load_fragment", lambda: load_fragment(session, issuer, feed, code, header_svn, receipts)
            )

    def load_validated_trust_list(
        self, issuer: str, subject: str, svn: int, keys: Mapping[str, Mapping[str, str]]
    ) -> None:
        """Note the list and take its keys, of the ledgers that the policy allows if there is one."""
        ledgers = {ledger: sorted(offered) for ledger, offered in keys.items()}
        self.seen = {"kind": "trust list", "issuer": issuer, "feed": subject, "svn": svn, "ledgers": ledgers}
        if self._session is None:
            self._ledgers.merge(subject, keys)
            return
        session, known = self._session, self._ledgers
        self._ask(
            "load_transparency_trust_list",
            lambda: load_trust_list(session, known, issuer, subject, svn, keys),
        )

    def ledger_keys(self) -> Keys:
        """Return the keys that trust lists have brought."""
        return self._ledgers.snapshot()

    @staticmethod
    def _ask(point: str, question: Any) -> None:
        try:
            answer: Answer = question()
        except (Refusal, EngineError) as refusal:
            raise PolicyDenied(str(refusal)) from None
        if not answer.allowed:
            # The sentence; the document behind it is for hosts.
            raise PolicyDenied(denial.message(answer.decision, point).partition(" policyDecision< ")[0])
