"""Device nodes for a container, and the rules that let it use them (spec containers.md 7.5, 7.6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from uvmd.linux.devices import DeviceNode

Rule = dict[str, Any]

_NOTHING: Final = {"allow": False, "access": "rwm"}


def apply_denial(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the specification with rules that begin by allowing nothing.

    Hosts send none at all, and crun then lets the container use every device whose node it makes.
    Both runtimes allow the usual ones (null, zero, random, terminals) after the rules given.
    """
    linux = spec["linux"]
    resources = linux.get("resources", {})
    rules = resources.get("devices", ())
    if rules and rules[0] == _NOTHING:
        return spec
    return {**spec, "linux": {**linux, "resources": {**resources, "devices": [_NOTHING, *rules]}}}


def apply_privileged(spec: dict[str, Any], nodes: Iterable[DeviceNode]) -> dict[str, Any]:
    """Return the specification with all the nodes and one rule that allows everything."""
    spec = apply_nodes(spec, nodes, access="")
    linux = spec["linux"]
    resources = {**linux.get("resources", {}), "devices": [{"allow": True, "access": "rwm"}]}
    return {**spec, "linux": {**linux, "resources": resources}}


def apply_nodes(spec: dict[str, Any], nodes: Iterable[DeviceNode], access: str = "rwm") -> dict[str, Any]:
    """Return the specification with the nodes, and a rule for each unless ``access`` is empty.

    A node takes the place of an entry of the same path; one without a number is left out.
    """
    linux = spec["linux"]
    entries = {entry.get("path"): entry for entry in linux.get("devices", ())}
    rules = []
    for node in nodes:
        if node.major or node.minor:
            entries[node.path] = _entry(node)
            if access:
                rules.append(rule(node.type, node.major, node.minor, access))
    return allow({**spec, "linux": {**linux, "devices": list(entries.values())}}, rules)


def allow(spec: dict[str, Any], rules: Sequence[Rule]) -> dict[str, Any]:
    """Return the specification with rules appended: the last one that fits decides."""
    if not rules:
        return spec
    linux = spec["linux"]
    resources = linux.get("resources", {})
    return {
        **spec,
        "linux": {**linux, "resources": {**resources, "devices": [*resources.get("devices", ()), *rules]}},
    }


def rule(kind: str, major: int, minor: int, access: str) -> Rule:
    """Return a rule of the device cgroup for one device."""
    return {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}


def host_paths(spec: dict[str, Any]) -> list[str]:
    """Return the paths of the devices that the host lists."""
    return [entry.get("path", "") for entry in spec["linux"].get("devices", ())]


def _entry(node: DeviceNode) -> dict[str, Any]:
    return {
        "path": node.path,
        "type": node.type,
        "major": node.major,
        "minor": node.minor,
        "uid": node.uid,
        "gid": node.gid,
    }
