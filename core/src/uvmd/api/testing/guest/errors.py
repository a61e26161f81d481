"""What can go wrong with a guest, as exceptions whose text is the whole story."""

from __future__ import annotations


class GuestError(AssertionError):
    """Something in the guest, or of the guest, is not as the test needs it."""


class GuestHung(GuestError):
    """A deadline passed. The guest was killed; the text shows the end of its console."""


class CommandFailed(GuestError):
    """A shell command in the guest ended with another status than 0, or raised."""
