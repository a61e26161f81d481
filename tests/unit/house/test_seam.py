"""The fault injection stands before every call of a storage handler that can fail."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from support import machine
from uvmd.api.testing import faults

PLUGINS = ("storage_scsi", "storage_pmem", "storage_overlay", "plan9", "vpci")
LINUX = machine.ROOT / "core" / "src" / "uvmd" / "linux"
#: Cannot fail, or nothing that a test could make of it.
SAFE = {"close", "closerange", "fsdecode", "fsencode", "major", "makedev", "minor", "strerror", "sysconf"}
SAFE |= {"uname", "urandom"}
#: A wait for events falls back on polling, which is tested in test_uevents.py.
WITHOUT = {"uevents"}


def trees() -> Iterator[ast.Module]:
    """The modules of the plugins, and those of ``linux`` that they reach."""
    queue = [path for name in PLUGINS for path in (machine.ROOT / "plugins" / name / "src").rglob("*.py")]
    seen = set(queue)
    while queue:
        tree = ast.parse(queue.pop().read_text())
        yield tree
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("uvmd.linux"):
                names = [node.module.rpartition(".")[2], *(alias.name for alias in node.names)]
                found = {LINUX / f"{name}.py" for name in names if name not in WITHOUT} - seen
                new = [path for path in found if path.exists()]
                seen.update(new)
                queue += new


def called(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "os":
                yield node.func.attr


def test_every_call_of_a_storage_handler_can_be_made_to_fail() -> None:
    used = {name for tree in trees() for name in called(tree)}
    assert len(used) > 20
    assert used - SAFE - set(faults.OS) == set()
