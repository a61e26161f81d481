"""Which language a document is in: Rego v1, or the v0 that older hosts accepted.

The engine's v0 knows the keywords of v1 by import alone; where one is not imported it takes
the word for a name and goes on. ``x := y if { … }`` is then ``x := y``, always, and a rule
named ``if``. So one rule of the older kind must not bring a document of v1 into v0.
"""

from __future__ import annotations

import re

from uvmd_policy_rego.engine import Engine, EngineError
from uvmd_policy_rego.modules import bare

_IMPORT = re.compile(
    r'^[ \t]*import[ \t]+(rego\.v1|future\.keywords(?:\.[a-z]+)?)[ \t\r]*(?:"")?[ \t\r]*$', re.MULTILINE
)
#: Not the fields of something, and not calls of the function `contains`, which v0 has as well.
_WORD = re.compile(r"(?<![\w.])(?:every|if|in|contains(?!\())\b")
_IMPORTED = {
    "rego.v1": {"every", "if", "in", "contains"},
    "future.keywords": {"every", "if", "in", "contains"},
    "future.keywords.every": {"every", "in"},
    "future.keywords.if": {"if"},
    "future.keywords.in": {"in"},
    "future.keywords.contains": {"contains"},
}
_BRACKET_OR_HEAD = re.compile(
    r"[\[{(]|[\]})]|^[ \t]*(?:default[ \t]+)?(?:input|data)(?:\.\w+|\[[^]\n]*\])*[ \t]*(?::?=(?!=)|[{(])",
    re.MULTILINE,
)
_IMPORTED_OVER = re.compile(r"^[ \t]*import\b[^\n]*\bas[ \t]+(?:input|data)\b", re.MULTILINE)


def add_document(engine: Engine, name: str, text: str) -> bool:
    """Parse a document as Rego v1, else as v0; say whether it is v0.

    Raises:
        EngineError: it is neither; the error is that of v1.
    """
    try:
        engine.add_module(name, text)
    except EngineError as error:
        clean = bare(text)
        if _speaks_v1(clean) or _shadows(clean):
            raise
        try:
            engine.add_module(name, text, old=True)
        except EngineError:
            raise error from None
        return True
    return False


def _speaks_v1(clean: str) -> bool:
    """Say whether a keyword of v1 is there that was not imported into v0."""
    imported: set[str] = set().union(*(_IMPORTED.get(one, set()) for one in _IMPORT.findall(clean)))
    return not imported.issuperset(_WORD.findall(_IMPORT.sub("", clean)))


def _shadows(clean: str) -> bool:
    """Say whether a rule or import is named ``input`` or ``data``.

    OPA's v0 gives the name to the rule, the engine's does not: conditions would be about
    something else than was meant.
    """
    depth = 0
    for found in _BRACKET_OR_HEAD.finditer(clean):
        if len(found[0]) > 1:
            if depth == 0:
                return True
            depth += found[0][-1] in "{("
        else:
            depth += 1 if found[0] in "[{(" else -1
    return _IMPORTED_OVER.search(clean) is not None
