"""The Rego that an engine is made of: ours, and what a policy's text is taken for."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from functools import cache

#: Names under ``data.metadata`` that our rules use; others appear when first written.
METADATA_NAMES = (
    "operatingsystem", "devices", "rw_devices", "overlayTargets", "matches", "started",
    "p9mounts", "scratch_mounts", "issuers", "fragment_parameters",
)  # fmt: skip
_FRAMEWORK = (
    "versions", "candidates", "predicates", "rules", "fragments", "reasons", "reasons_fragments",
)  # fmt: skip
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = "as contains data default else every false if import in input not null package set some true with"
_KEYWORDS = frozenset(_WORDS.split())
_TEXTS_AND_COMMENTS = re.compile(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`|#[^\n]*')
#: What could read the default mounts, which lie in data beside our packages.
_OTHER_DATA = re.compile(r"\bdata\b(?!\.(?:framework|metadata|policy)\b)")
#: What makes candidates of a policy's text. `with` could put anything in their place.
_DECLARING = re.compile(
    r"\b(?:with|fragments|containers|external_processes|platform_rules|transparency_trust_lists"
    r"|api_version|api_svn|framework_version|framework_svn)\b"
)
#: A document that is Python's here, in the place of which `with` could put another.
_OURS = (
    r"\s+data\b(?:(?!\s*\.\s*[A-Za-z_])|\s*\.\s*((?:metadata|defaultMounts|privilegedMounts|sandboxPrefix"
    r"|hugePagesPrefix|plan9Prefix|default(?:P|Unp)rivilegedCapabilities)\b))"
)
_WITH = re.compile(r"\bwith\b")
_WITH_OURS, _IMPORT_OF_OURS = re.compile(rf"\bwith{_OURS}"), re.compile(rf"\bimport{_OURS}")
#: One declaration of a value that is written out, the framework's included; nothing is called or chosen.
_WRITTEN_OUT = re.compile(
    r"[ \t]*([a-z0-9_]+)[ \t]*:?=[ \t]*"
    r'((?:""|true|false|null|-?[0-9][0-9.eE+-]*+|data\.framework\.[a-z0-9_]+|[][{},: \t])++)[ \t\r]*'
)
_IMPORT = re.compile(r"[ \t]*import[ \t]+(?:rego\.v1|future\.keywords(?:\.[a-z]+)?)[ \t\r]*")
_PAIRS = (("[", "]"), ("{", "}"), ("(", ")"))
#: The last word of a text, if a statement can end with it; `future.keywords.in` does.
_LAST_WORD = re.compile(r"(?<![\w.])[A-Za-z_]\w*\Z")
#: The first word behind blank lines and comments.
_FIRST_WORD = re.compile(r"(?:\s|#[^\n]*)*+(?:([A-Za-z_]\w*)|\Z)")
_VALUES = frozenset(("true", "false", "null"))
_BEGINNINGS = frozenset(("default", "import"))
_PLAIN = re.compile(r'""|[0-9.]+|\[[ \t]*\]')
_PLAIN_VERSION = re.compile(r'^(?:api|framework)_(?:version|svn)[ \t]*:?=[ \t]*""[ \t\r]*$', re.MULTILINE)


@cache
def read_module(name: str) -> str:
    """Return one of our modules."""
    # Not importlib.resources, which would bring megabytes with it.
    with open(f"{os.path.dirname(__file__)}/rego/{name}.rego", encoding="utf-8") as file:
        return file.read()


def own_modules(lookup: str) -> dict[str, str]:
    """Return our modules by file name; ``lookup``: ``indexed``, ``settled`` or ``live``."""
    names = (*_FRAMEWORK, f"lookup_{lookup}", *(() if lookup == "indexed" else ("lookup_whole",)))
    found = {f"framework/{name}.rego": read_module(name) for name in names}
    found["api.rego"] = read_module("api")
    found["metadata.rego"] = metadata_module(METADATA_NAMES)
    return found


def is_identifier(name: str) -> bool:
    """Say whether a rule can have this name."""
    return _IDENTIFIER.fullmatch(name) is not None and name not in _KEYWORDS


def metadata_module(names: Iterable[str]) -> str:
    """Return a module by which policies see metadata; an unused name stays undefined."""
    lines = (f"{name} := uvmd.metadata({json.dumps(name)})[0]" for name in names)
    return "package metadata\n\n" + "\n\n".join(lines) + "\n"


def written_out(left: str) -> dict[str, str] | None:
    """Return what a policy declares, by name, if each line of it is one declaration that is written out.

    ``left`` is what ``literals.split`` left of it. A value is a constant, or a document of the
    framework's. None where a line is more than that: it could be part of something else.
    """
    package, *lines = bare(left).split("\n")
    if package.rstrip() != "package policy":
        return None
    declared: dict[str, str] = {}
    for line in lines:
        if not line.strip() or _IMPORT.fullmatch(line):
            continue
        found = _WRITTEN_OUT.fullmatch(line)
        if found is None or not _is_balanced(line):
            return None
        name, value = found[1], found[2].strip()
        if name in declared or not is_identifier(name):
            return None
        declared[name] = value
    return declared


def is_pure(left: str) -> bool:
    """Say whether a policy's answers hang on nothing but the question and what is remembered.

    No rule of it looks at anything; so candidates may be found by an index, and named by what
    stands for them.
    """
    declared = written_out(left)
    if declared is None:
        return False
    # Lists that are still here are not plain JSON: a set is another thing than the list it becomes.
    return all(_PLAIN.fullmatch(value) for name, value in declared.items() if _DECLARING.fullmatch(name))


def is_settled(left: str) -> bool:
    """Say whether what ``literals.split`` left of a policy has no part in what it declares.

    Its rules may then ask whatever they like, and see what they would see: the lists are
    elsewhere, the versions are plain texts, and nothing here speaks of either.
    """
    return _DECLARING.search(without_lines(bare(left), _PLAIN_VERSION)) is None


def without_lines(text: str, form: re.Pattern[str]) -> str:
    """Return a bare text without the lines of a form that are statements of their own."""
    kept, at = [], 0
    for line in form.finditer(text):
        if ends_a_statement(text[: line.start()]) and begins_a_statement(text, line.end()):
            kept.append(text[at : line.start()])
            at = line.end()
    return "".join([*kept, text[at:]])


def frameworks_rules(left: str) -> frozenset[str]:
    """Return the rules of a policy of which each is the framework's of the same name, and nothing else."""
    declared = written_out(left) or {}
    return frozenset(name for name, value in declared.items() if value == f"data.framework.{name}")


def ends_a_statement(before: str) -> bool:
    """Say whether what follows a bare text may be a statement of its own, and no part of one."""
    text = before.rstrip()
    if not text or not _is_balanced(text):
        return False
    word = _LAST_WORD.search(text, max(0, len(text) - 64))
    if word is not None:
        return word[0] in _VALUES or word[0] not in _KEYWORDS
    return text[-1] in '"]})' or text[-1].isalnum() or text[-1] == "_"


def begins_a_statement(text: str, at: int) -> bool:
    """Say whether a text goes on with another statement there, or with nothing."""
    found = _FIRST_WORD.match(text, at)
    return found is not None and (found[1] is None or found[1] in _BEGINNINGS or found[1] not in _KEYWORDS)


def _is_balanced(text: str) -> bool:
    return all(text.count(opens) == text.count(closes) for opens, closes in _PAIRS)


def overridden(text: str) -> str | None:
    """Return the document of ours in the place of which a text puts another by ``with``, if it does.

    The framework's rules take it from elsewhere, and would not notice.
    """
    clean = bare(text)
    found = _WITH_OURS.search(clean) or (_WITH.search(clean) and _IMPORT_OF_OURS.search(clean))
    if not found:
        return None
    return f"data.{found[1]}" if found[1] else "data"


def reads_mounts(text: str) -> bool:
    """Say whether the text could look at the default mounts itself."""
    return _OTHER_DATA.search(bare(text)) is not None


def bare(text: str) -> str:
    """Return the text without comments, and with nothing between quotes."""
    return _TEXTS_AND_COMMENTS.sub(lambda found: "" if found[0][0] == "#" else '""', text)
