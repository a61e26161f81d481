"""Security policies: loaded, asked and extended, policyd's socket included, by their size."""

from __future__ import annotations

import sys
from pathlib import Path

from report import Figure

PLUGIN = Path(__file__).parents[2] / "plugins" / "policy_rego" / "bench"


def by_size(quick: bool) -> list[Figure]:
    """Every bar of every size."""
    sys.path.insert(0, str(PLUGIN))
    import decisions

    found: list[Figure] = decisions.sections(quick, Figure)
    return found


def fragments_by_size(quick: bool) -> list[Figure]:
    """Signed fragments, from the message on the bridge to its answer."""
    sys.path.insert(0, str(PLUGIN))
    import fragments

    found: list[Figure] = fragments.sections(quick, Figure)
    return found
