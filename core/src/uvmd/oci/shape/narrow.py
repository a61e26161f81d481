"""What the policy left of a process: kept environment and capabilities."""

from __future__ import annotations

from typing import Any

from uvmd.api.policy import Decision


def apply_decision(process: dict[str, Any], decision: Decision) -> dict[str, Any]:
    """Return the process with what the decision narrows; None in it leaves the process's own."""
    narrowed = dict(process)
    if decision.env is not None:
        narrowed["env"] = list(decision.env)
    if decision.capabilities is not None:
        narrowed["capabilities"] = {name: list(kept) for name, kept in decision.capabilities.items()}
    return narrowed
