"""Names that belong to the protocol, and what holds for some of them.

A resource type of the protocol has a plain name and comes from core or from one known
distribution. A third party's has its domain in front (``example.com/Ramdisk``), so no
``pip install`` can slip itself under a name that a host sends and a policy knows.
"""

from __future__ import annotations

from collections.abc import Mapping

#: The distribution that provides each resource type of the protocol.
PROVIDED_BY: Mapping[str, str] = {
    "ContainerConstraints": "uvmd",
    "PodCgroupMemoryLimit": "uvmd",
    "SecurityPolicy": "uvmd",
    "SecurityPolicyFragment": "uvmd",
    "SCSIDevice": "uvmd-storage-scsi",
    "MappedVirtualDisk": "uvmd-storage-scsi",
    "VPMemDevice": "uvmd-storage-pmem",
    "CombinedLayers": "uvmd-storage-overlay",
    "MappedDirectory": "uvmd-plan9",
    "Network": "uvmd-network",
    "VPCIDevice": "uvmd-vpci",
}

#: Resource types whose plans ask nothing, and why each may. Unmodified hosts send them
#: and no existing policy knows a point for them, so a question would deny every pod.
EXEMPT: Mapping[str, str] = {
    "Network": "hosts attach adapters before a policy could tell pods apart; a workload must encrypt anyway",
    "VPCIDevice": "only waits for a device to appear; what uses it is in create_container's own question",
    "SCSIDevice": "only unplugs a disk, and is refused while a claim holds the LUN",
    "ContainerConstraints": "moves limits of a running container; strict: memory, cpu and pids, nothing else",
    "PodCgroupMemoryLimit": "sets the limit that follows from the VM's memory; carries nothing of the host's",
    "SecurityPolicy": "sets the policy that would be asked; guarded by host data, and once",
    "SecurityPolicyFragment": "asks inside: the enforcer decides by issuer, feed and version",
}

#: The one point that a third party's type asks.
MODIFY_RESOURCE = "modify_resource"

#: Every enforcement point there is on Linux: those of the reference and ours.
POINTS = frozenset(
    (
        "create_container",
        "dump_stacks",
        "exec_external",
        "exec_in_container",
        "get_properties",
        "host_network",
        "load_fragment",
        "load_transparency_trust_list",
        MODIFY_RESOURCE,
        "mount_blockdev",
        "mount_device",
        "mount_overlay",
        "plan9_mount",
        "plan9_unmount",
        "runtime_logging",
        "rw_mount_device",
        "rw_unmount_device",
        "scratch_mount",
        "scratch_unmount",
        "shutdown_container",
        "signal_container_process",
        "unmount_blockdev",
        "unmount_device",
        "unmount_overlay",
    )
)


def is_protocol_name(name: str) -> bool:
    """Tell whether only the protocol may use a name like this: it has no domain."""
    return "/" not in name
