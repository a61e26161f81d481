"""Patterns as policies mean them (Go's RE2), written so that the engine means the same.

The engine's patterns are those of Rust. Both search, have no look-around and fold case
alike; they differ in what a class such as ``\\d`` holds (RE2: ASCII), and each accepts a
few things that the other refuses. What RE2 refuses must not match, so it has no
translation.
"""

from __future__ import annotations

import re
from functools import lru_cache

_CLASSES = {"d": "0-9", "w": "0-9A-Za-z_", "s": "\\t\\n\\x0C\\r "}
_GROUP = re.compile(r"\(\?(?:P?<[A-Za-z_][A-Za-z0-9_]*>|([imsU]*)(?:-([imsU]+))?[:)])")
_POSIX = re.compile(
    r"\[:\^?(?:alnum|alpha|ascii|blank|cntrl|digit|graph|lower|print|punct|space|upper|word|xdigit):\]"
)
_REPEAT = re.compile(r"\{([0-9]{1,4})(,([0-9]{1,4})?)?\}")
_HEX = re.compile(r"x(?:[0-9A-Fa-f]{2}|\{[0-9A-Fa-f]{1,6}\})")
_UNICODE = re.compile(r"[pP](?:[A-Z]|\{\^?[A-Za-z_]+\})")
_OCTAL = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}")
#: RE2's own limit on counted repetition.
_MOST_REPEATS = 1000


def anchor(pattern: object) -> str | None:
    """Return the pattern anchored as policies are read: textually, nothing grouped (policy.md 1)."""
    if not isinstance(pattern, str):
        return None
    start = pattern if pattern.startswith("^") else f"^{pattern}"
    return start if start.endswith("$") else f"{start}$"


#: A text and at most "anything" behind it, anchored: what most patterns of policies are.
_SIMPLE = re.compile(r"\^([^\\.+*?()|\[\]{}^$]*)(\.[+*])?\$", re.DOTALL)


@lru_cache(maxsize=8192)
def _simple(anchored: str) -> tuple[str, str] | None:
    found = _SIMPLE.fullmatch(anchored)
    return None if found is None else (found.group(1), found.group(2) or "")


def matches_simply(anchored: str, value: str) -> bool | None:
    """Say whether an anchored pattern matches, None if it takes an engine to tell.

    The engine makes a matcher anew at each call, which for a long path takes longer than
    all the rest.
    """
    simple = _simple(anchored)
    if simple is None:
        return None
    text, rest = simple
    if not rest:
        return value == text
    behind = value[len(text) :]
    # A dot is anything but a line break.
    return value.startswith(text) and "\n" not in behind and (behind != "" or rest == ".*")


@lru_cache(maxsize=8192)
def translate(pattern: str) -> str | None:
    """Return the pattern in the engine's dialect, None if RE2 would refuse it."""
    try:
        return _Translator(pattern).whole()
    except (ValueError, IndexError):
        return None


class _Translator:
    """One pass over a pattern. Raises ValueError or IndexError where RE2 would refuse."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0
        self._out: list[str] = []
        self._repeated = False

    def whole(self) -> str:
        while self._at < len(self._text):
            at, repeated = self._at, self._repeated
            self._repeated = False
            self._step()
            if self._repeated:
                # One repetition of a repetition is laziness; RE2 refuses more.
                if repeated:
                    raise ValueError("a repetition of a repetition")
                if self._text[self._at : self._at + 1] == "?":
                    self._emit("?", 1)
            assert self._at > at
        return "".join(self._out)

    def _step(self) -> None:
        character = self._text[self._at]
        if character == "\\":
            self._escape(in_class=False)
        elif character == "[":
            self._class()
        elif character == "(" and self._text.startswith("(?", self._at):
            self._take(_GROUP)
        elif character == "{":
            self._repeat()
        elif character in "*+?":
            self._emit(character, 1)
            self._repeated = True
        elif character == "}":
            self._emit("\\}", 1)
        else:
            self._emit(character, 1)

    def _emit(self, text: str, length: int) -> None:
        self._out.append(text)
        self._at += length

    def _take(self, form: re.Pattern[str]) -> str:
        found = form.match(self._text, self._at)
        if found is None:
            raise ValueError("not a form of RE2")
        self._emit(found.group(), len(found.group()))
        return found.group()

    def _repeat(self) -> None:
        found = _REPEAT.match(self._text, self._at)
        if found is None:
            self._emit("\\{", 1)  # RE2 reads a brace that counts nothing as itself
            return
        low, high = int(found.group(1)), int(found.group(3) or found.group(1))
        if max(low, high) > _MOST_REPEATS or high < low:
            raise ValueError("repeats too often")
        self._emit(found.group(), len(found.group()))
        self._repeated = True

    def _class(self) -> None:
        self._emit("[", 1)
        if self._text[self._at] == "^":
            self._emit("^", 1)
        first = True
        while first or self._text[self._at] != "]":
            first = False
            self._class_item()
        self._emit("]", 1)

    def _class_item(self) -> None:
        character = self._text[self._at]
        if character == "\\":
            self._escape(in_class=True)
        elif character == "[" and self._text.startswith("[:", self._at) and ":]" in self._text[self._at :]:
            self._take(_POSIX)
        elif character == "-":
            self._hyphen()
        elif character in "[]&~^":
            # Rust nests and intersects classes; to RE2 these are characters.
            self._emit("\\" + character, 1)
        else:
            self._emit(character, 1)

    def _hyphen(self) -> None:
        opened = self._out[-1] in ("[", "^") and self._text[self._at - 1] in "[^"
        closes = self._text[self._at + 1] == "]"
        if opened or closes:
            self._emit("\\-", 1)
        elif self._text[self._at + 1] == "-":
            raise ValueError("a range of hyphens")
        else:
            self._emit("-", 1)

    def _escape(self, *, in_class: bool) -> None:
        character = self._text[self._at + 1]
        if character.lower() in _CLASSES:
            self._emit(_ascii_class(character, in_class), 2)
        elif character == "Q" and not in_class:
            self._quoted()
        elif character in "bBAz" and not in_class:
            self._emit("(?-u:\\b)" if character == "b" else _BOUNDARY.get(character, "\\" + character), 2)
        elif character in "aftnrv":
            self._emit("\\" + character, 2)
        else:
            self._code_point(character)

    def _code_point(self, character: str) -> None:
        at = self._at + 1
        for form in (_HEX, _UNICODE):
            found = form.match(self._text, at)
            if found is not None:
                self._emit("\\" + found.group(), 1 + len(found.group()))
                return
        octal = _OCTAL.match(self._text, at)
        if octal is not None:
            self._emit(f"\\x{{{int(octal.group(), 8):x}}}", 1 + len(octal.group()))
        elif character.isascii() and not character.isalnum():
            # Rust gives \\< a meaning and refuses to escape letters that need none.
            self._emit(f"\\{character}" if character in _PUNCTUATION else character, 2)
        else:
            raise ValueError("an escape that RE2 does not know")

    def _quoted(self) -> None:
        end = self._text.find("\\E", self._at + 2)
        stop = len(self._text) if end < 0 else end
        quoted = self._text[self._at + 2 : stop]
        self._emit(re.escape(quoted), min(stop + 2, len(self._text)) - self._at)


_BOUNDARY = {"B": "(?-u:\\B)"}
_PUNCTUATION = frozenset("\\.+*?()|[]{}^$#&-~")


def _ascii_class(character: str, in_class: bool) -> str:
    content = _CLASSES[character.lower()]
    if character.islower():
        return content if in_class else f"[{content}]"
    return f"[^{content}]"
