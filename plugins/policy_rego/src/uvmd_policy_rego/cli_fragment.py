"""``uvmctl policy fragment``: signed fragments, made, checked and looked at."""

from __future__ import annotations

import click


@click.group()
def fragment() -> None:
    """Sign fragments of policies, check them as a daemon would, look into them."""
