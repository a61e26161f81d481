"""Lint for containers and external processes: each by itself, and against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from uvmd_policy_rego.tools.check_container import LABELS, ContainerCheck
from uvmd_policy_rego.tools.check_fields import check_env_rule, unknown_fields
from uvmd_policy_rego.tools.description import Description, Item
from uvmd_policy_rego.tools.findings import Findings, duplicates
from uvmd_policy_rego.tools.literals import Parameter
from uvmd_policy_rego.tools.words import command
from uvmd_policy_rego.values import canonical

_PROCESS: Final = ("command", "env_rules", "working_dir", "allow_stdio_access")


def check_containers(description: Description, found: Findings) -> None:
    """Check every container, and containers against each other."""
    for item in description.lists["containers"]:
        where = f"containers[{item.index}]" + (f" ({item.name})" if item.name else "")
        ContainerCheck(description, item, where, found).check()
    items = description.containers
    plain = [_without_labels(item.value or {}) for item in items]
    for number, first in duplicates(plain, canonical):
        text = f"is the same as containers[{items[first].index}]"
        found.add("warning", "duplicate", items[number].line, f"containers[{items[number].index}]", text)
    _check_stdio(items, found)


def _without_labels(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: one for key, one in value.items() if key not in LABELS}


def _check_stdio(items: list[Item], found: Findings) -> None:
    # Whatever fits one fits the other, and then the answer on stdio is two: denied.
    def key(value: Mapping[str, Any]) -> str:
        plain = _without_labels(value)
        return canonical({name: plain[name] for name in plain if name != "allow_stdio_access"})

    for number, first in duplicates([item.value or {} for item in items], key):
        one, other = items[number], items[first]
        if (one.value or {}).get("allow_stdio_access") != (other.value or {}).get("allow_stdio_access"):
            text = f"differs from containers[{other.index}] only in allow_stdio_access: neither can run"
            found.add("error", "ambiguous-stdio", one.line, f"containers[{one.index}]", text)


def check_processes(description: Description, found: Findings) -> None:
    """Check external processes."""
    for item in description.lists["external_processes"]:
        where, one, line = f"external_processes[{item.index}]", item.declared, item.line
        unknown_fields(one, _PROCESS, line, where, found)
        for name in _PROCESS:
            if name not in one:
                found.add("error", "missing-field", line, where, f"{name!r} is missing: it can never run")
        text = "runs in the VM itself, beside the containers and as root"
        found.add("warning", "external-process", line, where, f"`{command(one.get('command'))}` {text}")
        for number, rule in enumerate(one.get("env_rules") or ()):
            check_env_rule(rule, line, f"{where}.env_rules[{number}]", found)
        directory = one.get("working_dir", "/")
        if not isinstance(directory, Parameter) and not str(directory).startswith("/"):
            text = "working_dir is no absolute path, and a process always has one"
            found.add("error", "never", line, where, text)
    values = [item.value or {} for item in description.items("external_processes")]
    _ambiguous(values, found)


def _ambiguous(values: list[dict[str, Any]], found: Findings) -> None:
    def key(one: Mapping[str, Any]) -> str:
        return canonical({name: one.get(name) for name in _PROCESS if name != "allow_stdio_access"})

    for number, first in duplicates(values, key):
        if values[number].get("allow_stdio_access") != values[first].get("allow_stdio_access"):
            text = f"differs from external_processes[{first}] only in allow_stdio_access: neither can run"
            found.add("error", "ambiguous-stdio", 0, f"external_processes[{number}]", text)
