"""Where a container lives: its cgroup, and what only another operating system reads."""

from __future__ import annotations

from typing import Any, Final

_ENDLESS: Final = (("cpu", "quota"), ("pids", "limit"))


def apply_cgroup_path(spec: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the specification with the cgroup that the guest chooses."""
    return {**spec, "linux": {**spec["linux"], "cgroupsPath": path}}


def drop_windows(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the specification without the section that the runtime must not see."""
    return {key: part for key, part in spec.items() if key != "windows"}


def apply_endless_limits(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the specification without limits that are none.

    Hosts send a CPU quota of -1 with every container. A new cgroup has no limit anyway, and crun
    (1.8) writes these numbers as they are, or without their sign, which the kernel refuses.
    """
    linux = spec["linux"]
    resources = linux.get("resources", {})
    rest, endless = split_endless(resources)
    return {**spec, "linux": {**linux, "resources": rest}} if endless else spec


def split_endless(resources: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the resources without the limits that crun cannot lift, and those limits alone."""
    rest, endless = dict(resources), {}
    for section, key in _ENDLESS:
        value = resources.get(section, {}).get(key)
        if value is not None and value < 0:
            rest[section] = {name: one for name, one in resources[section].items() if name != key}
            endless[section] = {key: -1}
    return rest, endless
