"""Splitting the command line of an external process into arguments (spec containers.md 11.4).

It looks like a shell and is none: nothing is substituted or expanded, and what follows an
unquoted operator is dropped without a word, since hosts rely on it.
"""

from __future__ import annotations

from uvmd.errors import Refused

_SPACE = frozenset(" \t\r\n")
_OPERATORS = frozenset(";&|<>")
_ESCAPED = {"n": "\n", "t": "\t"}


def split_command_line(text: str) -> list[str]:
    """Return the arguments of a command line.

    Raises:
        Refused: an unbalanced quote or parenthesis, or a backslash at the end.
    """
    return _Splitter(text).split()


class _Splitter:
    """One pass over the text; ``_word`` is None between arguments, so ``''`` can be one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._word: list[str] | None = None
        self._words: list[str] = []

    def split(self) -> list[str]:
        text = self._text
        while self._at < len(text):
            char = text[self._at]
            if char in _SPACE:
                self._end_word()
                self._at += 1
            elif char in _OPERATORS:
                self._drop_descriptor(char)
                break
            else:
                self._take(char)
        self._end_word()
        return self._words

    def _take(self, char: str) -> None:
        if char == "'":
            self._single_quoted()
        elif char == '"':
            self._double_quoted()
        elif char == "`":
            self._kept("`")
        elif char == "$" and self._text[self._at + 1 : self._at + 2] == "(":
            self._substitution()
        elif char in "()":
            raise Refused(f"command line: {char} at character {self._at} has no partner")
        elif char == "\\":
            self._escape()
        else:
            self._add(char)
            self._at += 1

    def _add(self, piece: str) -> None:
        if self._word is None:
            self._word = []
        self._word.append(piece)

    def _end_word(self) -> None:
        if self._word is not None:
            self._words.append("".join(self._word))
            self._word = None

    def _drop_descriptor(self, operator: str) -> None:
        """``2>`` drops the 2 as well."""
        word = "".join(self._word or ())
        if operator == ">" and word[:1].isdigit():
            self._word = None

    def _single_quoted(self) -> None:
        end = self._find("'", self._at + 1)
        self._add(self._text[self._at + 1 : end])
        self._at = end + 1

    def _double_quoted(self) -> None:
        start = self._at
        self._add("")
        self._at += 1
        while True:
            if self._at >= len(self._text):
                raise Refused(f'command line: " at character {start} is not closed')
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                return
            if char == "\\":
                self._escape()
            else:
                self._add(char)
                self._at += 1

    def _escape(self) -> None:
        if self._at + 1 >= len(self._text):
            raise Refused("command line: it ends with a backslash")
        char = self._text[self._at + 1]
        self._add(_ESCAPED.get(char, char))
        self._at += 2

    def _kept(self, mark: str) -> None:
        """Keep a backquoted part as it is, with its quotes."""
        end = self._find(mark, self._at + 1)
        self._add(self._text[self._at : end + 1])
        self._at = end + 1

    def _substitution(self) -> None:
        """Keep ``$( )`` as it is, however deep its parentheses nest."""
        start, depth = self._at, 0
        for end in range(start, len(self._text)):
            if self._text[end] == "(":
                depth += 1
            elif self._text[end] == ")":
                depth -= 1
                if depth == 0:
                    self._add(self._text[start : end + 1])
                    self._at = end + 1
                    return
        raise Refused(f"command line: $( at character {start} is not closed")

    def _find(self, mark: str, start: int) -> int:
        end = self._text.find(mark, start)
        if end < 0:
            raise Refused(f"command line: {mark} at character {start - 1} is not closed")
        return end
