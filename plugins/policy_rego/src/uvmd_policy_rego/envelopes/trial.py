"""What a daemon would make of signed artefacts, tried on files: the same code, with or without a policy."""

from __future__ import annotations

from typing import Any

from uvmd.errors import PolicyDenied
from uvmd_policy_rego import denial
from uvmd_policy_rego.engine import EngineError
from uvmd_policy_rego.envelopes.did_x509 import resolve
from uvmd_policy_rego.envelopes.envelope import open_envelope
from uvmd_policy_rego.envelopes.errors import DidError
from uvmd_policy_rego.envelopes.reader import Reader, valid_receipts
from uvmd_policy_rego.fragments import load_fragment, load_trust_list, namespace_of
from uvmd_policy_rego.ledgers import Ledgers
from uvmd_policy_rego.legacy import LegacyError, policy_text
from uvmd_policy_rego.session import Answer, Refusal, Session


class Trial:
    """Stands in for a daemon. Without a policy everything valid is taken.

    Each kind of artefact has a method that returns what a daemon sees in one that it takes,
    and raises ``Refused`` with the daemon's text for one that it does not take.

    Raises:
        PolicyDenied: the policy cannot be loaded.
    """

    def __init__(self, policy: str | None = None) -> None:
        self._reader = Reader()
        self._ledgers = Ledgers()
        try:
            self._session = None if policy is None else Session(policy_text(policy))
        except (EngineError, LegacyError) as error:
            raise PolicyDenied(f"the policy cannot be loaded: {error}") from None

    def close(self) -> None:
        """Let the policy go."""
        if self._session is not None:
            self._session.close()

    def fragment(self, blob: bytes) -> dict[str, Any]:
        """Offer a fragment."""
        found = self._reader.fragment(blob, self._ledgers.keys)
        if self._session is None:
            try:
                namespace_of(found.code)
            except Refusal as refusal:
                raise PolicyDenied(str(refusal)) from None
        else:
            session = self._session
            self._ask("load_fragment", lambda: load_fragment(session, found))
        return {
            "kind": "fragment",
            "issuer": found.issuer,
            "feed": found.feed,
            "svn": found.svn,
            "receipts": found.receipts,
            "text": found.code.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        }

    def trust_list(self, blob: bytes) -> dict[str, Any]:
        """Offer a trust list; its keys count from now on, of the ledgers that the policy allows if any."""
        found = self._reader.trust_list(blob)
        if self._session is None:
            self._ledgers.merge(found.subject, found.keys)
        else:
            session = self._session
            self._ask("load_transparency_trust_list", lambda: load_trust_list(session, self._ledgers, found))
        return {
            "kind": "trust list",
            "issuer": found.issuer,
            "feed": found.subject,
            "svn": found.svn,
            "ledgers": {ledger: sorted(offered) for ledger, offered in found.keys.items()},
        }

    def reference_info(self, blob: bytes) -> dict[str, Any]:
        """Offer reference info; what a daemon leaves to the workloads is said as well."""
        self._reader.reference_info(blob)
        envelope = open_envelope(blob)
        try:
            resolve(envelope.issuer, envelope.chain, envelope.paths)
            holds = "holds"
        except DidError as error:
            holds = str(error)
        seen = {"kind": "reference info", "issuer": envelope.issuer, "feed": envelope.feed, "did": holds}
        return seen | {"receipts": valid_receipts(envelope, self._ledgers.keys)}

    @staticmethod
    def _ask(point: str, question: Any) -> None:
        try:
            answer: Answer = question()
        except (Refusal, EngineError) as refusal:
            raise PolicyDenied(str(refusal)) from None
        if not answer.allowed:
            # The sentence; the document behind it is for hosts.
            raise PolicyDenied(denial.message(answer.decision, point).partition(" policyDecision< ")[0])
