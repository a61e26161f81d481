"""Texts of a policy as people may be shown them: nothing hidden, nothing that steers a terminal."""

from __future__ import annotations

import unicodedata
from typing import Final

#: Control, format (such as "from here right to left"), unassigned, private; separators of lines.
_HIDDEN: Final = frozenset(("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"))


def visible(text: str) -> str:
    """Return the text on one line, with what cannot be seen written as its number."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"‹U+{ord(one):04X}›" if unicodedata.category(one) in _HIDDEN else one for one in text)


def foreign(text: str) -> str:
    """Name the letters of a text beyond ASCII, which may look like others; empty if there are none."""
    found = (f"{one} ({unicodedata.name(one, 'without a name')})" for one in text if not one.isascii())
    return ", ".join(dict.fromkeys(found))


def hidden(text: str) -> str:
    """Name the characters of a text that cannot be seen; empty if there are none."""
    found = (f"U+{ord(one):04X}" for one in text if unicodedata.category(one) in _HIDDEN)
    return ", ".join(dict.fromkeys(found))
