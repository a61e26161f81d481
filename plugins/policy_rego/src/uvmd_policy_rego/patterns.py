"""Patterns as policies mean them (Go's RE2), written so that the engine means the same.

The engine's patterns are those of Rust. Both search, have no look-around and fold case
alike; they differ in what a class such as ``\\d`` holds (RE2: ASCII), and each accepts a
few things that the other refuses. What RE2 refuses must not match, so it has no
translation.
"""

from __future__ import annotations

import re
from functools import lru_cache

from uvmd_policy_rego.unicode_names import NAMES

_CLASSES = {"d": "0-9", "w": "0-9A-Za-z_", "s": "\\t\\n\\x0C\\r "}
_GROUP = re.compile(r"\(\?(?:P?<[A-Za-z_][A-Za-z0-9_]*>|([imsU]*)(?:-([imsU]+))?[:)])")
_POSIX = re.compile(
    r"\[:\^?(?:alnum|alpha|ascii|blank|cntrl|digit|graph|lower|print|punct|space|upper|word|xdigit):\]"
)
# RE2 reads a number with a leading zero, and so the braces, as text.
_REPEAT = re.compile(r"\{(0|[1-9][0-9]*)(,(0|[1-9][0-9]*)?)?\}")
_UNICODE = re.compile(r"\\([pP])(?:([A-Z])|\{(\^?)([A-Za-z_]+)\})")
#: A code point in hexadecimal or octal digits, a letter of C, a character that is no letter or digit.
_ESCAPE = re.compile(
    r"\\(?:x(?P<two>[0-9A-Fa-f]{2})|x\{(?P<hex>[0-9A-Fa-f]+)\}|(?P<octal>0[0-7]{0,2}|[1-7][0-7]{1,2})"
    r"|(?P<letter>[aftnrv])|(?P<itself>(?![0-9A-Za-z])[\x00-\x7f]))"
)
_LETTERS = dict(zip("aftnrv", "\a\f\t\n\r\v", strict=True))
#: RE2's own limit on counted repetition, of one and of all that are around each other.
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
        pattern.encode()  # half of a surrogate pair has no UTF-8, and ends the engine
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
        # How often the last item is repeated, at most, by the counts in it; and the items
        # before it in each open group.
        self._count = 1
        self._counts = [1]

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
        if character == "{" and (found := _REPEAT.match(self._text, self._at)) is not None:
            self._repeat(found)
        elif character in "*+?":
            self._emit(character, 1)
            self._repeated = True
        elif self._text.startswith("\\Q", self._at):
            self._quoted()
        else:
            self._next_item()
            self._item(character)

    def _next_item(self) -> None:
        self._counts[-1] = max(self._counts[-1], self._count)
        self._count = 1

    def _item(self, character: str) -> None:
        if character == "\\":
            self._escape()
        elif character == "[":
            self._class()
        elif character == "(":
            self._open()
        elif character == ")":
            self._emit(character, 1)
            self._count = self._counts.pop()
            if not self._counts:
                raise ValueError("closes what was not opened")
        elif character in "{}":
            self._emit("\\" + character, 1)  # RE2 reads a brace that counts nothing as itself
        else:
            self._emit(character, 1)

    def _open(self) -> None:
        flags = self._take(_GROUP) if self._text.startswith("(?", self._at) else ""
        if not flags:
            self._emit("(", 1)
        if not flags.endswith(")"):
            self._counts.append(1)

    def _emit(self, text: str, length: int) -> None:
        self._out.append(text)
        self._at += length

    def _take(self, form: re.Pattern[str]) -> str:
        found = form.match(self._text, self._at)
        if found is None:
            raise ValueError("not a form of RE2")
        self._emit(found.group(), len(found.group()))
        return found.group()

    def _repeat(self, found: re.Match[str]) -> None:
        low, high = int(found[1]), int(found[3] or found[1])
        if max(low, high) > _MOST_REPEATS or high < low:
            raise ValueError("repeats too often")
        # None of something is none of what is repeated in it; from none on is not counted.
        self._count = 1 if high == 0 and found[2] != "," else self._count * max(high, 1)
        if self._count > _MOST_REPEATS and high > 1:
            raise ValueError("repetitions around each other repeat too often")
        self._emit(found[0], len(found[0]))
        self._repeated = True

    def _class(self) -> None:
        self._emit("[", 1)
        if self._text[self._at] == "^":
            self._emit("^", 1)
        first = True
        while first or self._text[self._at] != "]":
            first = False
            if not self._named():
                self._range()
        self._emit("]", 1)

    def _named(self) -> bool:
        """Take a class inside of a class, if there is one. It is no end of a range."""
        if self._text.startswith("[:", self._at) and self._text.find(":]", self._at + 2) >= 0:
            self._take(_POSIX)
            return True
        return self._text[self._at] == "\\" and self._class_escape(in_class=True)

    def _range(self) -> None:
        low = high = self._character()
        # Before the end of the class a hyphen is a character, and so it is behind a named class.
        if self._text.startswith("-", self._at) and self._text[self._at + 1] != "]":
            self._at += 1
            high = self._character()
        if high < low:
            raise ValueError("a range that ends before it begins")
        self._out.append(_written(low) if high == low else f"{_written(low)}-{_written(high)}")

    def _character(self) -> int:
        """Take one character of a class."""
        if self._text[self._at] == "\\":
            return self._code_point()
        self._at += 1
        return ord(self._text[self._at - 1])

    def _escape(self) -> None:
        character = self._text[self._at + 1]
        if character in "bB":
            self._emit(f"(?-u:\\{character})", 2)
        elif character in "Az":
            self._emit("\\" + character, 2)
        elif not self._class_escape(in_class=False):
            self._out.append(_written(self._code_point()))

    def _class_escape(self, *, in_class: bool) -> bool:
        character = self._text[self._at + 1]
        if character in "dDsSwW":
            self._emit(_ascii_class(character, in_class), 2)
        elif character in "pP":
            self._unicode()
        else:
            return False
        return True

    def _unicode(self) -> None:
        found = _UNICODE.match(self._text, self._at)
        name = "" if found is None else found[2] or found[4]
        if found is None or name not in NAMES:
            raise ValueError("a class that RE2 does not know")
        negated = (found[1] == "P") != bool(found[3])
        self._emit(f"\\{'P' if negated else 'p'}{{{name}}}", len(found[0]))

    def _code_point(self) -> int:
        found = _ESCAPE.match(self._text, self._at)
        if found is None:
            raise ValueError("an escape that RE2 does not know")
        self._at = found.end()
        if found["letter"]:
            return ord(_LETTERS[found["letter"]])
        if found["itself"]:
            return ord(found["itself"])
        return int(found["octal"], 8) if found["octal"] else int(found["two"] or found["hex"], 16)

    def _quoted(self) -> None:
        end = self._text.find("\\E", self._at + 2)
        stop = len(self._text) if end < 0 else end
        for character in self._text[self._at + 2 : stop]:
            self._next_item()
            self._out.append(_written(ord(character)))
        self._at = min(stop + 2, len(self._text))


def _written(code: int) -> str:
    """Return a character so that the engine takes it for nothing else, in a class or outside."""
    character = chr(code) if code < 0x80 else ""
    return character if character.isalnum() else f"\\x{{{code:x}}}"


def _ascii_class(character: str, in_class: bool) -> str:
    content = _CLASSES[character.lower()]
    if character.islower():
        return content if in_class else f"[{content}]"
    return f"[^{content}]"
