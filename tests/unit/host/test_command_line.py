"""Splitting a command line: the table of spec containers.md 11.4."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.errors import Refused
from uvmd.host.command_line import split_command_line


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("", []),
        (" \t\r\n", []),
        ("a b\tc\rd\ne", ["a", "b", "c", "d", "e"]),
        (r"'a\b' 'c d'", [r"a\b", "c d"]),
        (r'"a b" "c\"d" "x\ny\tz"', ["a b", 'c"d', "x\ny\tz"]),
        (r"a\ b \n\t \\", ["a b", "\n\t", "\\"]),
        ("\"\" ''", ["", ""]),
        ("a''b\"\"c", ["abc"]),
        ("`a b` x`c d`y", ["`a b`", "x`c d`y"]),
        ("$(a b) x$(c (d) e)y", ["$(a b)", "x$(c (d) e)y"]),
        ("$HOME a$B", ["$HOME", "a$B"]),
        ("a; b", ["a"]),
        ("a & b", ["a"]),
        ("a|b", ["a"]),
        ("a < b", ["a"]),
        ("a > b", ["a"]),
        ("a 2> b", ["a"]),
        ("a 2b> c", ["a"]),
        ("a b2> c", ["a", "b2"]),
        ("a 2< c", ["a", "2"]),
        ("; a", []),
        ("a # b", ["a", "#", "b"]),
        ("a \"b;c\" 'd|e' f\\;g", ["a", "b;c", "d|e", "f;g"]),
    ],
)
def test_the_table_of_constructs_holds(line: str, arguments: list[str]) -> None:
    assert split_command_line(line) == arguments


@pytest.mark.parametrize("line", ["'a", '"a', "`a", "$(a", "$(a (b)", "a (b)", "a)", "a\\", '"a\\', ")"])
def test_what_is_not_balanced_is_refused(line: str) -> None:
    with pytest.raises(Refused):
        split_command_line(line)


@given(st.lists(st.text(max_size=8), max_size=5))
def test_quoted_arguments_come_back(arguments: list[str]) -> None:
    assert split_command_line(" ".join(f"'{text}'" for text in (a.replace("'", "") for a in arguments))) == [
        a.replace("'", "") for a in arguments
    ]


plain = st.text(alphabet="abcXYZ019/._=+-%@:,^~!?*[]{}#$ \t", max_size=40)


@given(plain)
def test_without_special_characters_it_is_splitting_at_space(line: str) -> None:
    assert split_command_line(line) == line.split()


@given(st.text(alphabet="ab '\"\\", max_size=20))
def test_it_agrees_with_a_shell_on_quotes(line: str) -> None:
    try:
        found = split_command_line(line)
    except Refused:
        return
    if "\\" not in line:  # a shell keeps some backslashes in double quotes
        assert found == shlex.split(line)


@given(st.text(max_size=60))
def test_any_text_is_split_or_refused(line: str) -> None:
    try:
        assert all(isinstance(argument, str) for argument in split_command_line(line))
    except Refused:
        pass
