"""The namespaces of a container that uses the VM's own network (spec containers.md 8)."""

from __future__ import annotations

from typing import Any


def drop_network_namespace(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the specification without a network namespace: the runtime leaves it in the VM's."""
    linux = spec["linux"]
    kept = [entry for entry in linux.get("namespaces", ()) if entry.get("type") != "network"]
    return {**spec, "linux": {**linux, "namespaces": kept}}
