"""A policy in plain words: one structure that text, JSON and the page for reviewers are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from uvmd_policy_rego.tools import words
from uvmd_policy_rego.tools.cards import Card, Chapter, chapters
from uvmd_policy_rego.tools.check import check_document
from uvmd_policy_rego.tools.description import Description, describe
from uvmd_policy_rego.tools.findings import Finding
from uvmd_policy_rego.tools.generate import Measured, measure
from uvmd_policy_rego.tools.reading import Document
from uvmd_policy_rego.tools.visible import visible

#: Codes of findings that come before all others of their level.
_GRAVEST: Final = (
    "always-allowed",
    "default-allowed",
    "external-process",
    "elevated",
    "env-any",
    "strong-capability",
    "env-dangerous",
    "exec-shell",
    "include-namespace",
    "include-fragments",
    "switch",
)


@dataclass(frozen=True, slots=True)
class Risk:
    """One thing to look at, and all the places that have it."""

    level: str
    text: str
    code: str
    example: str
    places: tuple[Finding, ...]


@dataclass(slots=True)
class Explanation:
    """See the module."""

    description: Description
    measured: Measured
    headline: str
    findings: list[Finding]
    chapters: list[Chapter] = field(default_factory=list)

    @property
    def risks(self) -> list[Risk]:
        """What a reviewer must see first, the gravest first; the same about several things is one."""
        found: dict[tuple[str, str], list[Finding]] = {}
        for one in self.findings:
            if one.level != "note":
                found.setdefault((one.level, one.text), []).append(one)
        risks = [
            Risk(level, text, places[0].code, places[0].example, tuple(places))
            for (level, text), places in found.items()
        ]
        return sorted(risks, key=lambda one: (one.level, _rank(one.code)))

    @property
    def untold(self) -> list[str]:
        """What cannot be told from the text."""
        return self.description.untold


def _rank(code: str) -> int:
    return _GRAVEST.index(code) if code in _GRAVEST else len(_GRAVEST)


def explain(document: Document) -> Explanation:
    """Explain a policy or fragment.

    Raises:
        NotRego: the rules cannot be asked about it.
    """
    description = describe(document)
    found = Explanation(description, measure(document.text), _headline(description), check_document(document))
    found.chapters = [chapter for chapter in chapters(description) if chapter.cards]
    return found


def _headline(description: Description) -> str:
    if description.is_fragment:
        package = description.document.package
        alone = "Alone it allows nothing: a policy must import it from its signer."
        return f"A fragment named {package}. {alone} It offers {_counted(description)}."
    if description.open_door:
        return "An open door: any container may run, whatever it is. Only for tests."
    if description.points["create_container"].answer == "own":
        return "Containers are allowed by a rule of the policy's own, which has to be read."
    if not description.api_version or description.points["create_container"].answer in ("deny", "missing"):
        return "No container may run."
    return f"It allows {_counted(description)}. Whatever is not listed here is refused."


def _counted(description: Description) -> str:
    kinds = (
        ("containers", "container", "containers"),
        ("external_processes", "process in the VM beside them", "processes in the VM beside them"),
        ("fragments", "signer who may add to it", "signers who may add to it"),
    )
    parts = []
    for name, one, several in kinds:
        count = len(description.items(name))
        if count or name == "containers":
            parts.append(f"{count or 'no'} {one if count == 1 else several}")
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]


def as_text(found: Explanation) -> str:
    """Return the explanation for a terminal."""
    description = found.description
    lines = [found.headline, f"SHA-256 {found.measured.sha256}", _versions(description), ""]
    if found.risks:
        lines.append("LOOK AT THIS FIRST")
        for one in found.risks:
            lines.append(f"  ! {one.text}" + (f" (for one, {one.example!r})" if one.example else ""))
            for place in one.places:
                line = f", line {place.line}" if place.line else ""
                lines += [f"      {words.place(place.where)}{line}"] if place.where else []
        lines.append("")
    if found.untold:
        lines += ["WHAT CANNOT BE TOLD FROM THE TEXT", *(f"  ? {one}" for one in found.untold), ""]
    for chapter in found.chapters:
        lines += [chapter.title.upper(), f"  {chapter.intro}", ""]
        for card in chapter.cards:
            lines += [*_card_text(card), ""]
    return "\n".join(map(visible, lines)).rstrip()


def _versions(description: Description) -> str:
    svn = f", SVN {description.svn}" if description.is_fragment else ""
    return f"API {description.api_version}, framework {description.framework_version}{svn}"


def _card_text(card: Card) -> Iterator[str]:
    line = f"   (line {card.line})" if card.line else ""
    yield f"  {card.title}: {card.code}{line}" if card.code else f"  {card.title}"
    for fact in card.facts:
        mark = "!" if fact.tone == "risk" else " "
        yield f"  {mark}   {fact.label + ':':18}{fact.text}"
        for code, text in fact.lines:
            yield f"{'':24}{code}" + (f"   ({text})" if text else "")


def as_json(found: Explanation) -> dict[str, Any]:
    """Return the explanation for ``--json``; the objects as the rules take them stand beside the words."""
    description = found.description
    return {
        "kind": "fragment" if description.is_fragment else "policy",
        "headline": found.headline,
        "sha256": found.measured.sha256,
        "api_version": description.api_version,
        "framework_version": description.framework_version,
        "svn": description.svn,
        "legacy_json": description.document.legacy,
        "risks": [place.as_json() for one in found.risks for place in one.places],
        "untold": found.untold,
        "chapters": [_chapter_json(chapter) for chapter in found.chapters],
        "points": {point.name: point.answer for point in description.points.values()},
        "flags": description.flags,
        **{name: [one.value for one in description.items(name)] for name in description.lists},
    }


def _chapter_json(chapter: Chapter) -> dict[str, Any]:
    return {
        "title": chapter.title,
        "cards": [
            {
                "title": card.title,
                "line": card.line or None,
                "facts": [
                    {"label": fact.label, "text": fact.text, "lines": [list(line) for line in fact.lines]}
                    for fact in card.facts
                ],
            }
            for card in chapter.cards
        ],
    }
