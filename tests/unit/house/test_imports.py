"""Who may import whom: the one table of the design, held to."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CORE = ROOT / "core" / "src" / "uvmd"
ROOMS = {path.stem for path in CORE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
ROOMS -= {"__init__", "__main__"}
FLOOR = {"api", "errors"}

#: A room and what of ours it may import, beside itself; a dotted name is one module of a room.
TABLE: dict[str, set[str]] = {
    "errors": set(),
    "api": {"errors"},
    "api.testing": ROOMS - {"daemon", "cli"},
    "linux": {"errors"},
    "image": {"errors", "linux"},
    "monitor": set(),
    "observe": {"errors"},
    "codec": FLOOR,
    "policy": FLOOR | {"observe.steps"},
    "plugin_manager": FLOOR,
    "transport": FLOOR | {"monitor.link"},
    "stdio": FLOOR | {"linux", "monitor.link"},
    "oci": FLOOR | {"linux", "monitor.link", "observe.steps"},
    "host": FLOOR | {"linux", "observe", "codec", "policy", "plugin_manager", "stdio", "oci", "monitor.link"},
    "bridge": FLOOR | {"host", "transport", "observe", "codec"},
    "client": FLOOR
    | {"bridge.frames", "bridge.identifiers", "bridge.messages", "bridge.hresult", "transport", "codec"},
    "daemon": ROOMS,
    "cli": ROOMS,
}
PLUGIN = {"api", "linux", "errors"}
#: Verbs and tools run as uvmctl does, never in the daemon: the host's side, images, and the
#: measurement of a seccomp profile, which must be the guest's own.
TOOLS = {"client", "image", "oci.fields", "oci.seccomp"}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every dotted name that a file imports, wherever in the file the statement stands."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def forbidden(path: Path, room: str, allowed: set[str]) -> list[str]:
    found = []
    for line, name in imports(path):
        package, _, target = name.partition(".")
        if package != "uvmd" or target in ("", "__version__"):
            continue
        if not any(f"{target}.".startswith(f"{one}.") for one in allowed | {room}):
            found.append(f"{path.relative_to(ROOT)}:{line}: {room} must not import {target}")
    return found


def test_every_room_has_a_row_in_the_table() -> None:
    assert set(TABLE) >= ROOMS, f"no row for {sorted(ROOMS - set(TABLE))}"


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_imports_point_down(room: str) -> None:
    where = CORE / room
    files = sorted(where.rglob("*.py")) if where.is_dir() else [where.with_suffix(".py")]
    wrong = []
    for path in files:
        testing = room == "api" and "testing" in path.relative_to(CORE).as_posix()
        wrong += forbidden(path, room, TABLE["api.testing" if testing else room])
    assert not wrong, "\n".join(wrong)


def test_only_tests_import_the_test_fakes() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in CORE.rglob("*.py")
        if "testing" not in path.relative_to(CORE).as_posix()
        # An author's verb, which boots the guest of the author's tests.
        and path != CORE / "cli" / "plugin_guest.py"
        for line, name in imports(path)
        if name.startswith("uvmd.api.testing")
    ]
    assert not wrong, wrong


def test_the_monitor_stands_on_the_standard_library_alone() -> None:
    wrong = [
        f"{path.name}:{line}: {name}"
        for path in (CORE / "monitor").rglob("*.py")
        for line, name in imports(path)
        if name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith("uvmd.monitor")
    ]
    assert not wrong, wrong


def test_a_plugin_imports_only_what_strangers_may() -> None:
    wrong = []
    for plugin in [*ROOT.glob("plugins/*/src"), *ROOT.glob("tests/*_plugin/src")]:
        for path in plugin.rglob("*.py"):
            tool = "cli" in path.stem or "tools" in path.parts
            wrong += forbidden(path, "", PLUGIN | (TOOLS if tool else set()))
    assert not wrong, "\n".join(wrong)
