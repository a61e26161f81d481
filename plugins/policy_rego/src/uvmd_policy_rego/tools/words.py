"""Single things of a policy in plain words: rules, mounts, users, rights, signers."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Mapping, Sequence
from typing import Any, Final

from uvmd_policy_rego import defaults
from uvmd_policy_rego.tools.literals import Parameter
from uvmd_policy_rego.tools.pattern_words import compiles, sample

_SETS: Final = ("bounding", "effective", "inheritable", "permitted", "ambient")
_EKUS: Final = {
    "1.3.6.1.4.1.311.76.59.1.3": "that of Azure's infrastructure fragments",
    "1.3.6.1.5.5.7.3.3": "code signing",
}
INCLUDES: Final = {
    "containers": "containers",
    "fragments": "further signers and fragments",
    "external_processes": "processes in the VM, beside the containers",
    "transparency_trust_lists": "lists of transparency ledgers to trust",
    "platform_rules": "environment and mounts for every container",
    "namespace": "rules that the policy's own rules may use",
}


def command(value: Any) -> str:
    """Return a command as one would type it."""
    if not isinstance(value, list):
        return str(value)
    return " ".join(str(one) if isinstance(one, Parameter) else shlex.quote(str(one)) for one in value)


def text_rule(pattern: Any, strategy: Any) -> str:
    """Say which texts a pattern with its strategy stands for."""
    if strategy == "string":
        return "exactly this"
    if strategy != "re2":
        return f"never: the strategy {strategy!r} is unknown"
    if not compiles(pattern):
        return "never: the pattern does not compile"
    example = sample(str(pattern))
    shown = f", {example!r} for one" if example else ""
    return f"whatever fits the pattern{shown}"


def env_rule(rule: Any) -> tuple[str, str]:
    """Return a rule for environment variables, and what it means."""
    if not isinstance(rule, dict):
        return str(rule), "never: it is no rule"
    must = "must be there" if rule.get("required", False) is not False else "may be there"
    if {"pattern", "strategy"} <= rule.keys():
        return str(rule["pattern"]), f"{must}; {text_rule(rule['pattern'], rule['strategy'])}"
    if {"name", "value", "name_strategy", "value_strategy"} <= rule.keys():
        name = text_rule(rule["name"], rule["name_strategy"])
        value = text_rule(rule["value"], rule["value_strategy"])
        return f"{rule['name']}={rule['value']}", f"{must}; name: {name}; value: {value}"
    return str(rule), "never: it is no rule"


def mount(value: Any) -> tuple[str, str]:
    """Return where a mount goes, and what may be mounted there."""
    if not isinstance(value, dict):
        return str(value), "never: it is no mount"
    source, options = str(value.get("source", "")), value.get("options")
    listed = [str(one) for one in options] if isinstance(options, list) else []
    writable = "read-only" if "ro" in listed else "writable" if "rw" in listed else "as its options say"
    if source.startswith(defaults.SANDBOX_PREFIX):
        path = source.removeprefix(defaults.SANDBOX_PREFIX)
        origin = f"a directory that the pod shares, whose path fits the pattern {path}"
    elif source.startswith(defaults.HUGE_PAGES_PREFIX):
        origin = f"the pod's huge pages, path pattern {source.removeprefix(defaults.HUGE_PAGES_PREFIX)}"
    elif source.startswith(defaults.PLAN9_PREFIX):
        origin = "a directory of the host: what is in it is the host's to choose and change"
    else:
        origin = f"{source}, exactly this source"
    kind = f"type {value.get('type')}, options {' '.join(listed) or 'none'}"
    return str(value.get("destination", "")), f"{origin}; {writable} ({kind})"


def id_name(rule: Any, what: str) -> str:
    """Say who a rule for a user or group means."""
    if not isinstance(rule, dict):
        return f"no {what}"
    pattern, strategy = rule.get("pattern"), rule.get("strategy")
    if strategy == "any":
        return f"any {what}"
    if strategy == "id":
        root = " (root)" if pattern == "0" else ""
        return f"the {what} with the id {pattern}{root}"
    if strategy == "name":
        return f"the {what} named {pattern}"
    if strategy == "re2":
        return f"any {what} whose name fits the pattern {pattern}"
    return f"no {what}: the strategy {strategy!r} is unknown"


def user(value: Any) -> str:
    """Say as whom a container may run."""
    if not isinstance(value, dict):
        return "no user: what is declared is damaged"
    who = id_name(value.get("user_idname"), "user")
    groups = value.get("group_idnames")
    listed = [id_name(one, "group") for one in groups] if isinstance(groups, list) else []
    joined = " or ".join(dict.fromkeys(listed)) or "no group at all"
    return f"{who}; groups: {joined}; umask {value.get('umask')}"


def capabilities(container: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Say which capabilities a container must have, and name those that are listed."""
    value = container.get("capabilities")
    if value is None:
        if container.get("allow_elevated"):
            return (
                "the usual 14 of an unprivileged container, or all of Linux when it runs privileged",
                [],
            )
        return "the usual 14 of an unprivileged container", []
    if not isinstance(value, dict):
        return "none that a request could have: what is declared is damaged", []
    sets = {name: [_short(one) for one in value.get(name) or ()] for name in _SETS}
    if not any(sets.values()):
        return "none at all", []
    usual = [_short(one) for one in defaults.UNPRIVILEGED_CAPABILITIES]
    if all(sorted(sets[name]) == sorted(usual) for name in ("bounding", "effective", "permitted")) and not (
        sets["inheritable"] or sets["ambient"]
    ):
        return "the usual 14 of an unprivileged container", []
    lines = [f"{name}: {' '.join(listed) or 'none'}" for name, listed in sets.items()]
    return "exactly these, no more and no fewer", lines


def _short(name: object) -> str:
    return str(name).removeprefix("CAP_")


def signals(value: Any) -> str:
    """Name signals."""
    if not isinstance(value, list):
        return "none: what is declared is damaged"
    return ", ".join(dict.fromkeys(_signal(one) for one in value)) or "none"


def _signal(number: Any) -> str:
    try:
        return f"{signal.Signals(number).name} ({number})"
    except ValueError:
        return f"signal {number}"


def includes(value: Any) -> str:
    """Say what an imported fragment may bring."""
    if not isinstance(value, list):
        return "nothing"
    return ", ".join(INCLUDES.get(str(one), f"{one} (nothing known)") for one in value) or "nothing"


def issuer(value: Any) -> str:
    """Say who an issuer is, as far as a did:x509 says it."""
    text = str(value)
    found = re.fullmatch(r"did:x509:0:(sha256|sha384|sha512):([A-Za-z0-9_-]+)(::.*)", text)
    if found is None:
        return "whoever can sign under this name"
    rules = [_did_rule(one) for one in found.group(3).split("::") if one]
    return (
        "whoever has a certificate below the authority whose certificate has the fingerprint"
        f" {found.group(2)} ({found.group(1)}), {', and '.join(rules)}"
    )


def _did_rule(text: str) -> str:
    kind, _, rest = text.partition(":")
    if kind == "eku":
        known = f" ({_EKUS[rest]})" if rest in _EKUS else ""
        return f"made for the purpose {rest}{known}"
    if kind == "subject":
        parts = rest.split(":")
        pairs = [f"{key}={value}" for key, value in zip(parts[::2], parts[1::2], strict=False)]
        return f"issued to {', '.join(pairs)}"
    if kind == "san":
        kind_of, _, name = rest.partition(":")
        return f"for the {kind_of} {name}"
    if kind == "fulcio-issuer":
        return f"given by Fulcio to an identity of {rest}"
    return f"with {kind} {rest}"


_PLACE: Final = re.compile(r"([a-z_]+)\[(\d+)\](?: \((.*?)\))?(?:\.(.*))?")
_THINGS: Final = {
    "containers": "container",
    "external_processes": "process",
    "fragments": "signer",
    "transparency_trust_lists": "trust list",
    "platform_rules": "platform rule",
}
_PARTS: Final = {
    "env_rules": "environment rule",
    "mounts": "mount",
    "exec_processes": "command to run in it",
    "layers": "layer",
    "user": "user",
    "allow_elevated": "privilege",
}


def place(where: str) -> str:
    """Return a place such as ``containers[0] (web).env_rules[2]`` in words."""
    found = _PLACE.fullmatch(where)
    if found is None:
        return where
    kind, number, name, part = found.groups()
    thing = name or f"{_THINGS.get(kind, kind)} {int(number) + 1}"
    return f"{thing}: {_part(part)}" if part else thing


def _part(part: str) -> str:
    found = re.fullmatch(r"([a-z_0-9]+)(?:\[(\d+)\])?(?:\.(.*))?", part)
    if found is None:
        return part
    name, number, rest = found.groups()
    words = _PARTS.get(name, name.replace("_", " "))
    words += f" {int(number) + 1}" if number else ""
    return f"{words}, {rest.replace('_', ' ')}" if rest and name != "user" else words


def listed(values: Sequence[Any]) -> str:
    """Join values for a sentence."""
    return ", ".join(map(str, values)) or "none"
