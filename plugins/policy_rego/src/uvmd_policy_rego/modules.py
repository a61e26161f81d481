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
_ALIAS = re.compile(r"^[ \t]*([a-z0-9_]+)[ \t]*:?=[ \t]*data\.framework\.\1[ \t\r]*$", re.MULTILINE)
#: What could make a declaration depend on more than the policy's own text.
_OUTSIDE = re.compile(
    r"\b(?:data|input|with|time|rand|uuid|http|net|opa|uvmd|import(?!\s+(?:future|rego)\b))\b"
)
#: What could read the default mounts, which lie in data beside our packages.
_OTHER_DATA = re.compile(r"\bdata\b(?!\.(?:framework|metadata|policy)\b)")
#: What makes candidates of a policy's text. `with` could put anything in their place.
_DECLARING = re.compile(
    r"\b(?:with|fragments|containers|external_processes|platform_rules|transparency_trust_lists"
    r"|api_version|api_svn|framework_version|framework_svn)\b"
)
#: One declaration of a value that is written out, the framework's included; nothing is called or chosen.
_WRITTEN_OUT = re.compile(
    r"[ \t]*([a-z0-9_]+)[ \t]*:?=[ \t]*"
    r'((?:""|true|false|null|-?[0-9][0-9.eE+-]*+|data\.framework\.[a-z0-9_]+|[][{},: \t])++)'
    r'(?:"")?[ \t\r]*'
)
_IMPORT = re.compile(r"[ \t]*import[ \t]+(?:rego\.v1|future\.keywords(?:\.[a-z]+)?)[ \t\r]*")
_PAIRS = (("[", "]"), ("{", "}"))
_PLAIN_VERSION = re.compile(r'^(?:api|framework)_(?:version|svn)[ \t]*:?=[ \t]*""[ \t\r]*$', re.MULTILINE)


@cache
def read_module(name: str) -> str:
    """Return one of our modules."""
    # Not importlib.resources, which would bring megabytes with it.
    with open(f"{os.path.dirname(__file__)}/rego/{name}.rego", encoding="utf-8") as file:
        return file.read()


def own_modules(*, indexed: bool) -> dict[str, str]:
    """Return our modules by file name."""
    names = (*_FRAMEWORK, "lookup_indexed" if indexed else "lookup_live")
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


def is_static(text: str) -> bool:
    """Say whether what the policy declares is the same at every question.

    Conservative: rules that are the framework's are fine, and whatever else reaches
    outside of the text is not. Only then may anything be computed ahead.
    """
    return _OUTSIDE.search(_ALIAS.sub("", bare(text))) is None


def is_settled(left: str) -> bool:
    """Say whether what ``literals.split`` left of a policy has no part in what it declares.

    Its rules may then ask whatever they like: the lists are elsewhere, the versions are plain
    texts, and nothing here speaks of either.
    """
    return _DECLARING.search(_PLAIN_VERSION.sub("", bare(left))) is None


def frameworks_rules(left: str) -> frozenset[str]:
    """Return the rules of a policy of which each is the framework's of the same name, and nothing else.

    ``left`` is what ``literals.split`` left of it. Where a line is more than a declaration
    that is written out there are none: there could be another rule of the name, or the line
    could be part of something else.
    """
    package, *lines = bare(left).split("\n")
    if package.rstrip() != "package policy":
        return frozenset()
    declared: dict[str, str] = {}
    for line in lines:
        if line.strip() in ("", '""') or _IMPORT.fullmatch(line):
            continue
        found = _WRITTEN_OUT.fullmatch(line)
        if found is None or any(line.count(opens) != line.count(closes) for opens, closes in _PAIRS):
            return frozenset()
        name, value = found[1], found[2].strip()
        if name in declared or not is_identifier(name):
            return frozenset()
        declared[name] = value
    return frozenset(name for name, value in declared.items() if value == f"data.framework.{name}")


def reads_mounts(text: str) -> bool:
    """Say whether the text could look at the default mounts itself."""
    return _OTHER_DATA.search(bare(text)) is not None


def bare(text: str) -> str:
    """Return the text without comments and without what stands in quotes."""
    return _TEXTS_AND_COMMENTS.sub('""', text)
