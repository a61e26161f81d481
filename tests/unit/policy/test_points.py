"""Every enforcement point of the specification, and the one place that asks it (policy.md 6.2)."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from uvmd.api.names import EXEMPT, POINTS
from uvmd.policy.stances import CLOSED

ROOT = Path(__file__).parents[3]
OPERATIONS = "core/src/uvmd/host/operations"
#: Where each point is asked. A point that moves, or is asked twice, is looked at again.
ASKED_IN = {
    "create_container": {f"{OPERATIONS}/planning.py"},
    "host_network": {f"{OPERATIONS}/planning.py"},
    "exec_in_container": {f"{OPERATIONS}/exec.py"},
    "exec_external": {f"{OPERATIONS}/external.py"},
    "signal_container_process": {f"{OPERATIONS}/signal.py"},
    "shutdown_container": {f"{OPERATIONS}/signal.py"},
    "get_properties": {f"{OPERATIONS}/properties.py"},
    "dump_stacks": {f"{OPERATIONS}/stacks.py"},
    "runtime_logging": {"core/src/uvmd/policy/gate.py"},
    "mount_device": {
        "plugins/storage_scsi/src/uvmd_storage_scsi/virtual_disk.py",
        "plugins/storage_pmem/src/uvmd_storage_pmem/vpmem.py",
    },
    "unmount_device": {
        "plugins/storage_scsi/src/uvmd_storage_scsi/virtual_disk.py",
        "plugins/storage_pmem/src/uvmd_storage_pmem/vpmem.py",
    },
    "rw_mount_device": {"plugins/storage_scsi/src/uvmd_storage_scsi/virtual_disk.py"},
    "rw_unmount_device": {"plugins/storage_scsi/src/uvmd_storage_scsi/virtual_disk.py"},
    "mount_blockdev": {"plugins/storage_scsi/src/uvmd_storage_scsi/virtual_disk.py"},
    "unmount_blockdev": {"plugins/storage_scsi/src/uvmd_storage_scsi/virtual_disk.py"},
    "scratch_mount": {"plugins/storage_overlay/src/uvmd_storage_overlay/combined.py"},
    "mount_overlay": {"plugins/storage_overlay/src/uvmd_storage_overlay/combined.py"},
    "unmount_overlay": {"plugins/storage_overlay/src/uvmd_storage_overlay/combined.py"},
    "plan9_mount": {"plugins/plan9/src/uvmd_plan9/directory.py"},
    "plan9_unmount": {"plugins/plan9/src/uvmd_plan9/directory.py"},
    # Inside of the enforcer, once an envelope is valid.
    "load_fragment": {"plugins/policy_rego/src/uvmd_policy_rego/fragments.py"},
    "load_transparency_trust_list": {"plugins/policy_rego/src/uvmd_policy_rego/fragments.py"},
    # A third party's own; core fills in what it is about.
    "modify_resource": {"core/src/uvmd/host/modify.py"},
    # The reference never asks it: a scratch path is used once in the life of a VM.
    "scratch_unmount": set(),
}
_ASKING = frozenset(("ask", "decide", "enforce", "Question"))


def _name(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _points_in(tree: ast.AST) -> set[str]:
    """Texts that are points, in the file of something that asks."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return {text for text in texts if isinstance(text, str)} & POINTS


def asked() -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    rooms = [ROOT / "core/src/uvmd", *ROOT.glob("plugins/*/src")]
    for path in (path for room in rooms for path in room.rglob("*.py") if "testing" not in path.parts):
        tree = ast.parse(path.read_text())
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _name(node) in _ASKING]
        if not calls:
            continue
        where = str(path.relative_to(ROOT))
        for call in calls:
            first = call.args[0] if call.args else None
            named = isinstance(first, ast.Name) and first.id in ("point", "MODIFY_RESOURCE")
            points = _points_in(first) if first is not None else set()
            if named and isinstance(first, ast.Name) and first.id == "MODIFY_RESOURCE":
                points = {"modify_resource"}
            elif named:
                points = _points_in(tree)
            for point in points:
                found[point].add(where)
    return found


def test_every_point_is_asked_where_the_specification_says() -> None:
    found = asked()
    for point, places in ASKED_IN.items():
        assert places <= found[point], point
    # The tools and the enforcer name points in order to pass them on; nobody else does.
    passing_on = {"core/src/uvmd/policy/gate.py"}
    for point, places in found.items():
        others = {place for place in places if not place.startswith("plugins/policy_rego/")}
        assert others - passing_on <= ASKED_IN[point], point


def test_the_table_is_whole() -> None:
    assert set(ASKED_IN) == POINTS == set(CLOSED)


def test_what_asks_nothing_has_its_reason_beside_it() -> None:
    assert all(len(reason) > 20 for reason in EXEMPT.values())
