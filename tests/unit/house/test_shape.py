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


def names_in_tests() -> set[str]:
    """Dotted names below ``uvmd`` that some unit test imports."""
    found: set[str] = set()
    for path in [*ROOT.glob("tests/unit/**/*.py"), *ROOT.glob("plugins/*/tests/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_module_of_core_has_a_unit_test() -> None:
    tested = names_in_tests()
    missing = []
    for path in CORE.rglob("*.py"):
        parts = path.relative_to(CORE.parent).with_suffix("").parts
        if path.name in ("__init__.py", "__main__.py") or not has_code(path):
            continue
        if ".".join(parts) not in tested:
            missing.append(str(path.relative_to(ROOT)))
    assert not missing, "no unit test imports:\n" + "\n".join(sorted(missing))


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
