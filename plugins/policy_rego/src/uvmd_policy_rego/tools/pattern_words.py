"""Patterns of a policy: tried as the enforcer tries them, and what they match beyond their looks.

Each claim that a pattern matches more than it seems to comes with a text that it matches,
and the text was tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

from uvmd_policy_rego.engine import Engine, EngineError, Trials
from uvmd_policy_rego.patterns import anchor, translate

_TOKEN: Final = re.compile(
    r"\\Q.*?(?:\\E|\Z)|\\x\{[0-9A-Fa-f]+\}|\\x[0-9A-Fa-f]{2}|\\[pP](?:\{[^}]*\}|.)|\\."
    r"|\[\^?\]?(?:\[:\^?[a-z]+:\]|\\.|[^\]\\])*\]|\(\?P?<[A-Za-z_]\w*>|\(\?[a-zA-Z-]*[:)]|\(|\)"
    r"|\{[0-9]+(?:,[0-9]*)?\}\??|[*+?]\??|.",
    re.DOTALL,
)
_QUANTIFIER: Final = re.compile(r"[*+?]\??|\{[0-9]+(?:,[0-9]*)?\}\??")
_LONGEST_SAMPLE: Final = 2000
_CLASS_SAMPLES: Final = "a0A_-. /=:1bZ\n"
_ESCAPED: Final = {"d": "0", "w": "a", "s": " ", "D": "a", "W": "-", "S": "a", "n": "\n", "t": "\t"}
#: Variables by which a program can be made to run something else.
_DANGEROUS: Final = (
    "LD_PRELOAD=/x.so",
    "LD_LIBRARY_PATH=/x",
    "PATH=/x",
    "BASH_ENV=/x",
    "PYTHONPATH=/x",
    "NODE_OPTIONS=--require=/x",
    "JAVA_TOOL_OPTIONS=-javaagent:/x",
    "GCONV_PATH=/x",
)


@dataclass(frozen=True, slots=True)
class Remark:
    """What is odd about a pattern: ``code``, a sentence, and a text that shows it (or "")."""

    code: str
    text: str
    example: str = ""


@cache
def _patterns() -> Trials:
    return Trials()


@cache
def _matcher() -> Engine:
    return Engine({}, {})


@lru_cache(maxsize=8192)
def compiles(pattern: object) -> bool:
    """Say whether a pattern, anchored as the rules do, can match anything."""
    whole = anchor(pattern)
    translated = None if whole is None else translate(whole)
    return translated is not None and _patterns().compiles(translated)


@lru_cache(maxsize=8192)
def matches(pattern: str, text: str) -> bool:
    """Say whether the rules find that a pattern matches a text."""
    import json

    if not compiles(pattern):
        return False
    engine = _matcher()
    engine.set_input(json.dumps({"pattern": translate(anchor(pattern) or ""), "text": text}))
    try:
        return engine.find("regex.match(input.pattern, input.text)") == [True]
    except EngineError:
        return False


@lru_cache(maxsize=8192)
def sample(pattern: str) -> str | None:
    """Return a text that a pattern matches; None if none was found."""
    try:
        text = _Sampler(_tokens_of(pattern)).alternatives()
    except (ValueError, IndexError, RecursionError):
        return None
    return text if matches(pattern, text) else None


@lru_cache(maxsize=8192)
def remarks_on(pattern: str) -> tuple[Remark, ...]:
    """Say what a pattern matches beyond its looks, whatever it is used for."""
    return tuple(_remarks(pattern))


def _remarks(pattern: str) -> Iterator[Remark]:
    if not compiles(pattern):
        yield Remark("pattern-invalid", "does not compile as RE2, so it matches nothing")
        return
    tokens = _tokens_of(pattern)
    yield from _open_ends(pattern, tokens)
    yield from _dots(pattern, tokens)
    yield from _flags(pattern, tokens)
    if re.search(r"\[[^\]]*A-z", pattern):
        yield Remark("pattern-class", "the range A-z also holds [ \\ ] ^ _ and the backquote; write A-Za-z")


@lru_cache(maxsize=8192)
def remarks_on_env(pattern: str) -> tuple[Remark, ...]:
    """Say which variables with power over programs a whole-form pattern lets in."""
    return tuple(_env_remarks(pattern))


def _env_remarks(pattern: str) -> Iterator[Remark]:
    let_in = [one.partition("=")[0] for one in _DANGEROUS if matches(pattern, one)]
    if len(let_in) == len(_DANGEROUS):
        text = "lets any variable in, such as LD_PRELOAD: the host can change what runs"
        yield Remark("env-any", text, _DANGEROUS[0])
    elif let_in:
        example = next(one for one in _DANGEROUS if one.startswith(f"{let_in[0]}="))
        yield Remark("env-dangerous", f"lets the host choose {', '.join(let_in)}", example)
    elif matches(pattern, "_UVMD_X=a") and matches(pattern, "QZ9=b"):
        yield Remark("env-any", "lets variables of any name in", "QZ9=b")


def looks_like_pattern(text: str) -> bool:
    """Say whether a text that is compared letter by letter was meant as a pattern."""
    return bool(re.search(r"\.[*+]|\(\?|\[[^\]]+\][*+]|\\[dws.]|^\^|\$$", text))


def _tokens_of(pattern: str) -> list[str]:
    return _TOKEN.findall(pattern)


def _open_ends(pattern: str, tokens: list[str]) -> Iterator[Remark]:
    branches = _branches(tokens)
    backslashes = len(pattern) - len(pattern[:-1].rstrip("\\")) - 1
    if pattern.endswith("$") and backslashes % 2:
        text = sample(pattern)
        example = text + "anything" if text is not None and matches(pattern, text + "anything") else ""
        yield Remark(
            "pattern-open-end",
            "ends in an escaped dollar, which counts as its end: what follows is free; add a plain $",
            example,
        )
    if len(branches) < 2:
        return
    for number, branch in enumerate(branches):
        begins = number == 0 or branch[:1] == ["^"]
        ends = number == len(branches) - 1 or branch[-1:] == ["$"]
        if begins and ends:
            continue
        text = sample("".join(branch)) or ""
        example = ("" if begins else "anything") + text + ("" if ends else "anything")
        if matches(pattern, example):
            yield Remark(
                "pattern-alternation",
                "alternatives are not grouped, so only the first is held at its beginning and only the"
                " last at its end; put brackets around them",
                example,
            )
            return


def _branches(tokens: list[str]) -> list[list[str]]:
    """Return the alternatives that stand outside of all groups."""
    depth, branches = 0, [list[str]()]
    for token in tokens:
        if token.startswith("(") and not token.endswith(")"):
            depth += 1
        elif token == ")":
            depth -= 1
        if token == "|" and depth == 0:
            branches.append([])
        else:
            branches[-1].append(token)
    return branches


def _dots(pattern: str, tokens: list[str]) -> Iterator[Remark]:
    def letter(token: str) -> bool:
        return len(token) == 1 and (token.isalnum() or token in "_-")

    for at, token in enumerate(tokens[1:-1], 1):
        after = tokens[at + 1]
        if token == "." and letter(tokens[at - 1]) and letter(after):
            changed = "".join([*tokens[:at], "X", *tokens[at + 1 :]])
            example = sample(changed) or ""
            shown = f"{tokens[at - 1]}.{after}"
            yield Remark(
                "pattern-dot",
                f"the dot in {shown!r} stands for any character; write \\.",
                example if example and matches(pattern, example) else "",
            )
            return


def _flags(pattern: str, tokens: list[str]) -> Iterator[Remark]:
    flags = set()
    for token in tokens:
        if token.startswith("(?") and not token.startswith(("(?P<", "(?<")):
            flags |= set(token[2:-1].partition("-")[0])
    text = sample(pattern)
    if "m" in flags and text is not None:
        example = f"{text}\nanything"
        if matches(pattern, example):
            yield Remark(
                "pattern-lines", "(?m) makes ^ and $ fit at every line: other lines are free", example
            )
    if "i" in flags:
        swapped = text.swapcase() if text else ""
        yield Remark(
            "pattern-case",
            "(?i) takes capitals and small letters for the same",
            swapped if swapped and matches(pattern, swapped) else "",
        )
    if "s" in flags:
        yield Remark("pattern-newline", "(?s) lets the dot stand for a new line as well")


class _Sampler:
    """Makes the shortest text of a pattern: one alternative, as few repetitions as may be."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._at = tokens, 0

    def alternatives(self) -> str:
        first: str | None = None
        while True:
            text = self._sequence()
            first = text if first is None else first
            if self._peek() != "|":
                return first
            self._at += 1

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _sequence(self) -> str:
        parts = []
        while self._peek() not in ("", "|", ")"):
            token = self._tokens[self._at]
            self._at += 1
            text = self._atom(token)
            if _QUANTIFIER.fullmatch(self._peek()):
                times = _fewest(self._tokens[self._at])
                if times * len(text) > _LONGEST_SAMPLE:
                    raise ValueError("too long to be shown to anybody")
                text *= times
                self._at += 1
            parts.append(text)
        return "".join(parts)

    def _atom(self, token: str) -> str:
        if token.startswith("(") and not token.endswith(")"):
            text = self.alternatives()
            if self._peek() != ")":
                raise ValueError("a group without an end")
            self._at += 1
            return text
        if token in ("^", "$") or token.startswith("(?"):
            return ""
        if token == ".":
            return "a"
        if token.startswith("["):
            return _of_class(token)
        if token.startswith("\\"):
            return _unescaped(token)
        return token


def _fewest(quantifier: str) -> int:
    if quantifier[0] in "*?":
        return 0
    return 1 if quantifier[0] == "+" else int(re.findall(r"\d+", quantifier)[0])


def _of_class(token: str) -> str:
    for character in _CLASS_SAMPLES + token:
        translated = translate(f"^{token}$")
        if translated and _patterns().compiles(translated) and matches(token, character):
            return character
    raise ValueError("no member of the class was found")


def _unescaped(token: str) -> str:
    if token.startswith("\\Q"):
        return token[2:].removesuffix("\\E")
    if token[1] == "x":
        return chr(int(token[2:].strip("{}"), 16))
    if token[1] in "bBAz":
        return ""
    return _ESCAPED.get(token[1], token[1])
