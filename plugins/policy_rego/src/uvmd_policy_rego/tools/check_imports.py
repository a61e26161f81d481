"""Lint for what a policy lets others bring in: fragments, trust lists, platform rules."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from uvmd_policy_rego.tools.check_fields import unknown_fields
from uvmd_policy_rego.tools.config import INCLUDES
from uvmd_policy_rego.tools.description import Description, Item
from uvmd_policy_rego.tools.findings import Findings, duplicates
from uvmd_policy_rego.values import canonical, parse_version, to_number

_IMPORT: Final = {"issuer", "feed", "minimum_svn", "includes", "required_receipts", "parameters"}
_TRUST_LIST: Final = {"issuer", "subject", "minimum_svn", "allowed_ledgers"}
_PLATFORM_RULE: Final = {"env_rules", "mounts"}


def check_imports(description: Description, found: Findings) -> None:
    """Check the objects that are no containers or processes."""
    for item in description.lists["fragments"]:
        _check_import(description, item, found)
    _check_conflicts(description, found)
    for name, keys in (("transparency_trust_lists", _TRUST_LIST), ("platform_rules", _PLATFORM_RULE)):
        for item in description.lists[name]:
            where = f"{name}[{item.index}]"
            unknown_fields(item.declared, keys, item.line, where, found)
            if item.value is None:
                text = f"has no effect with framework_version {description.framework_version}"
                found.add("warning", "ignored", item.line, where, text)
    if len(description.items("platform_rules")) > 1:
        text = "are alternatives: a container may use one of them at a time, not their sum"
        found.add("note", "platform-rules", 0, "platform_rules", text)
    for item in description.items("transparency_trust_lists"):
        where = f"transparency_trust_lists[{item.index}]"
        if "*" in (item.declared.get("allowed_ledgers") or ()):
            text = "may name the keys of any ledger"
            found.add("warning", "any-ledger", item.line, where, text)


def _check_import(description: Description, item: Item, found: Findings) -> None:
    where, line, one = f"fragments[{item.index}]", item.line, item.declared
    unknown_fields(one, _IMPORT, line, where, found)
    for key in ("issuer", "feed", "minimum_svn", "includes"):
        if key not in one:
            found.add("error", "missing-field", line, where, f"{key} is missing: no fragment fits")
    if item.value is None and _IMPORT - {"required_receipts", "parameters"} <= one.keys():
        text = f"is not known with framework_version {description.framework_version}"
        found.add("error", "ignored", line, where, text)
    includes = one.get("includes")
    for include in includes if isinstance(includes, list) else ():
        if include not in INCLUDES:
            found.add("warning", "unknown-include", line, where, f"includes {include!r}, which is nothing")
    if isinstance(includes, list):
        _check_includes(includes, one, line, where, found)
    _check_svn(one, line, where, found)


def _check_includes(
    includes: list[Any], one: Mapping[str, Any], line: int, where: str, found: Findings
) -> None:
    signer = one.get("feed")
    if "namespace" in includes:
        text = f"rules of a fragment of the feed {signer} stay loaded, for the policy's own rules to use"
        found.add("warning", "include-namespace", line, where, text)
    if "fragments" in includes:
        text = f"a fragment of the feed {signer} may name further signers, who then add to this policy"
        found.add("warning", "include-fragments", line, where, text)
    if "external_processes" in includes:
        text = f"a fragment of the feed {signer} may add processes in the VM, beside the containers"
        found.add("note", "include-processes", line, where, text)
    if "platform_rules" in includes:
        text = "environment and mounts of every container may grow by what a fragment says"
        found.add("note", "include-platform-rules", line, where, text)


def _check_svn(one: Mapping[str, Any], line: int, where: str, found: Findings) -> None:
    minimum = one.get("minimum_svn")
    if minimum is None:
        return
    number = to_number(minimum)
    if number is None and parse_version(minimum) is None:
        text = f"minimum_svn {minimum!r} is neither a number nor a version: no fragment fits"
        found.add("error", "svn-invalid", line, where, text)
    elif number is None:
        text = "minimum_svn is a version: no fragment with a number, or with its SVN in the header, fits"
        found.add("note", "svn-version", line, where, text)
    elif number <= 0:
        text = "minimum_svn lets fragments of every age in, those that were replaced for a reason too"
        found.add("note", "svn-lowest", line, where, text)


def _check_conflicts(description: Description, found: Findings) -> None:
    items = description.items("fragments")
    for number, first in duplicates(items, lambda item: canonical(item.declared)):
        where = f"fragments[{items[number].index}]"
        text = f"is the same as fragments[{items[first].index}]"
        found.add("warning", "duplicate", items[number].line, where, text)
    for item, earlier in _pairs(items):
        if _includes(item) != _includes(earlier):
            text = (
                f"has the issuer and feed of fragments[{earlier.index}] and other includes:"
                " loading such a fragment ends in an error"
            )
            found.add("error", "conflict", item.line, f"fragments[{item.index}]", text)


def _pairs(items: list[Item]) -> Iterator[tuple[Item, Item]]:
    seen: dict[str, Item] = {}
    for item in items:
        key = json.dumps([item.declared.get("issuer"), item.declared.get("feed")])
        if key in seen:
            yield item, seen[key]
        seen.setdefault(key, item)


def _includes(item: Item) -> Any:
    includes = item.declared.get("includes")
    return sorted(map(str, includes)) if isinstance(includes, list) else includes
