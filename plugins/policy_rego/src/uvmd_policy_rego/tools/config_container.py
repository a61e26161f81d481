"""One container of the configuration, as the object that a policy declares."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from uvmd.image.progress import Progress
from uvmd_policy_rego.defaults import HUGE_PAGES_PREFIX, PLAN9_PREFIX, SANDBOX_PREFIX
from uvmd_policy_rego.tools.errors import PolicyToolError
from uvmd_policy_rego.tools.layers import Layers, computed_layers, listed_layers
from uvmd_policy_rego.tools.pattern_words import compiles
from uvmd_policy_rego.tools.seccomp import measured_profile
from uvmd_policy_rego.tools.tables import Table

_SETS: Final = ("bounding", "effective", "inheritable", "permitted", "ambient")
_ID_STRATEGIES: Final = ("any", "id", "name", "re2")
_NO_EFFECT: Final = {
    "working_dir": "has no effect: an exec runs in the container's working directory",
    "env_rule": "has no effect: an exec's environment is held to the container's rules",
    "env_rules": "has no effect: an exec's environment is held to the container's rules",
    "allow_stdio_access": "has no effect: an exec has stdio where the container has",
}
#: Go's names of fields that have none of their own in the reference's files.
_SPLIT_KEYS: Final = {
    "use_name_value": "UseNameValue",
    "name": "Name",
    "name_strategy": "NameStrategy",
    "value": "Value",
    "value_strategy": "ValueStrategy",
}


@dataclass(frozen=True, slots=True)
class Sources:
    """How files that the configuration names are read."""

    folder: Path
    check_layers: bool
    progress: Progress


@dataclass(frozen=True, slots=True)
class Found:
    """A container, where its layers' hashes are from, and what there is to say."""

    container: dict[str, Any]
    origins: list[str]
    remarks: list[str] = field(default_factory=list)


def read_container(table: Table, sources: Sources) -> Found:
    """Read one container.

    Raises:
        PolicyToolError, ImageError: something is missing or wrong.
    """
    remarks: list[str] = []
    layers = _layers(table, sources)
    image = layers.image_config
    command = table.texts("command") or [*_texts(image, "Entrypoint"), *_texts(image, "Cmd")]
    if not command:
        table.fail("command", "is missing, and no image's configuration names one")
    env = [{"pattern": one, "strategy": "string", "required": True} for one in _texts(image, "Env")]
    env.append({"pattern": "TERM=xterm", "strategy": "string", "required": False})
    env += [read_env_rule(one) for one in table.tables("env_rule", "env_rules")]
    name = table.text("name")
    profile = table.text("seccomp_profile_path")
    container = {
        **({"name": name} if name else {}),
        "command": command,
        "env_rules": env,
        "layers": layers.hashes,
        "mounts": [read_mount(one) for one in table.tables("mount", "mounts")],
        "exec_processes": [_exec(one, remarks) for one in table.tables("exec_process", "exec_processes")],
        "signals": _signals(table),
        "user": _user(table, image, remarks),
        "capabilities": _capabilities(table),
        "seccomp_profile_sha256": measured_profile(sources.folder / profile) if profile else "",
        "allow_elevated": table.flag("allow_elevated"),
        "working_dir": table.text("working_dir") or _text(image, "WorkingDir") or "/",
        "allow_stdio_access": table.flag("allow_stdio_access"),
        "no_new_privileges": not table.flag("allow_privilege_escalation"),
    }
    remarks += table.end({"auth": "has no effect: nothing is pulled"})
    return Found(container, layers.origins, remarks)


def _layers(table: Table, sources: Sources) -> Layers:
    listed, image = table.texts("layers"), table.text("image")
    name, config = table.text("image_name"), table.text("image_config")
    platform, reference = table.text("platform") or "", table.text("reference") or ""
    if listed is not None and image is not None:
        table.fail("layers", f"stands beside {table.at('image')}: say one of them")
    if image is not None:
        found = computed_layers(
            image, sources.folder, platform=platform, reference=reference, progress=sources.progress
        )
    elif listed:
        found = listed_layers(listed, sources.folder, check=sources.check_layers, progress=sources.progress)
    else:
        pulled = f" ({name!r} is not pulled)" if name else ""
        table.fail(
            "layers",
            f"is missing{pulled}: give root hashes or files of layer images, base first, or `image`,"
            " a directory, tar or OCI layout",
        )
    if config is None:
        return found
    return Layers(found.hashes, found.origins, _image_config(sources.folder / config))


def _image_config(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise PolicyToolError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PolicyToolError(f"{path} is not JSON: {error}") from error
    config = document.get("config") if isinstance(document, dict) else None
    if not isinstance(config, dict):
        raise PolicyToolError(f"{path} is no image configuration: it has no object `config`")
    return config


def _text(image: Mapping[str, Any], key: str) -> str:
    value = image.get(key)
    return value if isinstance(value, str) else ""


def _texts(image: Mapping[str, Any], key: str) -> list[str]:
    value = image.get(key) or []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise PolicyToolError(f"the image's configuration: {key} is not a list of texts")
    return value


def read_env_rule(table: Table) -> dict[str, Any]:
    """Read one rule of environment variables, in either of its forms.

    Raises:
        PolicyToolError: it is neither, or a pattern does not compile.
    """
    split = {key: table.text(key, go) for key, go in _SPLIT_KEYS.items() if key != "use_name_value"}
    wanted = table.flag("use_name_value", _SPLIT_KEYS["use_name_value"])
    kinds = ("string", "re2")
    whole, strategy = table.text("rule"), table.one_of(kinds, "strategy")
    required = table.flag("required")
    table.end()
    if wanted or (whole is None and split["name"] is not None):
        for key in split:
            if split[key] is None:
                table.fail(key, "is missing")
        for part in ("name", "value"):
            table.one_of(kinds, f"{part}_strategy", _SPLIT_KEYS[f"{part}_strategy"])
            _require_pattern(table, part, split[part], split[f"{part}_strategy"])
        keys = ("name", "name_strategy", "value", "value_strategy")
        return {**{key: split[key] for key in keys}, "required": required}
    if whole is None or strategy is None:
        table.fail("rule" if whole is None else "strategy", "is missing")
    _require_pattern(table, "rule", whole, strategy)
    return {"pattern": whole, "strategy": strategy, "required": required}


def _require_pattern(table: Table, key: str, pattern: str | None, strategy: str | None) -> None:
    if strategy == "re2" and not compiles(pattern):
        table.fail(key, f"{pattern!r} is no RE2 pattern")


def read_mount(table: Table) -> dict[str, Any]:
    """Read one mount.

    Raises:
        PolicyToolError: a path is missing, or its pattern does not compile.
    """
    source, target = table.text("host_path"), table.text("container_path")
    writable = not table.flag("readonly")
    table.end()
    if not source or not target:
        table.fail("container_path" if source else "host_path", "is missing")
    prefixed = source.startswith((SANDBOX_PREFIX, HUGE_PAGES_PREFIX))
    if not compiles(source):
        table.fail("host_path", f"{source!r} is no RE2 pattern")
    bind = prefixed or source.startswith(PLAN9_PREFIX)
    return {
        "destination": target,
        "options": ["rbind", "rshared" if prefixed else "rprivate", "rw" if writable else "ro"],
        "source": source,
        "type": "bind" if bind else "none",
    }


def _exec(table: Table, remarks: list[str]) -> dict[str, Any]:
    command = table.texts("command")
    if not command:
        table.fail("command", "is missing")
    process = {"command": command, "signals": _signals(table)}
    remarks += table.end(_NO_EFFECT)
    return process


def _signals(table: Table) -> list[int]:
    listed: list[Any] = table.get(list, "signals") or []
    found = []
    for one in listed:
        number = signal.Signals.__members__.get(one, 0) if isinstance(one, str) else one
        if isinstance(number, bool) or not isinstance(number, int) or not 0 < number <= 64:
            table.fail("signals", f"{one!r} is no signal: give numbers of 1 to 64, or names such as SIGTERM")
        found.append(int(number))
    return found


def _user(table: Table, image: Mapping[str, Any], remarks: list[str]) -> dict[str, Any]:
    user = table.table("user")
    if user is None:
        return _image_user(_text(image, "User"))
    name = user.table("user_idname")
    if name is None:
        user.fail("user_idname", "is missing")
    groups = [_id_name(one) for one in user.tables("group_idname", "group_idnames")]
    umask = user.text("umask")
    if not umask:
        user.fail("umask", 'is missing, and an empty one fits no process; "0022" is usual')
    if not groups:
        remarks.append(f"{user.at('group_idname')} is missing: a process with any group is refused")
    found = {"user_idname": _id_name(name), "group_idnames": groups, "umask": umask}
    remarks += user.end()
    return found


def _id_name(table: Table) -> dict[str, str]:
    strategy, rule = table.one_of(_ID_STRATEGIES, "strategy"), table.text("rule") or ""
    table.end()
    if strategy is None:
        table.fail("strategy", f"is missing: one of {', '.join(_ID_STRATEGIES)}")
    _require_pattern(table, "rule", rule, strategy)
    return {"pattern": rule, "strategy": strategy}


def _image_user(text: str) -> dict[str, Any]:
    """Return what an image's USER stands for: a number is an id, all else a name."""
    user, colon, group = text.partition(":")
    return {
        "user_idname": _id_or_name(user),
        "group_idnames": [_id_or_name(group) if colon else {"pattern": "", "strategy": "any"}],
        "umask": "0022",
    }


def _id_or_name(text: str) -> dict[str, str]:
    if not text:
        return {"pattern": "", "strategy": "any"}
    return {"pattern": text, "strategy": "id" if text.isascii() and text.isdecimal() else "name"}


def _capabilities(table: Table) -> dict[str, list[str]] | None:
    listed = table.table("capabilities")
    if listed is None:
        return None
    found = {name: listed.texts(name) or [] for name in _SETS}
    listed.end()
    return found
