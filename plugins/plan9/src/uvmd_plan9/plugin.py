"""What the plugin declares. Thin, because it is imported at every start of the daemon."""

from __future__ import annotations

from collections.abc import Iterable

from uvmd.api import Requirement, ResourceType, Verb, hookimpl


@hookimpl
def config_model() -> str:
    """How long the host's server may take."""
    return "uvmd_plan9.config:Plan9Config"


@hookimpl
def resource_types() -> Iterable[ResourceType]:
    """MappedDirectory: a 9p share of the host, mounted."""
    return [
        ResourceType(
            "MappedDirectory",
            "uvmd_plan9.directory:MappedDirectory",
            points={Verb.ADD: ("plan9_mount",), Verb.REMOVE: ("plan9_unmount",)},
        )
    ]


@hookimpl
def requirements() -> Iterable[Requirement]:
    """A client for the host's server."""
    return [
        Requirement("filesystem", "9p", "shared folders"),
        Requirement("program", "mount", "shared folders, in a process that can be killed"),
    ]
