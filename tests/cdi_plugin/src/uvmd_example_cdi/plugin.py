"""What the plugin declares. Thin, because it is imported at every start of the daemon."""

from __future__ import annotations

from collections.abc import Iterable

from uvmd.api import Named, hookimpl


@hookimpl
def config_model() -> str:
    """Where the files are."""
    return "uvmd_example_cdi.config:CdiConfig"


@hookimpl
def container_shapers() -> Iterable[Named]:
    """One shaper."""
    return [Named("cdi", "uvmd_example_cdi.shaper:CdiShaper")]
