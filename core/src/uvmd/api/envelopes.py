"""What a signed envelope says once it was found to be valid, and who finds that out.

The order is the specification's (attestation.md 5): an artefact that a host injects is
read first, whatever policy is in force or none; then the enforcer is asked about what was
read. So no enforcer sees bytes that nobody signed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

#: The keys of transparency ledgers: ledger, key id, and the public key (DER in base64)
#: with the subjects of the trust lists that offered it.
LedgerKeys = Mapping[str, Mapping[str, tuple[str, tuple[str, ...]]]]


class Fragment(NamedTuple):
    """A piece of policy whose envelope is valid.

    ``issuer`` holds for the certificates in the envelope. ``svn`` is the signed header's,
    None where it has none. ``code`` is the payload; bytes that are no UTF-8 are surrogates.
    ``receipts`` are those that ledgers' keys have proven: ``{"issuer", "ttl_subjects"}``.
    """

    issuer: str
    feed: str
    code: str
    svn: int | None = None
    receipts: Sequence[Mapping[str, Any]] = ()

    def __repr__(self) -> str:
        return f"Fragment({self.issuer!r}, {self.feed!r}, svn={self.svn})"


class TrustList(NamedTuple):
    """Ledgers' public keys, whose envelope is valid: ledger, key id, DER in base64."""

    issuer: str
    subject: str
    svn: int
    keys: Mapping[str, Mapping[str, str]]


class EnvelopeReader(Protocol):
    """What a reference of ``envelope_readers`` makes, called with its environment.

    Called from several threads. Every method raises ``Refused`` for what is not valid; the
    text is the host's to see. Raising anything else refuses too.
    """

    def fragment(self, blob: bytes, keys: LedgerKeys) -> Fragment:
        """Read a fragment, and validate its receipts with the keys that are known."""

    def trust_list(self, blob: bytes) -> TrustList:
        """Read a transparency trust list."""

    def reference_info(self, blob: bytes) -> None:
        """Check the envelope of reference info, no more: its readers are the containers."""
