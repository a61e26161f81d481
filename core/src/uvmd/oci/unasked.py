"""What of a specification no policy is asked about, and a strict VM takes from no host.

Who shapes a container later may still add it: that is the VM's own doing.
"""

from __future__ import annotations

from typing import Any, Final

# Interfaces of the VM that would move; ids that decide whose files the user is that was asked about.
_LINUX: Final = frozenset({"netDevices", "uidMappings", "gidMappings"})
_MOUNT: Final = frozenset({"uidMappings", "gidMappings"})
# Half of what "privileged" means. Hosts send none.
_RESOURCES: Final = frozenset({"devices"})


def drop_unasked(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the specification without the fields that would do more than was asked about."""
    linux = _without(spec["linux"], _LINUX)
    if "resources" in linux:
        linux["resources"] = _without(linux["resources"], _RESOURCES)
    spec = {**spec, "linux": linux, "process": raise_oom_score(spec["process"])}
    if "mounts" in spec:
        spec["mounts"] = [_without(mount, _MOUNT) for mount in spec["mounts"]]
    return spec


def raise_oom_score(process: dict[str, Any]) -> dict[str, Any]:
    """Return the process with an OOM score of at least 0, which is that of the policy's process.

    Short of memory the kernel would otherwise kill the one that decides before the one that eats.
    Hosts do send less (-997 for a guaranteed pod), so it is no reason to refuse.
    """
    score = process.get("oomScoreAdj")
    return {**process, "oomScoreAdj": 0} if score is not None and score < 0 else process


def _without(fields: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}
