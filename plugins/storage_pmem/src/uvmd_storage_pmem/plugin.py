"""What the plugin declares. Thin, because it is imported at every start of the daemon."""

from __future__ import annotations

from collections.abc import Iterable

from uvmd.api import Requirement, ResourceType, Verb, hookimpl


@hookimpl
def config_model() -> str:
    """Time limits, and how layers are mounted."""
    return "uvmd_storage_pmem.config:StoragePmemConfig"


@hookimpl
def resource_types() -> Iterable[ResourceType]:
    """A read-only layer in persistent memory, added and removed."""
    return [
        ResourceType(
            "VPMemDevice",
            "uvmd_storage_pmem.vpmem:VPMem",
            points={Verb.ADD: ("mount_device",), Verb.REMOVE: ("unmount_device",)},
        )
    ]


@hookimpl
def requirements() -> Iterable[Requirement]:
    """What regions need besides the device."""
    return [
        Requirement("filesystem", "ext4", "layers"),
        Requirement("dm-target", "verity", "layers with a hash tree"),
        Requirement("dm-target", "linear", "several layers on one device", optional=True),
    ]
