"""A fragment's long lists, written so that the engine parses them as JSON: in a hundredth of the time.

``containers := [...]`` becomes ``containers := json.unmarshal("...")``, which is the same
value. Only plain JSON is lifted; whatever calls, refers or computes stays as it is.
"""

from __future__ import annotations

import re

from uvmd_policy_rego.literals import DECODER, LAST_COMMA_OR_TEXT, NAMES, REST_OF_LINE

_HEAD = re.compile(rf"^((?:{NAMES})[ \t]*:?=[ \t]*)(?=\[)", re.MULTILINE)
#: Up to a comma that is in no string.
_PIECES = re.compile(r'((?:"(?:[^"\\]|\\.)*"|[^",])*)(,|\Z)')
_LONG, _WRAP = 16384, 4096
#: Below this the engine is fast enough.
_SHORT = 400


def lift(text: str) -> str:
    """Return a module of the same meaning whose plain lists are quick to parse."""
    # A raw string may hold lines that look like ours.
    if "`" in text:
        return text
    clean = LAST_COMMA_OR_TEXT.sub(r"\1", text)
    kept, at = [], 0
    for head in _HEAD.finditer(clean):
        if head.start() < at:
            continue  # inside of a list that was just lifted
        try:
            _, end = DECODER.raw_decode(clean, head.end())
        except (ValueError, RecursionError):
            continue
        if end - head.end() < _SHORT or REST_OF_LINE.match(clean, end) is None:
            continue
        # As it was written, so that numbers stay what they are; a raw string has no escapes.
        # The space tells the call from one of the fragment's own, which may get a wrong type.
        value = _in_lines(clean[head.end() : end])
        kept += [clean[at : head.start()], head.group(1), f"json.unmarshal (`{value}`)"]
        at = end
    return "".join([*kept, clean[at:]]) if kept else text


def _in_lines(value: str) -> str:
    """Return the JSON with no line too long for the engine, which breaks none in a raw string."""
    if len(value) < _LONG or not any(len(line) > _LONG for line in value.split("\n")):
        return value
    parts: list[str] = []
    column = 0
    for text, comma in _PIECES.findall(value):
        parts += (text, comma)
        column += len(text) + len(comma)
        if comma and column > _WRAP:
            parts.append("\n")
            column = 0
    return "".join(parts)
