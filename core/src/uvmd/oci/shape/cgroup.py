"""Where a container lives: its cgroup, and what only another operating system reads."""

from __future__ import annotations

from typing import Any


def apply_cgroup_path(spec: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the specification with the cgroup that the guest chooses."""
    return {**spec, "linux": {**spec["linux"], "cgroupsPath": path}}


def drop_windows(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the specification without the section that the runtime must not see."""
    return {key: part for key, part in spec.items() if key != "windows"}
