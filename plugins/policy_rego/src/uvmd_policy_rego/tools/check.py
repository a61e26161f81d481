"""Lint for policies and fragments: what will not work, and what allows more than it seems."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any, Final

from uvmd_policy_rego.tools.check_containers import check_containers, check_processes
from uvmd_policy_rego.tools.check_imports import check_imports
from uvmd_policy_rego.tools.description import WINDOWS_POINTS, Description, describe
from uvmd_policy_rego.tools.findings import Finding, Findings
from uvmd_policy_rego.tools.generate import LIMITS, measure
from uvmd_policy_rego.tools.literals import Parameter, Placed
from uvmd_policy_rego.tools.reading import Document, NotRego, read_document
from uvmd_policy_rego.tools.visible import foreign, hidden
from uvmd_policy_rego.tools.writing import API_VERSION, FLAGS, FRAMEWORK_VERSION, LISTS, POINTS
from uvmd_policy_rego.values import compare_versions, parse_version

_VERSIONS: Final = ("api_version", "api_svn", "framework_version", "framework_svn")
_POLICY_NAMES: Final = {*FLAGS, *LISTS, *_VERSIONS, *POINTS, "reason", "modify_resource"}
_FRAGMENT_NAMES: Final = {*LISTS, *_VERSIONS, "svn", "parameters_api"}
_NEVER_NEEDED: Final = WINDOWS_POINTS | {"modify_resource"}
#: What each switch gives away, when it is on.
SWITCHES: Final = {
    "allow_properties_access": ("note", "the host may list processes and read statistics of containers"),
    "allow_dump_stacks": ("warning", "the host may read the stacks of the agent, which can hold secrets"),
    "allow_runtime_logging": ("warning", "the agent's log goes to the host, with what it says of containers"),
    "allow_host_network": ("warning", "containers may share the network of the VM itself"),
    "allow_environment_variable_dropping": (
        "note",
        "variables that no rule knows are left out instead of refused: a container may run with fewer"
        " than the host was asked for",
    ),
    "allow_unencrypted_scratch": (
        "warning",
        "what containers write may lie on the host's disk unencrypted, to be read and changed there",
    ),
    "allow_capability_dropping": (
        "note",
        "capabilities that a container may not have are left out instead of refused",
    ),
    "allow_log_provider_dropping": ("note", "is about Windows guests only"),
}
_ALWAYS: Final = {
    "create_container": "any container may run, whatever its command, layers and rights",
    "exec_in_container": "the host may run anything in a container",
    "exec_external": "the host may run anything in the VM itself, beside the containers",
    "mount_device": "disks of any content may be mounted",
    "mount_overlay": "any layers may become a container's root",
    "rw_mount_device": "writable disks may be mounted, encrypted or not",
    "mount_blockdev": "raw block devices may be given to containers, and what is on them is not measured",
    "load_fragment": "a fragment of any signer may be loaded",
    "load_transparency_trust_list": "trust lists of any signer may be loaded",
    "plan9_mount": "directories of the host may be mounted anywhere",
    "scratch_mount": "scratch may be unencrypted",
    "host_network": SWITCHES["allow_host_network"][1],
    "dump_stacks": SWITCHES["allow_dump_stacks"][1],
    "runtime_logging": SWITCHES["allow_runtime_logging"][1],
    "modify_resource": "resource types of other vendors may be changed at will",
}


def check(content: bytes | str) -> list[Finding]:
    """Check the text of a policy or fragment: Rego, legacy JSON, or either in base64."""
    try:
        document = read_document(content)
    except NotRego as error:
        return [Finding("error", "no-policy", error.line, "", str(error))]
    return check_document(document)


def check_document(document: Document) -> list[Finding]:
    """Check a document that was read."""
    found = Findings()
    try:
        description = describe(document)
    except NotRego as error:
        found.add("error", "no-policy", error.line, "", str(error))
        return found.sorted()
    _check_document(document, found)
    _check_versions(description, found)
    if description.is_fragment:
        _check_fragment(description, found)
    else:
        _check_points(description, found)
        _check_switches(description, found)
    _check_names(description, found)
    _check_age(description, found)
    check_containers(description, found)
    check_processes(description, found)
    check_imports(description, found)
    for one in description.untold:
        found.add("note", "computed", 0, "", one)
    return found.sorted()


def _check_document(document: Document, found: Findings) -> None:
    if document.legacy:
        text = "is JSON of before Rego: the reference refuses it, uvmd takes it for what it stood for then"
        found.add("warning", "legacy-json", 0, "", text)
    if document.old:
        text = "is in the language before Rego v1 (rules without `if`), which the reference refuses"
        found.add("warning", "rego-v0", 0, "", text)
    size = len(measure(document.text).encoded)
    for limit in LIMITS:
        if size >= limit.bytes:
            text = f"{size} bytes encoded are more than {limit.what} takes: {limit.bytes} ({limit.source})"
            found.add("warning", "size", 0, "", text)
    _check_hidden(document, found)
    for name, statements in document.by_name.items():
        literals = [one for one in statements if one.kind in ("literal", "alias")]
        if len(literals) > 1:
            first, *others = literals
            for one in others:
                text = f"is declared on line {first.line} already; if they differ, every question is an error"
                found.add("error", "duplicate-name", one.line, name, text)


def _check_hidden(document: Document, found: Findings) -> None:
    for number, line in enumerate(document.text.split("\n"), 1):
        names = hidden(line.replace("\t", " ").rstrip("\r"))
        if names:
            text = f"the text holds characters that cannot be seen: {names}"
            found.add("warning", "hidden-character", 0 if document.legacy else number, "", text)

    for name, statements in document.by_name.items():
        for statement in statements:
            if statement.value is not None:
                for place, value in _texts(statement.value):
                    _check_letters(value, document.line(place), name, found)


def _texts(placed: Placed) -> Iterator[tuple[Placed, str]]:
    """Yield every text of a value that is not plain ASCII, keys too, with its place."""
    held = placed.value
    if isinstance(held, list):
        for one in held:
            yield from _texts(one)
    elif isinstance(held, dict):
        for key, one in held.items():
            yield from () if key.isascii() and key.isprintable() else ((one, key),)
            yield from _texts(one)
    elif isinstance(held, str) and not isinstance(held, Parameter):
        if not (held.isascii() and held.isprintable()):
            yield placed, held


def _check_letters(value: str, line: int, name: str, found: Findings) -> None:
    # Scripts that are given as arguments have lines.
    unseen = hidden(value.replace("\n", "").replace("\t", ""))
    if unseen:
        text = f"holds characters that cannot be seen: {unseen}; what is read may not be what is there"
        found.add("warning", "hidden-character", line, name, text, value)
    elif foreign(value):
        text = f"holds letters that may look like others: {foreign(value)}"
        found.add("warning", "look-alike", line, name, text, value)


def _check_versions(description: Description, found: Findings) -> None:
    document = description.document
    if not description.is_fragment:
        _check_version(document, "api_version", "api_svn", description.api_version, API_VERSION, found)
    value = description.framework_version
    needed = any(document.named(name) for name in LISTS)
    if value is not None or needed or description.is_fragment:
        _check_version(document, "framework_version", "framework_svn", value, FRAMEWORK_VERSION, found)


def _check_version(document: Document, name: str, old: str, value: Any, newest: str, found: Findings) -> None:
    statements = [*document.named(name), *document.named(old)]
    line = 0 if document.legacy or not statements else statements[0].line
    means = "everything is denied" if name == "api_version" else "no container, process or fragment counts"
    if not statements:
        found.add("error", f"{name.replace('_', '-')}-missing", 0, "", f"{name} is missing: {means}")
    elif value is not None and parse_version(value) is None:
        found.add("error", "version-invalid", line, name, f"is no semantic version (1.2.3): {means}")
    elif compare_versions(value, newest) == 1:
        if name == "framework_version":
            text = f"is newer than the rules, which are {newest}: {means}"
            found.add("error", "version-ahead", line, name, text)
        else:
            text = f"is newer than the API, which is {newest}: every point must have a rule"
            found.add("warning", "version-ahead", line, name, text)
    if document.named(old):
        found.add("note", "old-name", document.named(old)[0].line, old, f"is the old name of {name}")


def _check_points(description: Description, found: Findings) -> None:
    missing = []
    for point in description.points.values():
        if point.answer == "missing" and point.name not in _NEVER_NEEDED and description.api_version:
            missing.append(point.name)
        elif point.answer == "allow":
            level = "warning" if point.name in _ALWAYS else "note"
            text = _ALWAYS.get(point.name, "is always allowed")
            found.add(level, "always-allowed", point.line, point.name, text)
        elif point.answer == "other":
            text = f"is answered by another rule: {point.source}"
            found.add("error", "wrong-rule", point.line, point.name, text)
        elif point.answer == "default_allow":
            text = f"api_version {description.api_version} is older than this point: it is always allowed"
            level = "warning" if point.name in ("exec_in_container", "exec_external") else "note"
            found.add(level, "default-allowed", 0, point.name, text)
    for name in missing:
        text = f"has no rule, and api_version {description.api_version} has this point: always denied"
        found.add("error", "rule-missing", 0, name, text)
    if not description.document.named("reason"):
        found.add("note", "reason-missing", 0, "reason", "is missing: denials will not say why")


def _check_switches(description: Description, found: Findings) -> None:
    for name, (level, text) in SWITCHES.items():
        statements = description.document.named(name)
        if not statements or not description.on(name) or description.flags.get(name) is None:
            continue
        line = 0 if description.document.legacy else statements[0].line
        found.add(level, "switch", line, name, text)
        if description.flags[name] is not True:
            text = f"is {description.flags[name]!r}; whatever is not false counts as on"
            found.add("warning", "switch-value", line, name, text)
    order = compare_versions(description.framework_version, "0.2.2")
    if order == -1 and description.flags.get("allow_capability_dropping"):
        text = f"has no effect with framework_version {description.framework_version}"
        found.add("note", "switch-unused", 0, "allow_capability_dropping", text)


def _check_names(description: Description, found: Findings) -> None:
    known = _FRAGMENT_NAMES if description.is_fragment else _POLICY_NAMES
    document = description.document
    for name, statements in document.by_name.items():
        first = statements[0]
        if name in known:
            continue
        if first.kind == "alias" and first.target.startswith("data.framework."):
            text = "is no point of the API; a newer tool may have written it, and it has no effect"
            found.add("note", "unknown-point", first.line, name, text)
        elif first.kind in ("literal", "alias") and not re.search(
            rf"\b{re.escape(name)}\b", _others(document, name)
        ):
            close = difflib.get_close_matches(name, known, 1, 0.8)
            text = "is not known and nothing uses it" + (f"; did you mean {close[0]}?" if close else "")
            found.add("warning" if close else "note", "unknown-name", first.line, name, text)


def _others(document: Document, name: str) -> str:
    return "\n".join(one.source for one in document.statements if one.name != name)


def _check_age(description: Description, found: Findings) -> None:
    """Say what a document of an older framework leaves open without a word."""
    version, document = description.framework_version, description.document
    statements = [*document.named("framework_version"), *document.named("framework_svn")]
    line = 0 if document.legacy or not statements else statements[0].line

    def older(than: str) -> bool:
        return compare_versions(version, than) == -1

    unheld = [what for since, what in _AGES if older(since)]
    if description.containers and unheld:
        text = f"{version} is older than some checks: {'; '.join(unheld)}"
        found.add("note", "older-document", line, "framework_version", text)
    if older("0.5.0") and not description.is_fragment and not document.named("external_processes"):
        includes = [one.declared.get("includes") or () for one in description.items("fragments")]
        if any("external_processes" in one for one in includes):
            text = "is missing: with this version the external processes of fragments do not count either"
            found.add("warning", "processes-missing", 0, "external_processes", text)


_AGES: Final = (
    ("0.2.0", "containers may run without no_new_privileges"),
    ("0.2.1", "as any user"),
    ("0.2.2", "with the usual capabilities alone"),
    ("0.2.3", "without a seccomp profile alone"),
    ("0.4.1", "and the host may always send SIGKILL and SIGTERM to their first process"),
)


def _check_fragment(description: Description, found: Findings) -> None:
    document = description.document
    first_line = document.text.split("\n", 1)[0]
    if not re.fullmatch(r"package +[A-Za-z_]\w*\s*", first_line):
        text = "a fragment must begin with its package in the first line, and nothing else there"
        found.add("error", "package-line", 1, "", text)
    if not document.named("svn"):
        text = "svn is missing: it loads only from an envelope whose header carries one"
        found.add("warning", "svn-missing", 0, "", text)
    for name in FLAGS:
        if document.named(name):
            line = document.named(name)[0].line
            found.add("warning", "unused", line, name, "has no effect in a fragment")
