"""What the reasons of a denial mean, and what the enforcement points are about, in plain words."""

from __future__ import annotations

#: What was asked for, by enforcement point.
ASKED = {
    "create_container": "creating container",
    "exec_in_container": "starting a process in container",
    "exec_external": "starting a process in the VM:",
    "shutdown_container": "shutting down container",
    "signal_container_process": "a signal to a process of container",
    "mount_device": "mounting a read-only disk at",
    "rw_mount_device": "mounting a writable disk at",
    "mount_blockdev": "handing out a block device at",
    "unmount_device": "unmounting the read-only disk at",
    "rw_unmount_device": "unmounting the writable disk at",
    "unmount_blockdev": "taking back the block device at",
    "mount_overlay": "putting together the root of container",
    "unmount_overlay": "taking apart the root at",
    "plan9_mount": "mounting a shared directory at",
    "plan9_unmount": "unmounting the shared directory at",
    "scratch_mount": "using a scratch disk at",
    "scratch_unmount": "giving up the scratch disk at",
    "get_properties": "looking at properties of containers",
    "dump_stacks": "a dump of the agent's stacks",
    "runtime_logging": "logging by the agent",
    "host_network": "the VM's own network for a container",
    "load_fragment": "loading the fragment of",
    "load_transparency_trust_list": "loading the trust list of",
    "modify_resource": "changing a resource of type",
}

_BEGINS = {
    "invalid command": "No container that this could be has this command, argument by argument.",
    "invalid env list": "These variables match no rule of any container that this could be, and the policy "
    "does not let them be dropped.",
    "missing required environment variable": "The policy has rules that are required and that no variable "
    "of the request matches.",
    "invalid working directory": "No container that this could be starts in this directory.",
    "invalid mount list": "These mounts are not described: type, source, destination and options must agree.",
    "invalid noNewPrivileges": "The policy wants noNewPrivileges, and the request has it off.",
    "invalid user": "User, groups or umask are not those of any container that this could be.",
    "invalid seccomp": "The seccomp profile has another hash than the policy names.",
    "devices not supported": "A policy never allows devices that a host puts into a container.",
    "privileged escalation not allowed": "The container is to be privileged, and none that it could be has "
    "allow_elevated.",
    "capabilities don't match": "All five sets must be exactly those that the policy lists.",
    "containers only distinguishable by capabilties": "Several containers fit, and with capabilities "
    "dropped they would have different ones: the policy is ambiguous.",
    "containers only distinguishable by allow_stdio_access": "Several containers fit, and only some may "
    "have streams: the policy is ambiguous.",
    "external processes only distinguishable by allow_stdio_access": "Several processes fit, and only some "
    "may have streams: the policy is ambiguous.",
    "container already started": "An id is used once in the life of a VM, also by a container that failed.",
    "container not started": "There is no such container that the policy has let start.",
    "overlay has already been mounted": "The id has a root already, or had one.",
    "no matching containers for overlay": "No container consists of just these layers in this order; a layer "
    "whose mount was denied or undone counts as missing.",
    "no overlay at path to unmount": "There is no root at this path.",
    "deviceHash not found": "No container of the policy or of a loaded fragment has a layer with this hash: "
    "the disk is another one, or the fragment that names it was not loaded.",
    "device already mounted at path": "Something is mounted there already.",
    "mountpoint invalid": "Disks of this kind are mounted at other paths.",
    "no device at path to unmount": "Nothing is mounted there.",
    "received read-only unmount request": "The disk was mounted writable.",
    "received read-write unmount request": "The disk was mounted read-only.",
    "unencrypted scratch not allowed": "Writable disks must be encrypted: allow_unencrypted_scratch is off.",
    "ensureFilesystem must be set": "A writable disk must be one that the VM itself formats.",
    "rw device mounts uses a filesystem": "Writable disks are ext4 or xfs.",
    "blockdev mounts are not supported": "No policy of the framework hands out block devices.",
    "scratch already mounted at path": "A scratch path is used once in the life of a VM.",
    "no scratch at path to unmount": "Nothing uses this scratch path.",
    "target isn't allowed to receive the signal": "The process has no such signal in its list.",
    "invalid fragment issuer": "The policy imports nothing of this issuer, or its parent was not loaded.",
    "invalid fragment feed": "The policy imports from this issuer, but not this feed.",
    "fragment svn is below the specified minimum": "The fragment is older than the policy wants.",
    "fragment svn and the specified minimum are different types": "A number never compares with a version "
    "like 1.0.0.",
    "svn in header": "The envelope and the text of the fragment disagree on its version.",
    "missing fragment svn in either header or rego payload": "The fragment says nowhere which version it is.",
    "missing receipt from": "The fragment was not entered in a ledger that the policy asks for.",
    "fragment framework_version is": "The fragment is written for another framework than this VM has.",
    "framework_version is missing": "The policy does not say for which framework it is written, so none of "
    "its containers counts.",
    "framework_version is ahead": "The policy is for a newer framework, so none of its containers counts.",
    "no TTL candidate matches": "The policy lists no such issuer and subject, or wants a newer list.",
    "The provided TTL does not contain any ledgers": "The list has no ledger that the policy lists.",
    "rule for": "The policy's API version has this enforcement point and the policy does not define it.",
    "policy does not define api_version": "Without api_version a policy denies everything.",
    "enforcement point rule": "The policy's API version does not fit this enforcement point.",
    "eval_conflict_error": "Two rules of the policy give different answers to one question.",
    "unable to find value for key 'allowed'": "The policy's rule answers without saying allowed.",
    "value for 'allowed' is not a boolean": "The policy's rule says neither true nor false.",
}

#: For denials without any reason: what it must have been.
_SILENT = {
    "get_properties": "The policy has allow_properties_access off.",
    "dump_stacks": "The policy has allow_dump_stacks off.",
    "runtime_logging": "The policy has allow_runtime_logging off.",
    "host_network": "The policy has allow_host_network off.",
    "plan9_mount": "The path is not MOUNTS/mN below a container whose root was mounted.",
    "load_fragment": "With a version in the envelope: it is below the minimum of the import.",
    "create_container": "What the policy pins is missing from its description of the container, or it fits "
    "only with what several containers allow together.",
    "modify_resource": "The policy has no rule modify_resource that allows this.",
}


def meaning(point: str, error: str) -> str:
    """Say what a reason means; an empty one is no reason at all."""
    if not error:
        return _SILENT.get(point, "")
    for begin, words in _BEGINS.items():
        if error.startswith(begin):
            return words
    return next((words for begin, words in _BEGINS.items() if begin in error), "")
