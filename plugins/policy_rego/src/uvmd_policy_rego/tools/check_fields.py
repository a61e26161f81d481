"""Lint that all objects share: fields that nobody knows, and patterns."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, Final

from uvmd_policy_rego.tools.findings import Findings
from uvmd_policy_rego.tools.pattern_words import (
    compiles,
    looks_like_pattern,
    matches,
    remarks_on,
    remarks_on_env,
)

#: Of a pattern: does it do less than it should, more, or is it merely worth a look.
LEVELS: Final = {"pattern-invalid": "error", "pattern-case": "note", "pattern-newline": "note"}
RULE_FIELDS: Final = (
    {"pattern", "strategy"},
    {"name", "name_strategy", "value", "value_strategy"},
)


def unknown_fields(
    one: Mapping[str, Any], known: Collection[str], line: int, where: str, found: Findings
) -> None:
    """Say which fields of an object nobody reads."""
    for key in one:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1, 0.75)
            text = f"{key!r} is not known and has no effect"
            found.add(
                "error" if close else "warning", "unknown-field", line, where,
                text + (f"; did you mean {close[0]!r}?" if close else ""),
            )  # fmt: skip


def check_env_rule(rule: Any, line: int, where: str, found: Findings) -> None:
    """Check one rule of environment variables."""
    if not isinstance(rule, dict):
        found.add("error", "no-rule", line, where, "is no object: it matches nothing")
        return
    whole, split = (fields <= rule.keys() for fields in RULE_FIELDS)
    unknown_fields(rule, RULE_FIELDS[0] | RULE_FIELDS[1] | {"required"}, line, where, found)
    if not whole and not split:
        text = "has neither pattern and strategy nor name, value and their strategies: it matches nothing"
        found.add("error", "no-rule", line, where, text)
        return
    required = rule.get("required", False)
    if not isinstance(required, bool):
        text = f"required is {required!r}; whatever is not false counts as required"
        found.add("warning", "required-value", line, where, text)
    if whole:
        _check_text(rule["pattern"], rule["strategy"], line, where, found)
        if rule["strategy"] == "re2" and isinstance(rule["pattern"], str) and compiles(rule["pattern"]):
            for remark in remarks_on_env(rule["pattern"]):
                text = f"{rule['pattern']!r} {remark.text}"
                found.add("warning", remark.code, line, where, text, remark.example)
        elif rule["strategy"] == "string" and isinstance(rule["pattern"], str) and "=" not in rule["pattern"]:
            found.add("warning", "env-name", line, where, f"{rule['pattern']!r} has no =, variables have one")
    if split:
        _check_split(rule, line, where, found)


def _check_split(rule: Mapping[str, Any], line: int, where: str, found: Findings) -> None:
    for part in ("name", "value"):
        _check_text(rule[part], rule[f"{part}_strategy"], line, f"{where}.{part}", found)
    name, value = rule["name"], rule["value"]
    if rule["name_strategy"] != "re2" or rule["value_strategy"] not in ("re2", "string"):
        return
    names = ("LD_PRELOAD", "PATH", "BASH_ENV") if isinstance(name, str) else ()
    probes = [one for one in names if matches(name, one)]
    free = rule["value_strategy"] == "re2" and isinstance(value, str) and matches(value, "/x.so")
    if probes and free:
        text = f"{name!r} lets the host choose {', '.join(probes)}"
        found.add("warning", "env-dangerous", line, where, text, f"{probes[0]}=/x.so")


def _check_text(pattern: Any, strategy: Any, line: int, where: str, found: Findings) -> None:
    if not isinstance(pattern, str):
        found.add("error", "no-text", line, where, f"{pattern!r} is no text: it matches nothing")
    elif strategy == "re2":
        check_pattern(pattern, line, where, found)
    elif strategy == "string":
        value = pattern.partition("=")[2] or pattern
        if looks_like_pattern(value):
            text = f"{pattern!r} looks like a pattern, and is compared letter by letter"
            found.add("warning", "not-a-pattern", line, where, text)
    else:
        text = f"the strategy {strategy!r} is none of string, re2: it matches nothing"
        found.add("error", "strategy", line, where, text)


def check_pattern(pattern: str, line: int, where: str, found: Findings) -> None:
    """Check a pattern for what it matches beyond its looks."""
    for remark in remarks_on(pattern):
        level = LEVELS.get(remark.code, "warning")
        found.add(level, remark.code, line, where, f"{pattern!r} {remark.text}", remark.example)
