"""What the policy tools raise, below the root that ``uvmctl`` turns into one line."""

from __future__ import annotations

from uvmd.errors import UvmdError


class PolicyToolError(UvmdError):
    """A tool was given something that it cannot use; the text says what, and what to do."""
