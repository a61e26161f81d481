"""Hypothesis' settings; the rules and fixtures of all tests are in ``support/``."""

from __future__ import annotations

from pathlib import Path

from hypothesis import settings
from hypothesis.database import DirectoryBasedExampleDatabase

settings.register_profile(
    "house",
    # The machine is shared and has two cores; slowness is measured in tests/bench, not here.
    deadline=None,
    database=DirectoryBasedExampleDatabase(Path(__file__).parent.parent / ".cache" / "hypothesis"),
    print_blob=True,
)
settings.load_profile("house")
