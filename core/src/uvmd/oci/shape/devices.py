"""Every device of the VM for a privileged container (spec containers.md 7.5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from uvmd.linux.devices import DeviceNode


def apply_privileged(spec: dict[str, Any], nodes: Iterable[DeviceNode]) -> dict[str, Any]:
    """Return the specification with all the nodes and one rule that allows everything."""
    linux = spec["linux"]
    devices = {entry.get("path"): entry for entry in linux.get("devices", ())}
    for node in nodes:
        if node.major or node.minor:
            devices[node.path] = _entry(node)
    resources = {**linux.get("resources", {}), "devices": [{"allow": True, "access": "rwm"}]}
    return {**spec, "linux": {**linux, "devices": list(devices.values()), "resources": resources}}


def _entry(node: DeviceNode) -> dict[str, Any]:
    return {
        "path": node.path,
        "type": node.type,
        "major": node.major,
        "minor": node.minor,
        "uid": node.uid,
        "gid": node.gid,
    }
