"""Calls of builtins in policies and fragments, directed to ``rego/lenient.rego``.

Texts and comments are left alone, and so is every name that the document defines itself.
Operators (``1 + "a"``) cannot be directed anywhere: where they are given a wrong type
the question still ends with an error, and is denied.
"""

from __future__ import annotations

import json
import re

from uvmd_policy_rego.modules import bare, read_module

NAME = "lenient.rego"
_PLAIN = (
    "count sum product max min sort startswith endswith contains indexof substring lower upper trim "
    "trim_space trim_left trim_right trim_prefix trim_suffix replace split concat sprintf to_number abs"
)
_DOTTED = (
    "array.concat array.slice object.get object.keys object.union object.remove semver.compare "
    "semver.is_valid regex.match regex.split regex.find_n json.unmarshal json.is_valid base64.decode"
)
_TARGETS = {
    **{name: f"{name}_" for name in _PLAIN.split()},
    **{name: name.replace(".", "_") for name in _DOTTED.split()},
}
_NAMES = "|".join(re.escape(name) for name in sorted(_TARGETS, key=len, reverse=True))
_CALL = re.compile(rf'("(?:[^"\\\n]|\\.)*"|`[^`]*`|#[^\n]*)|(?<![\w.])({_NAMES})\(')
_DEFINITION = re.compile(rf"^[ \t]*(?:default[ \t]+)?({_NAMES})\(", re.MULTILINE)


def directed(text: str) -> str:
    """Return the document with its calls directed to the lenient builtins."""
    own = _defined(text)

    def target(found: re.Match[str]) -> str:
        name = found.group(2)
        if name is None or name in own:
            return found.group()
        return f"data.uvmd.lenient.{_TARGETS[name]}("

    return _CALL.sub(target, text)


def _defined(text: str) -> set[str]:
    """Return the names that are defined outside of any body."""
    clean = bare(text)
    return {
        found.group(1)
        for found in _DEFINITION.finditer(clean)
        if clean.count("{", 0, found.start()) == clean.count("}", 0, found.start())
    }


def module() -> str:
    """Return the module that has them."""
    return read_module("lenient")


def is_json(text: object) -> bool:
    """Say whether this is the text of one JSON value."""
    if not isinstance(text, str):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
