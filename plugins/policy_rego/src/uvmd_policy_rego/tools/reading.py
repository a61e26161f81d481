"""A policy or fragment as a document: its statements, what each is, and where it stands.

Literal statements are read here, with a place for every part; whatever else there is, the
engine's own parser reads. A text that it refuses is refused here.
"""

from __future__ import annotations

import base64
import binascii
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from uvmd_policy_rego.dialects import add_document
from uvmd_policy_rego.engine import Engine, EngineError
from uvmd_policy_rego.legacy import LegacyError, policy_text
from uvmd_policy_rego.modules import bare, overridden, without_lines
from uvmd_policy_rego.tools.errors import PolicyToolError
from uvmd_policy_rego.tools.literals import Lines, NotLiteral, Placed, parse_literal

_HEAD: Final = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*)[ \t]*:?=[ \t]*", re.MULTILINE)
_REST: Final = re.compile(r"[ \t\r]*(?:#[^\n]*)?(?:\n|\Z)")
_ALIAS: Final = re.compile(
    r"^[ \t]*([a-z0-9_]+)[ \t]*:?=[ \t]*data\.framework\.\1[ \t\r]*$", re.MULTILINE
)
#: What could make a statement depend on more than the text.
_OUTSIDE: Final = re.compile(
    r"\b(?:data|input|with|time|rand|uuid|http|net|opa|uvmd|import(?!\s+(?:future|rego)\b))\b"
)
_LINE: Final = re.compile(r"policy\.rego:(\d+)|--> .*?:(\d+):")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement: ``literal``, ``alias`` (of another document), ``default``, ``rule``, ``function``."""

    name: str
    line: int
    kind: str
    source: str
    value: Placed | None = None
    #: Of an alias: ``data.framework.create_container`` say.
    target: str = ""


@dataclass(slots=True)
class Document:
    """A text that the engine accepts."""

    text: str
    package: str
    #: In the language before Rego v1.
    old: bool
    #: The JSON of before Rego, and ``text`` is the Rego that it stood for: lines mean nothing.
    legacy: bool
    #: It was given in base64.
    encoded: bool
    statements: list[Statement]
    lines: Lines
    static: bool
    by_name: dict[str, list[Statement]] = field(default_factory=dict)

    def named(self, name: str) -> list[Statement]:
        """Return the statements of a name."""
        return self.by_name.get(name, [])

    def literal(self, name: str) -> Placed | None:
        """Return a name's value if one literal statement says it all."""
        found = self.named(name)
        return found[0].value if len(found) == 1 and found[0].kind == "literal" else None

    def line(self, placed: Placed | None) -> int:
        """Return the line of a value, 0 where that means nothing."""
        return 0 if placed is None or self.legacy else self.lines.line(placed.at)


class NotRego(PolicyToolError):
    """The engine does not accept the text; ``line`` is where, 0 if it does not say."""

    def __init__(self, text: str, line: int = 0) -> None:
        super().__init__(text)
        self.line = line


def read_content(path: str) -> bytes:
    """Return what is in a file; ``-`` is stdin.

    Raises:
        PolicyToolError: it cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise PolicyToolError(f"cannot read {path}: {error.strerror}") from error


def read_file(path: str) -> Document:
    """Read a policy from a file, ``-`` for stdin; Rego, legacy JSON, or either in base64.

    Raises:
        PolicyToolError: the file cannot be read.
        NotRego: it is no policy.
    """
    return read_document(read_content(path))


def read_document(content: bytes | str) -> Document:
    """Read a policy or fragment.

    Raises:
        NotRego: it is none.
    """
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else content
    decoded = _decoded(text)
    encoded, text = decoded is not None, text if decoded is None else decoded
    legacy = text.lstrip().startswith("{")
    try:
        rego = policy_text(text)
    except LegacyError as error:
        raise NotRego(f"a JSON policy that cannot be read: {error}") from error
    except AttributeError as error:
        raise NotRego("JSON, and no policy") from error
    return _Reader(rego, legacy, encoded).document()


def _decoded(text: str) -> str | None:
    """Return what a text in base64 stands for, None if it is none."""
    packed = "".join(text.split())
    if not packed or not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", packed):
        return None
    try:
        return base64.b64decode(packed, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


class _Reader:
    def __init__(self, text: str, legacy: bool, encoded: bool) -> None:
        self._text, self._legacy, self._encoded = text, legacy, encoded
        self._lines = Lines(text)

    def document(self) -> Document:
        literals = list(self._literals())
        try:
            tree, old = _tree(self._without(literals))
        except EngineError:
            # Perhaps what looked like statements stood in a text: the whole, then.
            literals = []
            tree, old = self._whole_tree()
        if (other := overridden(self._text)) is not None:
            where = re.search(r"\bwith\b", self._text)
            line = self._text.count("\n", 0, where.start()) + 1 if where is not None else 0
            raise NotRego(f"`with {other}` would have no effect on the framework's rules", line)
        rest = list(self._others(tree))
        statements = sorted([*(one for one, _ in literals), *rest], key=lambda one: one.line)
        found = Document(
            self._text,
            ".".join(_reference(tree["package"]["refr"]) or ["?"]),
            old,
            self._legacy,
            self._encoded,
            statements,
            self._lines,
            _OUTSIDE.search(without_lines(bare(self._text), _ALIAS)) is None,
        )
        for one in statements:
            found.by_name.setdefault(one.name, []).append(one)
        return found

    def _literals(self) -> Iterator[tuple[Statement, tuple[int, int]]]:
        text, at = self._text, 0
        for head in _HEAD.finditer(text):
            if head.start() < at:
                continue
            try:
                value, end = parse_literal(text, head.end())
            except NotLiteral:
                continue
            rest = _REST.match(text, end)
            if rest is None:
                continue
            at = rest.end()
            line = self._lines.line(head.start())
            yield (
                Statement(head.group(1), line, "literal", text[head.start() : end], value),
                (head.start(), end),
            )

    def _without(self, literals: list[tuple[Statement, tuple[int, int]]]) -> str:
        """Return the text with the statements made blank, every line where it was."""
        kept, at = [], 0
        for _, (start, end) in literals:
            kept += [self._text[at:start], "\n" * self._text.count("\n", start, end)]
            at = end
        return "".join([*kept, self._text[at:]])

    def _whole_tree(self) -> tuple[dict[str, Any], bool]:
        try:
            return _tree(self._text)
        except EngineError as error:
            found = _LINE.search(str(error))
            line = int(found.group(1) or found.group(2)) if found else 0
            raise NotRego(f"does not parse: {short_error(error)}", 0 if self._legacy else line) from error

    def _others(self, tree: dict[str, Any]) -> Iterator[Statement]:
        for rule in tree["rules"]:
            (form, content), *_ = rule.items()
            span = content["span"]
            source = self._source(span)
            if form == "Default":
                yield Statement(_name(content["refr"]), span["line"], "default", source)
                continue
            (head, parts), *_ = content["head"].items()
            name, line = _name(parts["refr"]), span["line"]
            assigned = parts.get("assign")
            target = _reference(assigned["value"]) if assigned else None
            if head == "Func":
                yield Statement(name, line, "function", source)
            elif head == "Compr" and not content["bodies"] and target and target[0] == "data":
                yield Statement(name, line, "alias", source, target=".".join(target))
            else:
                yield Statement(name, line, "rule", source)

    def _source(self, span: dict[str, int]) -> str:
        """Return the lines of a statement: the engine's offsets are of the text made blank."""
        start = self._lines.start(min(span["line"], self._lines.line(len(self._text))))
        end = start
        depth = 0
        for line in self._text[start:].splitlines(keepends=True):
            end += len(line)
            depth += sum(line.count(one) for one in "{[(") - sum(line.count(one) for one in "}])")
            if depth <= 0:
                break
        return self._text[start:end].rstrip()


def _tree(text: str) -> tuple[dict[str, Any], bool]:
    """Return the syntax tree of a module, and whether it is of the language before v1."""
    engine = Engine({}, {})
    old = add_document(engine, "policy.rego", text)
    tree: dict[str, Any] = engine.syntax()[0]["ast"]
    return tree, old


def _reference(node: dict[str, Any]) -> list[str] | None:
    """Return the names of a dotted reference, None if the expression is something else."""
    (form, content), *_ = node.items()
    if form == "Var":
        return [content["value"]]
    if form == "RefDot":
        before = _reference(content["refr"])
        return None if before is None else [*before, content["field"][1]]
    if form == "RefBrack" and "String" in content["index"]:
        before = _reference(content["refr"])
        return None if before is None else [*before, content["index"]["String"]["value"]]
    return None


def _name(node: dict[str, Any]) -> str:
    found = _reference(node)
    if found is not None:
        return ".".join(found)
    (_, content), *_ = node.items()
    return _name(content["refr"]) if "refr" in content else "?"


def short_error(error: EngineError) -> str:
    """Return what the engine said, on one line."""
    lines = [line.strip(" |^-") for line in str(error).splitlines()]
    kept = [line for line in lines if line and not line.startswith(">") and "-->" not in line]
    return "; ".join(kept[:4])[:400]
