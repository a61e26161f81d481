"""What is wrong with a signed artefact. ``load`` turns it into a denial."""

from __future__ import annotations


class EnvelopeError(ValueError):
    """It is not what it should be; the text says what was looked at and what was found."""


class CborError(EnvelopeError):
    """The bytes are no CBOR, or CBOR of a kind that is not taken here."""


class ChainError(EnvelopeError):
    """A certificate cannot be read, or no path leads from the leaf to the last one."""


class DidError(EnvelopeError):
    """The did:x509 cannot be read, or does not hold for the chain."""


class ReceiptError(EnvelopeError):
    """A receipt cannot be read, or proves nothing."""


class TrustListError(EnvelopeError):
    """The payload is no list of ledgers' keys."""
