"""What no file may do, because one place does it for all, and why."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CORE = ROOT / "core" / "src" / "uvmd"
SOURCES = [
    *CORE.rglob("*.py"),
    *ROOT.glob("plugins/*/src/**/*.py"),
    *ROOT.glob("tests/*_plugin/src/**/*.py"),
]
TESTS = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("plugins/*/tests/**/*.py")]


def names(path: Path) -> Iterator[tuple[int, str]]:
    """Dotted names that a file uses, with imports resolved to what they stand for."""
    tree = ast.parse(path.read_text(), str(path))
    alias: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                top = name.name.partition(".")[0]
                alias[name.asname or top] = name.name if name.asname else top
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                alias[name.asname or name.name] = f"{node.module}.{name.name}"
                yield node.lineno, f"{node.module}.{name.name}"
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.value.lineno, f"keyword {node.arg}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts: list[str] = []
            inner: ast.expr = node
            while isinstance(inner, ast.Attribute):
                parts.insert(0, inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id in alias:
                yield node.lineno, ".".join([alias[inner.id], *parts])


def uses(pattern: str, allowed: tuple[str, ...] = ()) -> list[str]:
    banned = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in SOURCES
        if not str(path).startswith(tuple(f"{CORE}/{room}" for room in allowed))
        and str(path.relative_to(ROOT)) not in allowed
        for line, name in names(path)
        if banned.fullmatch(name)
    ]


SPAWNING = r"os\.(fork|forkpty|posix_spawnp?|spawn\w+|popen|system)|pty\.(fork|spawn)"
REAPING = r"os\.(wait|wait3|wait4|waitpid|waitid|waitstatus_to_exitcode)"


@pytest.mark.parametrize(
    ("pattern", "allowed", "reason"),
    [
        # A child of the daemon would die unobserved with it; only the monitor outlives everything.
        # (uvmctl's image tool runs `zstd -dc`, its policy tool replays in several processes, a
        # test suite looks at a fresh interpreter and boots a VM; the daemon never imports those rooms.)
        (
            r"(subprocess|multiprocessing)(\..*)?",
            (
                "monitor/",
                "image/spool.py",
                "image/helper.py",
                "api/testing/conformance.py",
                "api/testing/guest/",
                "plugins/policy_rego/src/uvmd_policy_rego/parallel.py",
            ),
            "the monitor alone spawns",
        ),
        # In a guest of the tests a helper runs what they say.
        (SPAWNING, ("monitor/", "api/testing/guest/inside/"), "the monitor alone spawns"),
        # Whoever waits for a pid elsewhere may steal a container's exit status.
        (REAPING, ("monitor/", "api/testing/guest/inside/"), "the monitor alone reaps"),
        (r"asyncio(\..*)?", (), "10 MiB and 40 us a message; see the decision on the loop"),
        (r"keyword preexec_fn", (), "it runs between fork and exec of a threaded process"),
        (r"os\.umask", ("monitor/", "daemon/", "cli/"), "one umask under many threads: use fchmod"),
        (r"_?ctypes(\..*)?", ("linux/syscalls.py", "monitor/_sys.py"), "two ctypes rooms are enough"),
        (r"(pickle|shelve|marshal)(\..*)?", (), "nothing is read back that can run code"),
    ],
)
def test_one_place_does_it_for_all(pattern: str, allowed: tuple[str, ...], reason: str) -> None:
    found = uses(pattern, allowed)
    assert not found, f"{reason}:\n" + "\n".join(found)


def test_the_bans_see_through_aliases(tmp_path: Path) -> None:
    source = tmp_path / "sly.py"
    source.write_text("import os as o\nimport ctypes.util\no.fork()\nf(preexec_fn=None)\n")
    assert {name for _, name in names(source)} >= {"os.fork", "ctypes.util", "keyword preexec_fn"}


def test_no_text_is_left_for_later() -> None:
    # Put together from halves, or this file would find itself.
    halves = (("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("HA", "CK"), ("NotImplemented", "Error"))
    words = re.compile(r"\b(" + "|".join(map("".join, halves)) + r")\b")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in [*SOURCES, *TESTS]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if words.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_test_skips_itself() -> None:
    words = re.compile(r"pytest\.mark\.(skip|skipif|xfail)\b|pytest\.(skip|xfail|importorskip)\(")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in TESTS
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if words.search(line)
    ]
    assert not found, found
