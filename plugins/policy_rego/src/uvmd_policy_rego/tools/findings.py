"""What ``check`` finds: one remark, how grave it is, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from uvmd_policy_rego.tools.visible import visible

LEVELS: Final = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """``error``: does not do what it says; ``warning``: allows more than it seems; ``note``: worth a look."""

    level: str
    code: str
    #: 0 where there is no line.
    line: int
    #: ``containers[2].env_rules[0]`` say; empty for the whole.
    where: str
    text: str
    #: A value that shows it.
    example: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        return {
            "level": self.level,
            "code": self.code,
            "line": self.line or None,
            "where": self.where,
            "text": self.text,
            "example": self.example or None,
        }

    def sentence(self, path: str) -> str:
        """Return it as a line of a compiler's: ``FILE:LINE: level: where: text [code]``."""
        place = f"{path}:{self.line}" if self.line else path
        where = f"{self.where}: " if self.where else ""
        example = f" (for one, {self.example!r})" if self.example else ""
        return visible(f"{place}: {self.level}: {where}{self.text}{example} [{self.code}]")


class Findings:
    """Collects findings about one place after another."""

    def __init__(self) -> None:
        self.all: list[Finding] = []

    def add(self, level: str, code: str, line: int, where: str, text: str, example: str = "") -> None:
        """Add one."""
        self.all.append(Finding(level, code, line, where, text, example))

    def sorted(self) -> list[Finding]:
        """Return them by line."""
        return sorted(self.all, key=lambda one: (one.line, LEVELS.index(one.level)))


def duplicates(values: Iterable[Any], key: Callable[[Any], str]) -> Iterator[tuple[int, int]]:
    """Yield (number, number of its first equal) for values that are there already."""
    seen: dict[str, int] = {}
    for number, value in enumerate(values):
        first = seen.setdefault(key(value), number)
        if first != number:
            yield number, first
