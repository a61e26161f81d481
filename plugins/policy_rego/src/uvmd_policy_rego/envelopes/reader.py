"""From the bytes that a host sends to what they say (attestation.md 5): the door of this room."""

from __future__ import annotations

import logging
from typing import Any, Final

from uvmd.api import Environment, Fragment, LedgerKeys, TrustList
from uvmd.errors import Refused
from uvmd_policy_rego.envelopes import receipts, trust_lists
from uvmd_policy_rego.envelopes.did_x509 import resolve
from uvmd_policy_rego.envelopes.envelope import Envelope, open_envelope
from uvmd_policy_rego.envelopes.errors import DidError, EnvelopeError, ReceiptError

log = logging.getLogger(__name__)

_LONGEST_REASON: Final = 1024


class Reader:
    """Reads envelopes for the daemon and for the tools; it needs and keeps nothing."""

    def __init__(self, env: Environment | None = None) -> None:
        pass

    def fragment(self, blob: bytes, keys: LedgerKeys) -> Fragment:
        """Read a fragment.

        Raises:
            Refused: it is not valid.
        """
        envelope, svn = _signed(blob)
        # Bytes that are no text reach the engine as such and fail there, after the issuer was judged.
        code = envelope.payload.decode("utf-8", "surrogateescape")
        return Fragment(envelope.issuer, envelope.feed, code, svn, valid_receipts(envelope, keys))

    def trust_list(self, blob: bytes) -> TrustList:
        """Read a transparency trust list.

        Raises:
            Refused: it is not valid.
        """
        envelope, svn = _signed(blob)
        if svn is None:
            raise Refused("transparency trust list is missing an SVN in its CWT claims")
        try:
            keys = trust_lists.parse_trust_list(envelope.payload)
        except EnvelopeError as error:
            raise Refused(f"failed to parse transparency trust list payload: {_short(error)}") from None
        return TrustList(envelope.issuer, envelope.feed, svn, keys)

    def reference_info(self, blob: bytes) -> None:
        """Check that the envelope opens.

        Raises:
            Refused: it does not.
        """
        _opened(blob)


def _opened(blob: bytes) -> Envelope:
    try:
        return open_envelope(blob)
    except EnvelopeError as error:
        raise Refused(f"InjectFragment failed COSE validation: {_short(error)}") from None


def _signed(blob: bytes) -> tuple[Envelope, int | None]:
    """Open an envelope whose issuer must hold for its chain; also return its SVN."""
    envelope = _opened(blob)
    if not envelope.issuer or not envelope.feed:
        raise Refused("either issuer and feed must both be provided in the COSE_Sign1 protected header")
    try:
        resolve(envelope.issuer, envelope.chain, envelope.paths)
    except DidError as error:
        raise Refused(f"failed to resolve DID: {_short(error)}") from None
    try:
        return envelope, envelope.svn()
    except EnvelopeError as error:
        raise Refused(_short(error)) from None


def _short(error: EnvelopeError) -> str:
    """Return the reason; names in it may be as long as a stranger made them."""
    text = str(error)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"


def valid_receipts(envelope: Envelope, known: LedgerKeys) -> list[dict[str, Any]]:
    """Return what the envelope's valid receipts prove; the others count for nothing."""
    proven: list[dict[str, Any]] = []
    if not envelope.receipts:
        return proven
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
