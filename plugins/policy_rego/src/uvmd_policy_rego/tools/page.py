"""The page for reviewers: one HTML file that loads nothing, for people who know no Rego."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape as escape_html
from importlib.resources import files
from typing import Final

from uvmd_policy_rego.tools import words
from uvmd_policy_rego.tools.cards import Card, Chapter, Fact
from uvmd_policy_rego.tools.explain import Explanation, Risk
from uvmd_policy_rego.tools.visible import visible

#: So that a browser holds the page to what it promises.
_SECURITY: Final = "default-src 'none'; style-src 'unsafe-inline'"
#: More lines than these fold away.
_SHOWN_LINES: Final = 12


def page(found: Explanation, name: str) -> str:
    """Return the page about a policy that is called *name*."""
    style = (files("uvmd_policy_rego.tools") / "page.css").read_text("utf-8")
    title = escape(f"{name}: what this {_kind(found)} allows")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_SECURITY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{title}</title><style>{style}</style></head><body>",
            '<div class="frame">',
            *_contents(found),
            "<main>",
            *_top(found, name),
            *_risks(found),
            *_untold(found),
            *(line for chapter in found.chapters for line in _chapter(chapter)),
            *_ending(found),
            "</main></div></body></html>",
            "",
        ]
    )


def escape(text: str) -> str:
    """Return text as HTML shows it. A policy cannot hide or turn round what it says."""
    return escape_html(visible(text))


def _kind(found: Explanation) -> str:
    return "fragment" if found.description.is_fragment else "policy"


def _contents(found: Explanation) -> Iterator[str]:
    yield '<nav aria-label="Contents"><p class="nav-title">Contents</p><ul>'
    yield '<li><a href="#top">At a glance</a></li>'
    if found.risks:
        count = len(found.risks)
        yield f'<li><a href="#risks">Look at this first <span class="count">{count}</span></a></li>'
    if found.untold:
        yield '<li><a href="#untold">What cannot be told</a></li>'
    for chapter in found.chapters:
        yield f'<li><a href="#{chapter.anchor}">{escape(chapter.title)}</a>'
        if len(chapter.cards) > 1 or chapter.anchor == "containers":
            yield "<ul>"
            for card in chapter.cards:
                yield f'<li><a href="#{card.anchor}">{escape(_short(card))}</a></li>'
            yield "</ul>"
        yield "</li>"
    yield '<li><a href="#reading">How to read this</a></li></ul></nav>'


def _short(card: Card) -> str:
    if re.fullmatch(r"(container|process) \d+", card.title) and card.code:
        program = card.code.split()[0].rpartition("/")[2] or card.code
        return f"{card.title}: {program}"[:42]
    return card.title[:42]


def _top(found: Explanation, name: str) -> Iterator[str]:
    description = found.description
    yield f'<header id="top"><p class="eyebrow">Security {_kind(found)} review</p>'
    yield f"<h1>{escape(name)}</h1>"
    yield f'<p class="headline">{escape(found.headline)}</p>'
    yield '<dl class="facts">'
    yield f"<div><dt>SHA-256 of the text</dt><dd><code>{found.measured.sha256}</code></dd></div>"
    versions = f"API {description.api_version}, framework {description.framework_version}"
    if description.is_fragment:
        versions += f", SVN {description.svn}"
    yield f"<div><dt>Written for</dt><dd>{escape(versions)}</dd></div></dl>"
    yield '<ul class="tiles">'
    for number, label, risky in _tiles(found):
        kind = ' class="risky"' if risky else ""
        yield f"<li{kind}><b>{number}</b><span>{escape(label)}</span></li>"
    yield "</ul></header>"


def _tiles(found: Explanation) -> Iterator[tuple[int, str, bool]]:
    description = found.description
    containers = [item.value or {} for item in description.containers]
    elevated = sum(one.get("allow_elevated") not in (False, None) for one in containers)
    stdio = sum(bool(one.get("allow_stdio_access")) for one in containers)
    execs = sum(len(one.get("exec_processes") or ()) for one in containers)
    outside = len(description.items("external_processes"))
    yield len(containers), "containers", False
    yield elevated, "may be privileged", bool(elevated)
    yield stdio, "with input and output open to the host", False
    yield execs, "commands that may be run in them", False
    yield outside, "processes beside the containers", bool(outside)
    yield len(description.items("fragments")), "signers who may add", False


def _risks(found: Explanation) -> Iterator[str]:
    yield '<section id="risks"><h2>Look at this first</h2>'
    if not found.risks:
        yield '<p class="fine">Nothing stood out. That is no proof: read on.</p></section>'
        return
    yield '<ul class="risks">'
    for one in found.risks:
        yield _risk(one)
    yield "</ul></section>"


def _risk(one: Risk) -> str:
    places = "".join(_place(place.where, place.line) for place in one.places)
    label = "does not work" if one.level == "error" else "allows much"
    example = ""
    if one.example:
        example = f' <span class="example">For one: <code>{escape(repr(one.example))}</code></span>'
    return (
        f'<li class="{one.level}"><span class="tag">{label}</span>'
        f'<div><p>{escape(_sentence(one.text))}{example}</p><p class="place">{places}</p></div></li>'
    )


def _place(where: str, line: int) -> str:
    shown = escape(words.place(where))
    anchor = _anchor(where)
    linked = f'<a href="#{anchor}">{shown}</a>' if anchor else shown
    number = f'<span class="line">line {line}</span>' if line else ""
    return f"<span>{linked}{number}</span>"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _anchor(where: str) -> str:
    """Return the card that a finding's place belongs to."""
    kinds = {
        "containers": "container",
        "external_processes": "process",
        "fragments": "signer",
        "transparency_trust_lists": "ledger",
        "platform_rules": "platform",
    }
    found = re.match(r"([a-z_]+)\[(\d+)\]", where)
    if found and found.group(1) in kinds:
        return f"{kinds[found.group(1)]}-{found.group(2)}"
    return "switches" if where.startswith("allow_") else ""


def _untold(found: Explanation) -> Iterator[str]:
    if not found.untold:
        return
    yield '<section id="untold"><h2>What cannot be told</h2>'
    yield "<p>The policy computes some of its answers by rules of its own. This page cannot judge them;"
    yield " someone who knows Rego must read them.</p><ul>"
    yield from (f"<li>{escape(one)}</li>" for one in found.untold)
    yield "</ul></section>"


def _chapter(chapter: Chapter) -> Iterator[str]:
    yield f'<section id="{chapter.anchor}"><h2>{escape(chapter.title)}</h2>'
    yield f"<p>{escape(chapter.intro)}</p>"
    for card in chapter.cards:
        yield from _card(card)
    yield "</section>"


def _card(card: Card) -> Iterator[str]:
    yield f'<article id="{card.anchor}"><h3>{escape(card.title)}'
    if card.line:
        yield f'<span class="line">line {card.line}</span>'
    yield "</h3>"
    if card.code:
        yield f'<p class="command"><code>{escape(card.code)}</code></p>'
    yield '<dl class="card">'
    for fact in card.facts:
        yield from _fact(fact)
    yield "</dl></article>"


def _fact(fact: Fact) -> Iterator[str]:
    kind = f' class="{fact.tone}"' if fact.tone else ""
    yield f"<div{kind}><dt>{escape(fact.label)}</dt><dd>"
    yield f"<p>{escape(fact.text)}</p>"
    if fact.lines:
        folded = len(fact.lines) > _SHOWN_LINES or fact.label == "Content"
        if folded:
            yield f"<details><summary>show {len(fact.lines)}</summary>"
        yield '<ul class="lines">'
        for code, meaning in fact.lines:
            said = f"<span>{escape(meaning)}</span>" if meaning else ""
            yield f"<li><code>{escape(code)}</code>{said}</li>"
        yield "</ul>"
        if folded:
            yield "</details>"
    yield "</dd></div>"


def _ending(found: Explanation) -> Iterator[str]:
    yield '<section id="reading"><h2>How to read this</h2><ul>'
    yield "<li>The host is not trusted. It asks the VM to mount, to start, to run;"
    yield " the policy decides.</li>"
    yield "<li>The hardware measures the text of the policy when the VM starts: the SHA-256 above must be the"
    yield " one in the attestation report (SEV-SNP: HOST_DATA; TDX: the first 32 bytes of MRCONFIGID).</li>"
    yield "<li>Patterns are regular expressions. <code>.+</code> stands for any text of one character or"
    yield " more. An example beside a pattern was tried: it fits.</li>"
    yield "<li>Green marks what is closed, red what gives the host or a container much.</li>"
    if found.description.document.legacy:
        yield "<li>This policy is JSON of an older kind; what is explained is the Rego that uvmd takes it"
        yield " for.</li>"
    yield "</ul></section>"
