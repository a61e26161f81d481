"""Containers of two policies: which is which, and what has changed in each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from uvmd_policy_rego.tools import words
from uvmd_policy_rego.tools.changes import Change, as_list, only_in
from uvmd_policy_rego.tools.description import Item
from uvmd_policy_rego.tools.pattern_words import matches
from uvmd_policy_rego.values import canonical

_LABELS: Final = ("id", "name")
#: Two containers that have less in common than this are two containers.
_ALIKE: Final = 3.0
#: Up to so many pairs, each is looked at.
_FEW: Final = 10_000


def compare_containers(old: Sequence[Item], new: Sequence[Item]) -> Iterator[Change]:
    """Say what two lists of containers differ in."""
    pairs, gone, fresh = paired(old, new)
    for item in fresh:
        yield Change("more", _name(item), f"may run: `{_command(item)}`, a container that was not there")
    for item in gone:
        yield Change("less", _name(item), f"may no longer run: `{_command(item)}`")
    for before, after in pairs:
        where = _name(after)
        for allows, text in _changes(before.value or {}, after.value or {}):
            yield Change(allows, where, text)


def paired(
    old: Sequence[Item], new: Sequence[Item]
) -> tuple[list[tuple[Item, Item]], list[Item], list[Item]]:
    """Return the containers that belong together by their likeness, and those of each side left over."""
    gone, fresh = list(old), list(new)
    pairs = []
    same = {canonical(_plain(item)): item for item in reversed(fresh)}
    for item in old:
        other = same.pop(canonical(_plain(item)), None)
        if other is not None:
            gone.remove(item)
            fresh.remove(other)
            pairs.append((item, other))
    before, after = ([_Features(item.declared) for item in side] for side in (gone, fresh))
    close = [(i, j) for i, a in enumerate(before) for j, b in enumerate(after) if a.keys & b.keys]
    if len(before) * len(after) <= _FEW:
        close = [(i, j) for i in range(len(before)) for j in range(len(after))]
    scored = sorted(
        ((before[i].likeness(after[j]), i, j) for i, j in close), key=lambda one: (-one[0], one[1], one[2])
    )
    used_old, used_new = set[int](), set[int]()
    for score, i, j in scored:
        if score >= _ALIKE and i not in used_old and j not in used_new:
            used_old.add(i)
            used_new.add(j)
            pairs.append((gone[i], fresh[j]))
    return (
        pairs,
        [item for i, item in enumerate(gone) if i not in used_old],
        [item for j, item in enumerate(fresh) if j not in used_new],
    )


class _Features:
    """What containers are known again by."""

    def __init__(self, container: Mapping[str, Any]) -> None:
        self._sets = {
            key: frozenset(canonical(value) for value in as_list(container.get(key)))
            for key in ("command", "layers", "env_rules", "mounts")
        }
        self._command = [str(one) for one in as_list(container.get("command"))]
        self._directory = container.get("working_dir")
        self._labels = [container.get(label) for label in _LABELS]
        #: Containers of large policies that share none of these are not compared at all.
        self.keys = frozenset(
            [
                *(f"label {label}" for label in self._labels if label),
                f"command {self._command}",
                f"layers {canonical(container.get('layers'))}",
            ]
        )

    def likeness(self, other: _Features) -> float:
        """Return how much two containers have in common, 0 to about 12."""
        score = sum(3.0 for a, b in zip(self._labels, other._labels, strict=True) if a and a == b)
        if self._command == other._command:
            score += 3
        elif self._command[:1] == other._command[:1]:
            score += 1 + self._share(other, "command")
        score += 3 * self._share(other, "layers") + self._share(other, "env_rules")
        score += self._share(other, "mounts") / 2
        return score + (0.5 if self._directory == other._directory else 0)

    def _share(self, other: _Features, key: str) -> float:
        mine, theirs = self._sets[key], other._sets[key]
        return len(mine & theirs) / len(mine | theirs) if mine | theirs else 0.5


def _plain(item: Item) -> dict[str, Any]:
    return {key: value for key, value in (item.value or {}).items() if key not in _LABELS}


def _name(item: Item) -> str:
    return item.name or f"container {item.index + 1}"


def _command(item: Item) -> str:
    return words.command((item.value or {}).get("command"))


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, told in (("command", words.command), ("working_dir", str)):
        if old.get(key) != new.get(key):
            what = "run" if key == "command" else "run in"
            yield "more", f"may {what} `{told(new.get(key))}`"
            yield "less", f"may no longer {what} `{told(old.get(key))}`"
    if old.get("layers") != new.get("layers"):
        yield "more", f"may have other content: {_layers(old, new)}"
        yield "less", "may no longer have the content that it had"
    yield from _env(as_list(old.get("env_rules")), as_list(new.get("env_rules")))
    for mount in only_in(as_list(new.get("mounts")), as_list(old.get("mounts"))):
        yield "more", "may have at {} {}".format(*words.mount(mount))
    for mount in only_in(as_list(old.get("mounts")), as_list(new.get("mounts"))):
        yield "less", "may no longer have at {} {}".format(*words.mount(mount))
    yield from _execs(as_list(old.get("exec_processes")), as_list(new.get("exec_processes")))
    yield from _signals("its first process", old, new)
    yield from _user(old.get("user"), new.get("user"))
    yield from _rights(old, new)


def _layers(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    before, after = as_list(old.get("layers")), as_list(new.get("layers"))
    kept = len(after) - len(list(only_in(after, before)))
    return f"{len(after)} layer(s), of which {kept} as before"


def _env(old: list[Any], new: list[Any]) -> Iterator[tuple[str, str]]:
    def bare(rules: list[Any]) -> dict[str, tuple[Any, bool]]:
        plain = [rule for rule in rules if isinstance(rule, dict)]
        keys = [{key: value for key, value in rule.items() if key != "required"} for rule in plain]
        found: dict[str, tuple[Any, bool]] = {}
        for key, rule in zip(keys, plain, strict=True):
            required = rule.get("required", False) is not False
            found[canonical(key)] = (rule, required or found.get(canonical(key), (rule, False))[1])
        return found

    before, after = bare(old), bare(new)
    for key, (rule, required) in after.items():
        text, _ = words.env_rule(rule)
        kind = " (a pattern)" if "re2" in _strategies(rule) else ""
        if key not in before:
            if not _covered(rule, old):
                yield "more", f"may have the variable {text}{kind}"
            if required:
                yield "less", f"may no longer run without the variable {text}{kind}"
        elif required != before[key][1]:
            may = "may no longer" if required else "may"
            yield "less" if required else "more", f"{may} run without the variable {text}{kind}"
    for key, (rule, required) in before.items():
        if key in after:
            continue
        text, _ = words.env_rule(rule)
        kind = " (a pattern)" if "re2" in _strategies(rule) else ""
        if not _covered(rule, new):
            yield "less", f"may no longer have the variable {text}{kind}"
        if required:
            yield "more", f"may run without the variable {text}{kind}"


def _strategies(rule: Mapping[str, Any]) -> list[Any]:
    return [rule.get(key) for key in ("strategy", "name_strategy", "value_strategy")]


def _covered(rule: Mapping[str, Any], rules: list[Any]) -> bool:
    """Say whether what a rule of plain text lets in is let in by others as well."""
    if rule.get("strategy") != "string" or not isinstance(rule.get("pattern"), str):
        return False
    text = rule["pattern"]
    return any(
        isinstance(one, dict)
        and isinstance(one.get("pattern"), str)
        and (
            one["pattern"] == text
            if one.get("strategy") == "string"
            else one.get("strategy") == "re2" and matches(one["pattern"], text)
        )
        for one in rules
    )


def _execs(old: list[Any], new: list[Any]) -> Iterator[tuple[str, str]]:
    def by_command(processes: list[Any]) -> dict[str, Any]:
        return {words.command(p.get("command")): p for p in processes if isinstance(p, dict)}

    before, after = by_command(old), by_command(new)
    for command, process in after.items():
        if command not in before:
            yield "more", f"the host may run `{command}` in it"
        else:
            yield from _signals(f"`{command}` in it", before[command], process)
    for command in before:
        if command not in after:
            yield "less", f"the host may no longer run `{command}` in it"


def _signals(whom: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    before, after = as_list(old.get("signals")), as_list(new.get("signals"))
    added, removed = list(only_in(after, before)), list(only_in(before, after))
    if added:
        yield "more", f"the host may send {words.signals(added)} to {whom}"
    if removed:
        yield "less", f"the host may no longer send {words.signals(removed)} to {whom}"


def _user(old: Any, new: Any) -> Iterator[tuple[str, str]]:
    if canonical(old) == canonical(new):
        return
    if not isinstance(old, dict) or not isinstance(new, dict):
        yield "more", f"may run as {words.user(new)}"
        yield "less", f"may no longer run as {words.user(old)}"
        return
    if old.get("umask") != new.get("umask"):
        yield "more", f"may run with the umask {new.get('umask')}"
        yield "less", f"may no longer run with the umask {old.get('umask')}"
    before, after = [old.get("user_idname")], [new.get("user_idname")]
    yield from _who(before, after, "user", "run as")
    yield from _who(as_list(old.get("group_idnames")), as_list(new.get("group_idnames")), "group", "be in")


def _who(old: list[Any], new: list[Any], what: str, verb: str) -> Iterator[tuple[str, str]]:
    def anyone(rules: list[Any]) -> bool:
        return any(isinstance(rule, dict) and rule.get("strategy") == "any" for rule in rules)

    if not anyone(old):
        for rule in only_in(new, old):
            yield "more", f"may {verb} {words.id_name(rule, what)}"
    if not anyone(new):
        for rule in only_in(old, new):
            yield "less", f"may no longer {verb} {words.id_name(rule, what)}"


def _rights(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if canonical(old.get("capabilities")) != canonical(new.get("capabilities")):
        yield "more", f"may run with these capabilities: {_capabilities(new)}"
        yield "less", f"may no longer run with these: {_capabilities(old)}"
    if old.get("seccomp_profile_sha256") != new.get("seccomp_profile_sha256"):
        yield "more", f"may run with {_profile(new)}"
        yield "less", f"may no longer run with {_profile(old)}"
    for key, text in (
        ("allow_elevated", "run privileged"),
        ("allow_stdio_access", "have its input and output open to the host"),
    ):
        before, after = (side.get(key) not in (False, None) for side in (old, new))
        if before != after:
            yield ("more", f"may {text}") if after else ("less", f"may no longer {text}")
    before, after = (side.get("no_new_privileges") is False for side in (old, new))
    if before != after:
        text = "run without no_new_privileges: its programs may gain rights"
        yield ("more", f"may {text}") if after else ("less", f"may no longer {text}")


def _capabilities(container: Mapping[str, Any]) -> str:
    text, lines = words.capabilities(container)
    return f"{text} ({'; '.join(lines)})" if lines else text


def _profile(container: Mapping[str, Any]) -> str:
    profile = container.get("seccomp_profile_sha256")
    return f"the seccomp profile {profile}" if profile else "no seccomp profile"
