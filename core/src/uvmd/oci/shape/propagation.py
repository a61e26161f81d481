"""How mounts that are made later reach a container."""

from __future__ import annotations

from typing import Any

_DEFAULT = "rslave"


def apply_propagation(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the specification with runc's default for the root's propagation written down.

    Hosts rely on it: what is mounted below a pod's directories reaches its workloads. crun's
    default is another one, with which nothing does.
    """
    linux = spec["linux"]
    if linux.get("rootfsPropagation"):
        return spec
    return {**spec, "linux": {**linux, "rootfsPropagation": _DEFAULT}}
