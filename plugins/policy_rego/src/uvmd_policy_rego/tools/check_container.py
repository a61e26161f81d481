"""Lint for one container: fields that nobody knows, what never matches, what gives much away."""

from __future__ import annotations

import re
from typing import Any, Final

from uvmd_policy_rego import defaults
from uvmd_policy_rego.tools.check_fields import check_env_rule, check_pattern, unknown_fields
from uvmd_policy_rego.tools.description import Description, Item
from uvmd_policy_rego.tools.findings import Findings, duplicates
from uvmd_policy_rego.tools.literals import Parameter
from uvmd_policy_rego.tools.pattern_words import compiles, matches
from uvmd_policy_rego.values import canonical, compare_versions

_REQUIRED_WORDS: Final = (
    "command env_rules layers mounts exec_processes signals user capabilities seccomp_profile_sha256 "
    "allow_elevated working_dir allow_stdio_access no_new_privileges"
)
_REQUIRED: Final = _REQUIRED_WORDS.split()
_SINCE: Final = {
    "no_new_privileges": "0.2.0",
    "user": "0.2.1",
    "capabilities": "0.2.2",
    "seccomp_profile_sha256": "0.2.3",
}
#: For people: they decide nothing.
LABELS: Final = ("id", "name")
_SETS: Final = ("bounding", "effective", "inheritable", "permitted", "ambient")
_CAPABILITIES: Final = frozenset(defaults.PRIVILEGED_CAPABILITIES)
#: With one of these a process is close to being the kernel's master.
STRONG: Final = (
    "CAP_SYS_ADMIN",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_PTRACE",
    "CAP_NET_ADMIN",
    "CAP_BPF",
    "CAP_DAC_READ_SEARCH",
    "CAP_SYS_BOOT",
)
SHELLS: Final = ("sh", "bash", "dash", "ash", "zsh", "busybox", "python", "python3", "perl", "node")
_SANDBOX: Final = f"/run/gcs/c/{'a' * 64}/sandboxMounts"


class ContainerCheck:
    """Looks at one container, part by part."""

    def __init__(self, description: Description, item: Item, where: str, found: Findings) -> None:
        self._description, self._item, self._where, self._found = description, item, where, found
        self._one: dict[str, Any] = item.declared

    def check(self) -> None:
        """Add what there is to say."""
        unknown_fields(self._one, {*_REQUIRED, *LABELS}, self._item.line, self._where, self._found)
        if not self._check_fields():
            return
        self._check_layers()
        self._check_texts()
        self._check_user()
        self._check_capabilities()
        self._check_rights()
        for number, rule in enumerate(self._list("env_rules")):
            where = self._at(f"env_rules[{number}]")
            check_env_rule(rule, self._line("env_rules", number), where, self._found)
        for number, mount in enumerate(self._list("mounts")):
            self._check_mount(number, mount)
        for number, process in enumerate(self._list("exec_processes")):
            self._check_exec(number, process)
        self._check_signals("signals", self._one.get("signals"))
        for name in ("env_rules", "mounts", "exec_processes"):
            for number, first in duplicates(self._list(name), canonical):
                self._add("note", "duplicate", f"{name}[{number}]", f"is the same as {name}[{first}]", number)

    def _at(self, part: str) -> str:
        return f"{self._where}.{part}"

    def _line(self, *path: str | int) -> int:
        placed = self._item.placed.find(*path) if self._item.placed else None
        return self._description.document.line(placed) or self._item.line

    def _add(
        self, level: str, code: str, part: str, text: str, number: int | None = None, example: str = ""
    ) -> None:
        name = part.partition("[")[0].partition(".")[0]
        line = self._line(name) if number is None else self._line(name, number)
        self._found.add(level, code, line, self._at(part), text, example)

    def _list(self, name: str) -> list[Any]:
        value = self._one.get(name)
        return value if isinstance(value, list) else []

    def _check_fields(self) -> bool:
        version = self._description.framework_version
        missing = [
            name
            for name in _REQUIRED
            if name not in self._one
            and not (name in _SINCE and compare_versions(version, _SINCE[name]) == -1)
        ]
        old = compare_versions(version, "0.5.0") == -1
        for name in missing:
            what = "rules of this version drop the container without a word" if old else "it can never run"
            text = f"{name!r} is missing: {what}"
            self._found.add("error", "missing-field", self._item.line, self._where, text)
        if self._item.value is None and not missing and version is not None:
            text = f"is not known to the rules with framework_version {version}"
            self._found.add("error", "ignored", self._item.line, self._where, text)
        kinds = {"command": list, "env_rules": list, "layers": list, "mounts": list, "exec_processes": list}
        for name, kind in kinds.items():
            if name in self._one and not isinstance(self._one[name], kind):
                if isinstance(self._one[name], Parameter):
                    continue
                self._add("error", "wrong-type", name, "is no list: the container can never run")
        return not missing

    def _check_layers(self) -> None:
        for number, layer in enumerate(self._list("layers")):
            if not isinstance(layer, str) or not re.fullmatch(r"[0-9a-f]{64}", layer):
                if isinstance(layer, Parameter):
                    continue
                text = f"{layer!r} is no root hash of 64 small hexadecimal digits: no device ever has it"
                self._add("error", "never", f"layers[{number}]", text, number)
        if self._one["layers"] == []:
            self._add("warning", "no-layers", "layers", "has no layers: only an empty root fits")

    def _check_texts(self) -> None:
        listed = self._list("command")
        given = isinstance(self._one["command"], Parameter)
        if not given and (not listed or not all(isinstance(one, str) for one in listed)):
            text = "is no list of texts: no request fits" if listed else "is empty: there is nothing to run"
            self._add("error", "never", "command", text)
        directory = self._one["working_dir"]
        if not isinstance(directory, str) or not directory.startswith("/"):
            if not isinstance(directory, Parameter):
                text = f"{directory!r} is no absolute path, and a process always has one"
                self._add("error", "never", "working_dir", text)
        profile = self._one.get("seccomp_profile_sha256", "")
        if not isinstance(profile, str) or not re.fullmatch(r"([0-9a-f]{64})?", profile):
            text = f"{profile!r} is no SHA-256 in small hexadecimal digits: no profile fits"
            self._add("error", "never", "seccomp_profile_sha256", text)

    def _check_user(self) -> None:
        user = self._one.get("user")
        if user is None:
            return
        if not isinstance(user, dict) or not {"umask", "user_idname", "group_idnames"} <= user.keys():
            text = "needs user_idname, group_idnames and umask: the container can never run"
            self._add("error", "never", "user", text)
            return
        unknown_fields(
            user, {"umask", "user_idname", "group_idnames"}, self._line("user"), self._at("user"), self._found
        )
        if not re.fullmatch(r"[0-7]{4}", str(user["umask"])) or not isinstance(user["umask"], str):
            text = f"{user['umask']!r} is not four octal digits in a text, as requests have it"
            self._add("error", "never", "user.umask", text)
        groups = user["group_idnames"]
        if not groups:
            text = "is empty, and a process always has a group: the container can never run"
            self._add("error", "never", "user.group_idnames", text)
        for part, rules in (("user_idname", [user["user_idname"]]), ("group_idnames", groups)):
            for rule in rules if isinstance(rules, list) else ():
                self._check_id_name(rule, f"user.{part}", part == "user_idname")

    def _check_id_name(self, rule: Any, part: str, is_user: bool) -> None:
        if not isinstance(rule, dict) or not {"pattern", "strategy"} <= rule.keys():
            self._add("error", "never", part, "needs pattern and strategy: it matches nobody")
            return
        pattern, strategy = rule["pattern"], rule["strategy"]
        if strategy == "any":
            if is_user:
                self._add("note", "any-user", part, "any user may run it, root too")
            if pattern:
                text = f"the pattern {pattern!r} is not looked at: the strategy is any"
                self._add("warning", "unused", part, text)
        elif strategy == "id" and not re.fullmatch(r"0|[1-9][0-9]*", str(pattern)):
            self._add("error", "never", part, f"{pattern!r} is no decimal id: it matches nobody")
        elif strategy == "re2":
            check_pattern(str(pattern), self._line("user"), self._at(part), self._found)
            if compiles(pattern) and matches(str(pattern), "root") and str(pattern) != "root":
                self._add("warning", "matches-root", part, f"{pattern!r} also matches root", example="root")
        elif strategy not in ("id", "name"):
            self._add("error", "strategy", part, f"the strategy {strategy!r} is none of any, id, name, re2")

    def _check_capabilities(self) -> None:
        capabilities = self._one.get("capabilities")
        if not isinstance(capabilities, dict):
            return
        unknown_fields(capabilities, _SETS, self._line("capabilities"), self._at("capabilities"), self._found)
        for name in _SETS:
            listed = capabilities.get(name)
            if not isinstance(listed, list):
                self._add("error", "never", f"capabilities.{name}", "is no list: the container can never run")
                continue
            for one in listed:
                if one not in _CAPABILITIES:
                    text = f"{one!r} is no capability of Linux: no request has it"
                    self._add("error", "never", f"capabilities.{name}", text)
            if len(set(map(str, listed))) != len(listed):
                dropping = self._description.on("allow_capability_dropping")
                text = "names a capability twice"
                text += ": with dropping allowed it never matches" if dropping else ""
                self._add("error" if dropping else "note", "duplicate", f"capabilities.{name}", text)
        strong = [name for name in STRONG if any(name in (capabilities.get(one) or ()) for one in _SETS)]
        if strong:
            self._add("warning", "strong-capability", "capabilities", f"has {', '.join(strong)}")

    def _check_rights(self) -> None:
        if self._one["allow_elevated"] not in (False, None):
            text = "may run privileged: all capabilities, devices of the VM, writable /sys"
            self._add("warning", "elevated", "allow_elevated", text)
        if self._one.get("no_new_privileges") is False:
            text = "programs with the setuid bit may raise their rights"
            self._add("note", "new-privileges", "no_new_privileges", text)

    def _check_mount(self, number: int, mount: Any) -> None:
        part = f"mounts[{number}]"
        if not isinstance(mount, dict):
            self._add("error", "never", part, "is no object: it matches nothing", number)
            return
        known = ("source", "destination", "type", "options")
        unknown_fields(mount, known, self._line("mounts", number), self._at(part), self._found)
        for name in known:
            if name not in mount or (name == "destination" and not mount[name]):
                self._add("error", "never", part, f"{name} is missing or empty: it matches nothing", number)
        source = mount.get("source")
        if not isinstance(source, str):
            return
        if source.startswith(defaults.SANDBOX_PREFIX):
            self._check_sandbox_source(source, part, number)
        elif source.startswith(defaults.HUGE_PAGES_PREFIX):
            check_pattern(source, self._line("mounts", number), self._at(part), self._found)
        elif source.startswith("sandbox-tmp://"):
            self._add("error", "never", part, "sandbox-tmp:// is nothing that policies know", number)
        elif re.search(r"\.[*+]|\\\.", source) and not source.startswith(defaults.PLAN9_PREFIX):
            text = f"{source!r} looks like a pattern, and a path is compared letter by letter"
            self._add("warning", "not-a-pattern", part, text, number)

    def _check_sandbox_source(self, source: str, part: str, number: int) -> None:
        check_pattern(source, self._line("mounts", number), self._at(part), self._found)
        pattern = source.replace(defaults.SANDBOX_PREFIX, _SANDBOX)
        start = source.removeprefix(defaults.SANDBOX_PREFIX).partition(".")[0]
        outside = f"{_SANDBOX}{start}x/../../../../.."
        if matches(pattern, outside):
            text = "the pattern also fits paths with .. in them: only the guest's own care keeps them inside"
            self._add("note", "dot-dot", part, text, number)

    def _check_exec(self, number: int, process: Any) -> None:
        part = f"exec_processes[{number}]"
        if not isinstance(process, dict) or not isinstance(process.get("command"), list):
            command_of = process.get("command") if isinstance(process, dict) else process
            if not isinstance(command_of, Parameter):
                self._add("error", "never", part, "has no command: it matches nothing", number)
            return
        known = ("command", "signals", "allow_stdio_access")
        unknown_fields(process, known, self._line("exec_processes", number), self._at(part), self._found)
        listed = process["command"]
        if len(listed) == 1 and str(listed[0]).rpartition("/")[2] in SHELLS:
            text = f"`{listed[0]}` alone takes its commands from its input: the host may write them"
            self._add("warning", "exec-shell", part, text, number)
        self._check_signals(part, process.get("signals"), number)

    def _check_signals(self, part: str, signals: Any, number: int | None = None) -> None:
        if isinstance(signals, Parameter):
            return
        if not isinstance(signals, list):
            self._add("error", "never", part, "signals is no list: none can be sent", number)
            return
        for one in signals:
            if isinstance(one, bool) or not isinstance(one, int) or not 0 < one <= 64:
                if not isinstance(one, Parameter):
                    self._add("error", "never", part, f"{one!r} is no number of a signal", number)
