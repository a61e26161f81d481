"""Gathers the pages of the documentation site: written ones, READMEs, and generated references.

Links that lead out of a page's folder are followed: to another page of the site, or, for a
file of the repository, to nowhere; then the words stay and the link goes.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

LINKED = re.compile(r"\[([^\[\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")

#: Tabs and their pages, in reading order; pages that are missing here go under "More".
TABS: Mapping[str, tuple[str, ...]] = {
    "Operators": (
        "operators.md",
        "settings.md",
        "hardening.md",
        "guest-image.md",
        "vm.md",
        "containers.md",
        "uvmctl.md",
        "images.md",
        "figures.md",
        "start-up.md",
        "restart.md",
        "soak.md",
        "comparison.md",
    ),
    "Vendors": ("tutorial.md", "plugins.md", "guest-tests.md"),
    "Policies": (
        "policy-authors.md",
        "policy-reviewers.md",
        "fragments.md",
        "policyd.md",
        "policy-replay.md",
    ),
    "Reference": (
        "reference/configuration.md",
        "reference/uvmctl.md",
        "reference/messages.md",
        "protocol.md",
        "monitor-protocol.md",
        "glossary.md",
    ),
}


def sources(repository: Path) -> dict[str, Path]:
    """Return every page of the site that somebody wrote, by its path on the site."""
    pages = {"index.md": repository / "README.md", "changelog.md": repository / "CHANGELOG.md"}
    docs = repository / "docs"
    pages |= {path.relative_to(docs).as_posix(): path for path in sorted(docs.rglob("*.md"))}
    pages |= {
        f"plugins/{path.parent.name}.md": path for path in sorted(repository.glob("plugins/*/README.md"))
    }
    return pages


def rewritten(text: str, page: str, source: Path, repository: Path, pages: Mapping[str, Path]) -> str:
    """Return a page with its links as the site has them."""
    targets = {path.resolve(): name for name, path in pages.items()}

    def follow(match: re.Match[str]) -> str:
        words, link, anchor = match[1], match[2], match[3] or ""
        target = (source.parent / link).resolve()
        for candidate in (target, target / "README.md"):
            if candidate in targets:
                there = posixpath.relpath(targets[candidate], posixpath.dirname(page) or ".")
                return f"[{words}]({there}{anchor})"
        if not target.exists():
            raise ValueError(f"{source.relative_to(repository)}: {link} leads nowhere")
        return words

    return LINKED.sub(follow, text)


def navigation(pages: Iterable[str], titles: Mapping[str, str]) -> list[Any]:
    """Return the site's navigation: tabs, then plugins and decisions, then what no tab names."""
    left = set(pages)
    nav: list[Any] = [{"Home": "index.md"}]
    for tab, names in TABS.items():
        there = [name for name in names if name in left]
        nav.append({tab: [{titles[name]: name} for name in there]})
        left -= set(there)
    for tab, folder in (("Plugins", "plugins/"), ("Decisions", "decisions/")):
        there = sorted(name for name in left if name.startswith(folder))
        nav.append({tab: [{titles[name]: name} for name in there]})
        left -= set(there)
    rest = sorted(left - {"index.md"})
    return [*nav, {"More": [{titles[name]: name} for name in rest]}] if rest else nav


def title_of(text: str, page: str) -> str:
    """Return a page's first heading."""
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    return found[1].strip() if found else page.removesuffix(".md")


def configuration(help_text: str) -> str:
    """Return the page about the options: the daemon's own help."""
    return f"# Configuration\n\nWhat `uvmd serve --help` prints.\n\n```text\n{help_text.rstrip()}\n```\n"


def verbs(helps: Mapping[str, str]) -> str:
    """Return the page about uvmctl's verbs: the help of each."""
    parts = ["# uvmctl, verb by verb", "What `uvmctl VERB --help` prints; [the tour](../uvmctl.md) explains."]
    for name, text in helps.items():
        parts.append(f"## {name}\n\n```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def messages(schemas: Mapping[str, Any]) -> str:
    """Return the page about messages, resource types and plugin settings: a table of fields each."""
    parts = [
        "# Messages and settings",
        "Generated from the models that decode them; `uvmd schema NAME` prints the JSON Schema. "
        "[The bridge](../protocol.md) says what they mean.",
    ]
    for name, schema in sorted(schemas.items()):
        parts.append(f"## {name}")
        about = str(schema.get("description", "")).split("\n\n")[0].replace("\n", " ")
        if about:
            parts.append(about)
        fields = schema.get("properties", {})
        if fields:
            rows = [
                f"| `{key}` | {_kind(field, schema)} | {_default(field)} |" for key, field in fields.items()
            ]
            parts.append("\n".join(["| key | type | default |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def _kind(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return f"object ({field['$ref'].rpartition('/')[2]})"
    if "anyOf" in field:
        return " or ".join(_kind(one, schema) for one in field["anyOf"])
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(field.get('items', {}), schema)}"
    limits = [f"{sign} {field[key]}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in field]
    return " ".join([kind, *limits])


def _default(field: Mapping[str, Any]) -> str:
    return f"`{json.dumps(field['default'])}`" if "default" in field else ""
