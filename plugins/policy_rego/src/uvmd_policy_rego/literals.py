"""A policy's long lists, taken out of its text where they are plain JSON.

Tools write everything that a policy declares as JSON. Parsed as such and handed to the
engine as data it means the same as in the text, and is there in a tenth of the time.
Wherever there is a doubt the text stays whole.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from uvmd_policy_rego.modules import bare, begins_a_statement, ends_a_statement

NAMES = "fragments|containers|external_processes|platform_rules|transparency_trust_lists"
_PACKAGE = re.compile(r"package policy[ \t\r]*\n")
_HEAD = re.compile(rf"^({NAMES})[ \t]*:?=[ \t]*(?=\[)", re.MULTILINE)
# Rego allows a comma after the last element, JSON does not; neither allows one after none.
_LAST_COMMA = re.compile(r",(?=\s*[\]}])")
LAST_COMMA_OR_TEXT = re.compile(r'("(?:[^"\\\n]|\\.)*"|[\[{,]\s*,)|,(?=\s*[\]}])')
#: Looking back for the start of each line would take long in one of megabytes.
_LONG_LINE = 1 << 16
REST_OF_LINE = re.compile(r"[ \t\r]*(?:\n|\Z)")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _finite(number: str) -> float:
    value = float(number)
    if value in (float("inf"), -float("inf")):
        raise ValueError(number)
    return value


#: Reads JSON that Rego means the same by.
DECODER = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_refuse, parse_float=_finite)


class Split(NamedTuple):
    """What is left of the text, and the lists by name."""

    text: str
    lists: dict[str, Any]


def split(text: str) -> Split:
    """Take the lists out, all or none of them."""
    whole = Split(text, {})
    if not _PACKAGE.match(text) or "`" in text:
        return whole
    clean = _without_last_commas(text)
    kept, lists, at = [], {}, 0
    for head in _HEAD.finditer(clean):
        if head.start() < at:
            continue  # inside of a list that was just taken
        try:
            value, end = DECODER.raw_decode(clean, head.end())
        except (ValueError, RecursionError):
            return whole
        rest = REST_OF_LINE.match(clean, end)
        if rest is None or head.group(1) in lists:
            return whole
        kept.append(clean[at : head.start()])
        # Without it what stands around it would mean something else: a condition on the next
        # line would become the last one's, the assignment in a body the policy's own.
        if not (begins_a_statement(clean, rest.end()) and ends_a_statement(bare("".join(kept)))):
            return whole
        lists[head.group(1)] = value
        at = rest.end()
    kept.append(clean[at:])
    left = "".join(kept)
    # Rules that speak of a list by its name would no longer find it.
    if any(re.search(rf"\b{name}\b", bare(left)) for name in lists):
        return whole
    return Split(left, lists)


def _without_last_commas(text: str) -> str:
    parts, at = [], 0
    for comma in _LAST_COMMA.finditer(text):
        line = text[text.rfind("\n", 0, comma.start()) + 1 : comma.start()]
        if len(line) > _LONG_LINE:
            return LAST_COMMA_OR_TEXT.sub(r"\1", text)
        # Texts do not go over the end of a line: an odd number of quotes, and this is one.
        behind = comma.start() - 1
        while text[behind].isspace():
            behind -= 1
        if text[behind] not in "[{," and line.replace("\\\\", "").replace('\\"', "").count('"') % 2 == 0:
            parts.append(text[at : comma.start()])
            at = comma.end()
    return "".join([*parts, text[at:]])
