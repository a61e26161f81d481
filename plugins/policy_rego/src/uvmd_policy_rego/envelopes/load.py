"""From the bytes that a host sends to the policy's question (attestation.md 5): the door of this room."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from uvmd.errors import PolicyDenied
from uvmd_policy_rego.envelopes import receipts, trust_lists
from uvmd_policy_rego.envelopes.did_x509 import resolve
from uvmd_policy_rego.envelopes.envelope import Envelope, open_envelope
from uvmd_policy_rego.envelopes.errors import DidError, EnvelopeError, ReceiptError

log = logging.getLogger(__name__)

FRAGMENTS: Final = frozenset(("", "application/cose-x509+rego"))
TRUST_LIST: Final = "application/vnd.transparency-trust-list.v1+cose"
#: Kept for the containers, who check them; here only the envelope is looked at.
REFERENCE_INFO: Final = frozenset(
    ("application/vnd.tcb-reference-info.v1+cose", "application/vnd.platform-reference-info.v1+cose")
)
_LONGEST_REASON: Final = 1024
Keys = Mapping[str, Mapping[str, tuple[str, tuple[str, ...]]]]


class Policy(Protocol):
    """What is asked of the enforcer once an envelope is valid."""

    def load_validated_fragment(
        self,
        issuer: str,
        feed: str,
        code: str,
        header_svn: int | None,
        receipts: Sequence[Mapping[str, Any]],
    ) -> None:
        """Load a fragment."""

    def load_validated_trust_list(
        self, issuer: str, subject: str, svn: int, keys: Mapping[str, Mapping[str, str]]
    ) -> None:
        """Take a trust list's keys."""

    def ledger_keys(self) -> Keys:
        """Return the keys of ledgers, with the subjects whose lists offered them."""


def load(enforcer: Policy, blob: bytes, media_type: str) -> None:
    """Check a signed artefact and, if it is valid, offer what is in it to the policy.

    Raises:
        PolicyDenied: the artefact is not valid, or the policy does not take it.
    """
    try:
        envelope = open_envelope(blob)
    except EnvelopeError as error:
        raise PolicyDenied(f"InjectFragment failed COSE validation: {_short(error)}") from None
    if media_type in REFERENCE_INFO:
        return
    if media_type not in FRAGMENTS and media_type != TRUST_LIST:
        raise PolicyDenied(f'cannot inject fragment blob with unsupported media type "{media_type[:128]}"')
    if not envelope.issuer or not envelope.feed:
        raise PolicyDenied("either issuer and feed must both be provided in the COSE_Sign1 protected header")
    try:
        resolve(envelope.issuer, envelope.chain, envelope.paths)
    except DidError as error:
        raise PolicyDenied(f"failed to resolve DID: {_short(error)}") from None
    try:
        svn = envelope.svn()
    except EnvelopeError as error:
        raise PolicyDenied(_short(error)) from None
    if media_type == TRUST_LIST:
        _load_trust_list(enforcer, envelope, svn)
    else:
        _load_fragment(enforcer, envelope, svn)


def _short(error: EnvelopeError) -> str:
    """Return the reason; names in it may be as long as a stranger made them."""
    text = str(error)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"


def _load_trust_list(enforcer: Policy, envelope: Envelope, svn: int | None) -> None:
    if svn is None:
        raise PolicyDenied("transparency trust list is missing an SVN in its CWT claims")
    try:
        keys = trust_lists.parse_trust_list(envelope.payload)
    except EnvelopeError as error:
        raise PolicyDenied(f"failed to parse transparency trust list payload: {_short(error)}") from None
    enforcer.load_validated_trust_list(envelope.issuer, envelope.feed, svn, keys)


def _load_fragment(enforcer: Policy, envelope: Envelope, svn: int | None) -> None:
    proven = valid_receipts(envelope, enforcer.ledger_keys()) if envelope.receipts else []
    # Bytes that are no text reach the engine as such and fail there, after the issuer was judged.
    code = envelope.payload.decode("utf-8", "surrogateescape")
    enforcer.load_validated_fragment(envelope.issuer, envelope.feed, code, svn, proven)


def valid_receipts(envelope: Envelope, known: Keys) -> list[dict[str, Any]]:
    """Return what the envelope's valid receipts prove; the others count for nothing."""
    proven = []
    statement_hash = envelope.message.statement_hash()
    for number, receipt in enumerate(envelope.receipts):
        ledger = known.get(receipt.issuer)
        if ledger is None:
            continue
        keys = {kid: key for kid, (key, _) in ledger.items()}
        try:
            receipts.validate(receipt, keys, statement_hash)
        except ReceiptError as error:
            log.warning(
                "a receipt proves nothing, ignoring",
                extra={"receipt": number, "ledger": receipt.issuer, "error": _short(error)},
            )
            continue
        proven.append({"issuer": receipt.issuer, "ttl_subjects": list(ledger[receipt.kid][1])})
    return proven
