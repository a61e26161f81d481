"""What a new policy allows that the old one did not, and the other way round, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from uvmd_policy_rego.tools import words
from uvmd_policy_rego.tools.changes import Change, as_list, only_in
from uvmd_policy_rego.tools.check import SWITCHES
from uvmd_policy_rego.tools.compare_containers import compare_containers
from uvmd_policy_rego.tools.description import Description, Item, Point, describe
from uvmd_policy_rego.tools.reading import Document
from uvmd_policy_rego.tools.visible import visible
from uvmd_policy_rego.tools.writing import FLAGS, LISTS
from uvmd_policy_rego.values import canonical, compare_versions, to_number

#: How much a point lets through, whatever is asked; the common rules lie between.
_MEASURE: Final = {
    "deny": 0,
    "default_deny": 0,
    "missing": 0,
    "framework": 1,
    "allow": 2,
    "default_allow": 2,
}
_VERSIONS: Final = ("api_version", "api_svn", "framework_version", "framework_svn", "svn", "reason")


@dataclass(slots=True)
class Comparison:
    """The changes, and what cannot be compared because rules of the policies' own differ."""

    changes: list[Change] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)

    @property
    def status(self) -> int:
        """0: both allow the same; 1: they do not; 2: it cannot be told."""
        return 1 if self.changes else 2 if self.untold else 0


def compare(old: Document, new: Document) -> Comparison:
    """Compare two policies, or two fragments.

    Raises:
        NotRego: the rules cannot be asked about one of them.
    """
    before, after = describe(old), describe(new)
    found = Comparison()
    if before.is_fragment != after.is_fragment:
        kinds = ["a fragment" if one.is_fragment else "a policy" for one in (before, after)]
        found.untold.append(f"The first is {kinds[0]} and the second {kinds[1]}.")
        return found
    found.changes = list(_changes(before, after))
    found.untold = list(_untold(before, after))
    return found


def _changes(old: Description, new: Description) -> Iterator[Change]:
    if not old.is_fragment:
        yield from _points(old, new)
        yield from _switches(old, new)
    elif canonical(old.svn) != canonical(new.svn):
        yield Change("other", "", f"the SVN was {old.svn} and is {new.svn}")
    yield from compare_containers(_counting(old, "containers"), _counting(new, "containers"))
    yield from _processes(_values(old, "external_processes"), _values(new, "external_processes"))
    yield from _imports(_values(old, "fragments"), _values(new, "fragments"))
    for name, what in (("transparency_trust_lists", "trust list"), ("platform_rules", "platform rule")):
        before, after = _values(old, name), _values(new, name)
        for one in only_in(after, before):
            yield Change("more", what, f"there is a new one: {_shown(name, one)}")
        for one in only_in(before, after):
            yield Change("less", what, f"one is gone: {_shown(name, one)}")


def _dead(description: Description) -> bool:
    """Say whether a policy denies all, for it has no usable version of the API."""
    return not description.is_fragment and compare_versions(description.api_version, "0.0.0") is None


def _counting(description: Description, name: str) -> list[Item]:
    return [] if _dead(description) else description.items(name)


def _values(description: Description, name: str) -> list[dict[str, Any]]:
    return [item.value or {} for item in _counting(description, name)]


def _shown(name: str, one: Mapping[str, Any]) -> str:
    if name == "transparency_trust_lists":
        ledgers = words.listed(as_list(one.get("allowed_ledgers")))
        whom = f"{one.get('issuer')} for {one.get('subject')}"
        return f"{whom}, SVN {one.get('minimum_svn')} or later: {ledgers}"
    envs = [words.env_rule(rule)[0] for rule in as_list(one.get("env_rules"))]
    mounts = [words.mount(mount)[0] for mount in as_list(one.get("mounts"))]
    return f"variables {words.listed(envs)}; mounts at {words.listed(mounts)}"


def _points(old: Description, new: Description) -> Iterator[Change]:
    for name, after in new.points.items():
        before = old.points.get(name, Point(name, "default_deny"))
        one, other = (_answer(old, before), _answer(new, after))
        if one is None or other is None or one == other:
            continue
        allows = "more" if other > one else "less"
        yield Change(allows, name, f"was {_WORDS[one]}, is {_WORDS[other]}")


_WORDS: Final = {0: "always denied", 1: "decided by the common rules", 2: "always allowed"}


def _answer(description: Description, point: Point) -> int | None:
    return 0 if _dead(description) else _MEASURE.get(point.answer)


def _switches(old: Description, new: Description) -> Iterator[Change]:
    for name in FLAGS:
        if None in (old.flags.get(name), new.flags.get(name)):
            continue
        before = not _dead(old) and old.on(name)
        after = not _dead(new) and new.on(name)
        if before != after:
            text = SWITCHES[name][1]
            yield Change("more" if after else "less", name, text if after else f"no longer: {text}")


def _processes(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Iterator[Change]:
    where = "beside the containers"
    for one in only_in(new, old):
        yield Change("more", where, f"the host may run {_process(one)}")
    for one in only_in(old, new):
        yield Change("less", where, f"the host may no longer run {_process(one)}")


def _process(one: Mapping[str, Any]) -> str:
    envs = [words.env_rule(rule)[0] for rule in as_list(one.get("env_rules"))]
    stdio = "open" if one.get("allow_stdio_access") else "closed"
    command = words.command(one.get("command"))
    return f"`{command}` in {one.get('working_dir')} with {words.listed(envs)}, input and output {stdio}"


def _imports(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Iterator[Change]:
    def by_signer(imports: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for one in imports:
            found.setdefault(json.dumps([one.get("issuer"), one.get("feed")]), []).append(one)
        return found

    before, after = by_signer(old), by_signer(new)
    for key in dict.fromkeys([*before, *after]):
        issuer, feed = json.loads(key)
        where = f"signer of {feed}"
        mine, theirs = before.get(key, []), after.get(key, [])
        if len(mine) == len(theirs) == 1:
            for allows, text in _import(mine[0], theirs[0]):
                yield Change(allows, where, text)
            continue
        for one in only_in(theirs, mine):
            added = words.includes(one.get("includes"))
            text = f"{issuer} may add {added} (SVN {one.get('minimum_svn')} or later)"
            yield Change("more", where, text)
        for one in only_in(mine, theirs):
            yield Change("less", where, f"{issuer} may no longer add {words.includes(one.get('includes'))}")


def _import(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    before, after = old.get("minimum_svn"), new.get("minimum_svn")
    order = _order(before, after)
    if order:
        verb = "may be as old as" if order > 0 else "must be at least"
        yield "more" if order > 0 else "less", f"the SVN {verb} {after}, it was {before}"
    elif order is None and before != after:
        yield "other", f"the SVN must be at least {after}, it was {before}: these cannot be compared"
    added = list(only_in(as_list(new.get("includes")), as_list(old.get("includes"))))
    removed = list(only_in(as_list(old.get("includes")), as_list(new.get("includes"))))
    if added:
        yield "more", f"may add {words.includes(added)}"
    if removed:
        yield "less", f"may no longer add {words.includes(removed)}"
    for one in only_in(as_list(new.get("required_receipts")), as_list(old.get("required_receipts"))):
        yield "less", f"needs a receipt from {one}"
    for one in only_in(as_list(old.get("required_receipts")), as_list(new.get("required_receipts"))):
        yield "more", f"needs no receipt from {one} any more"
    if canonical(old.get("parameters") or {}) != canonical(new.get("parameters") or {}):
        yield "other", "its parameters are others"


def _order(one: Any, other: Any) -> int | None:
    """Return 1 if *one* is the newer; None where they cannot be compared."""
    found = compare_versions(one, other)
    if found is not None:
        return found
    a, b = to_number(one), to_number(other)
    return None if a is None or b is None else (a > b) - (a < b)


def _untold(old: Description, new: Description) -> Iterator[str]:
    sides = [_own(one) for one in (old, new)]
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        if sides[0].get(name) != sides[1].get(name):
            yield f"{name} is a rule of the policies' own and not the same in both: somebody must read it."
    for one in dict.fromkeys([*old.untold, *new.untold]):
        # The same rules in both were compared as texts, just before.
        if "decided by a rule" not in one and (old.document.text != new.document.text):
            yield one


def _own(description: Description) -> dict[str, list[str]]:
    """Return the sources of all statements that are not plainly understood, by name."""
    known = {*FLAGS, *LISTS, *_VERSIONS, *description.points}
    found: dict[str, list[str]] = {}
    for one in description.document.statements:
        plain = one.kind in ("literal", "alias")
        unknown_alias = one.kind == "alias" and one.name not in known
        if (not plain or (one.name not in known and not unknown_alias)) and one.name != "reason":
            found.setdefault(one.name, []).append(one.source)
    return found


def as_text(found: Comparison) -> str:
    """Return the comparison for a terminal."""
    lines: list[str] = []
    titles = (("more", "NOW ALLOWED"), ("less", "NO LONGER ALLOWED"), ("other", "DIFFERENT"))
    for allows, title in titles:
        listed = [one for one in found.changes if one.allows == allows]
        if listed:
            lines += [title, *(f"  {one.where + ': ' if one.where else ''}{one.text}" for one in listed), ""]
    if found.untold:
        lines += ["WHAT CANNOT BE TOLD", *(f"  {one}" for one in found.untold), ""]
    return "\n".join(map(visible, lines)).rstrip() or "Both allow the same."


def as_json(found: Comparison) -> list[dict[str, str]]:
    """Return the comparison for ``--json``: changes, and what is ``unknown``."""
    unknown = [{"allows": "unknown", "where": "", "text": one} for one in found.untold]
    return [*(one.as_json() for one in found.changes), *unknown]
