"""What the plugin declares. Thin, because it is imported at every start of the daemon."""

from __future__ import annotations

from collections.abc import Iterable

from uvmd.api import Requirement, ResourceType, Verb, hookimpl


@hookimpl
def resource_types() -> Iterable[ResourceType]:
    """CombinedLayers: an overlay at a container's root."""
    return [
        ResourceType(
            "CombinedLayers",
            "uvmd_storage_overlay.combined:CombinedLayers",
            points={
                Verb.ADD: ("scratch_mount", "mount_overlay"),
                Verb.REMOVE: ("unmount_overlay",),
            },
        )
    ]


@hookimpl
def requirements() -> Iterable[Requirement]:
    """The kernel's part."""
    return [Requirement("filesystem", "overlay", "root filesystems made of layers")]
