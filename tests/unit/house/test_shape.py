"""The shape of the house: size of rooms, a test for each, a docstring over each door."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[3]
CORE = ROOT / "core" / "src" / "uvmd"
MODULES = sorted([*CORE.rglob("*.py"), *ROOT.glob("plugins/*/src/**/*.py")])
TOO_LARGE = 500


def has_code(path: Path) -> bool:
    body = ast.parse(path.read_text()).body
    return any(not isinstance(node, (ast.Expr, ast.Import, ast.ImportFrom)) for node in body)


def test_no_room_is_two_rooms() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in [*MODULES, *ROOT.glob("tests/**/*.py")]}
    too_large = [f"{path.relative_to(ROOT)}: {n} lines" for path, n in lengths.items() if n > TOO_LARGE]
    assert not too_large, f"more than {TOO_LARGE} lines:\n" + "\n".join(too_large)


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in MODULES
        if has_code(path) and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent, "without a docstring:\n" + "\n".join(silent)


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, and both readings of ``from a import b``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def lazily_named(path: Path) -> set[str]:
    """Siblings that a file names in a table of things to import on first use."""
    nodes = ast.walk(ast.parse(path.read_text()))
    constants = {node.value for node in nodes if isinstance(node, ast.Constant)}
    package = dotted(path).rpartition(".")[0]
    return {f"{package}.{sibling.stem}" for sibling in path.parent.glob("*.py") if sibling.stem in constants}


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(CORE.parent).with_suffix("").parts)


def test_every_module_of_core_has_a_unit_test() -> None:
    # Directly, or through the door of its own room: a part that only its room uses is
    # tested where the room is.
    modules = {
        dotted(path): path
        for path in CORE.rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py") and has_code(path)
    }
    tests = [*ROOT.glob("tests/unit/**/*.py"), *ROOT.glob("plugins/*/tests/**/*.py")]
    tested = set().union(*map(imports, tests)) & modules.keys()
    fresh = set(tested)
    while fresh:
        name = fresh.pop()
        used = (imports(modules[name]) | lazily_named(modules[name])) & modules.keys()
        same_room = {other for other in used if other.split(".")[1] == name.split(".")[1]}
        fresh |= same_room - tested
        tested |= same_room
    missing = sorted(modules.keys() - tested)
    assert not missing, "no unit test reaches:\n" + "\n".join(missing)


def test_a_test_is_named_after_a_behaviour() -> None:
    # A sentence has at least three words: test_it_works says nothing, test_frames says less.
    short = []
    for path in ROOT.glob("tests/**/test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            if node.name.count("_") < 3:
                short.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}")
    assert not short, "\n".join(short)
