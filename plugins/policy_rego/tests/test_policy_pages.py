"""The page for policy authors is true: its files are written and its commands are run, in order."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from uvmd.cli.ctl.app import uvmctl
from uvmd_policy_rego.session import Session
from uvmd_policy_rego.tools.description import describe
from uvmd_policy_rego.tools.reading import read_document

DOCS = Path(__file__).parents[3] / "docs"
AUTHORS = (DOCS / "policy-authors.md").read_text("utf-8")
_BLOCK = re.compile(r"(?:`([\w.-]+)`:\n\n)?```(\w+)\n(.*?)```", re.DOTALL)


def steps(page: str) -> Iterator[tuple[str, str, str]]:
    """The page's blocks: the name of the file that each is, its language, its text."""
    for found in _BLOCK.finditer(page):
        yield found.group(1) or "", found.group(2), found.group(3)


def commands(block: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a block, and the lines that it should print."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *lines = part.rstrip("\n").split("\n")
        yield command, lines


def printed_by(command: str) -> list[str]:
    command, with_status = re.subn(r"; echo \$\?$", "", command)
    program, *words = shlex.split(command)
    assert program == "uvmctl"
    done = CliRunner().invoke(uvmctl, words)
    status = [str(done.exit_code)] if with_status else []
    assert with_status or done.exit_code == 0, done.output
    return [line.rstrip() for line in done.output.rstrip("\n").split("\n")] + status


def pattern_of(lines: list[str]) -> str:
    """A line of dots alone stands for any lines, dots in a line for any text; spaces do not count."""
    parts = []
    for line in lines:
        if line == "…":
            parts.append(r"(?:.*\n)*")
        else:
            words = re.escape(" ".join(line.split())).replace("…", ".*")
            parts.append(words + r"\n")
    return "".join(parts)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "rootfs" / "bin").mkdir(parents=True)
    (tmp_path / "rootfs" / "bin" / "httpd").write_bytes(os.urandom(5000))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_worked_example_of_the_authors_page_works(folder: Path) -> None:
    ran = 0
    for name, language, text in steps(AUTHORS):
        if name:
            (folder / name).write_text(text)
        elif language == "console":
            for command, lines in commands(text):
                printed = "".join(f"{' '.join(line.split())}\n" for line in printed_by(command))
                assert re.fullmatch(pattern_of(lines), printed), f"$ {command}\n{printed}"
                ran += 1
    assert ran == 8
    session = Session((folder / "web-2.rego").read_text())
    assert session.documents.static


def test_the_rule_for_other_vendors_devices_is_one(folder: Path) -> None:
    (rule,) = (text for _, language, text in steps(AUTHORS) if language == "rego")
    policy = 'package policy\napi_version := "0.12.0"\nframework_version := "0.5.0"\n' + rule
    session = Session(policy)
    lamp = {"resource_type": "example.com/Lamp", "request_type": "Add", "target": "", "settings": {}}
    assert session.enforce("modify_resource", lamp).allowed
    assert not session.enforce("modify_resource", lamp | {"request_type": "Remove"}).allowed
    description = describe(read_document(policy))
    assert description.points["modify_resource"].answer == "own"
    assert "modify_resource is decided by a rule of the policy's own" in description.untold[0]


def test_the_keys_of_the_authors_tables_are_those_that_are_read() -> None:
    tools = Path(__file__).parents[1] / "src" / "uvmd_policy_rego" / "tools"
    read = "".join((tools / f"{name}.py").read_text() for name in ("config", "config_container", "writing"))
    tables = re.findall(r"^\| `(\[\[|\[)?([a-z_]+)", AUTHORS, re.MULTILINE)
    assert len(tables) > 20
    for _, key in tables:
        assert f'"{key}"' in read, key
