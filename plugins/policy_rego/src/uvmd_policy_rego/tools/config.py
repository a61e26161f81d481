"""The configuration of ``generate``: the fields of the reference's tool (policy.md 15.3), and ours.

Ours are ``name``, ``layers``, ``image``, ``platform``, ``reference`` and ``image_config`` of a
container, ``pause``, ``platform_rule``, ``transparency_trust_list``, and of a fragment
``required_receipts`` and ``parameters``. The reference pulls images by ``image_name``; here
nothing is fetched, and layers come from what lies on this machine.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from uvmd.image.progress import Progress, silent
from uvmd_policy_rego.tools.config_container import Sources, read_container, read_env_rule, read_mount
from uvmd_policy_rego.tools.errors import PolicyToolError
from uvmd_policy_rego.tools.tables import Table
from uvmd_policy_rego.tools.writing import FLAGS, Parts

#: What a fragment may bring into a policy (policy.md 11.1).
INCLUDES: Final = (
    "containers",
    "fragments",
    "external_processes",
    "transparency_trust_lists",
    "platform_rules",
    "namespace",
)
_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ANY: Final = {"pattern": "", "strategy": "any"}
#: The sandbox that containerd makes a pod of, k8s.gcr.io/pause:3.1 (policy.md 15.2, 15.3).
PAUSE: Final[dict[str, Any]] = {
    "command": ["/pause"],
    "env_rules": [
        {"pattern": _PATH, "strategy": "string", "required": True},
        {"pattern": "TERM=xterm", "strategy": "string", "required": False},
    ],
    "layers": ["16b514057a06ad665f92c02863aca074fd5976c755d26bff16365299169e8415"],
    "mounts": [],
    "exec_processes": [],
    "signals": [9, 15],
    "user": {"user_idname": _ANY, "group_idnames": [_ANY], "umask": "0022"},
    "capabilities": None,
    "seccomp_profile_sha256": "",
    "allow_elevated": True,
    "working_dir": "/",
    "allow_stdio_access": False,
    "no_new_privileges": True,
}


@dataclass(frozen=True, slots=True)
class Config:
    """What a configuration file comes to."""

    parts: Parts
    #: What is there and has no effect, or has one that may surprise.
    remarks: list[str] = field(default_factory=list)
    #: For each container, where each of its layers' hashes is from.
    layer_origins: list[list[str]] = field(default_factory=list)


def read_config(
    path: Path, *, pause: bool = True, check_layers: bool = False, progress: Progress = silent
) -> Config:
    """Read a configuration file, TOML or (by its name) JSON, and the layers that it names.

    Args:
        pause: add the pause container, as the reference's tool does.
        check_layers: hold every block of layer images against their hash tree.

    Raises:
        PolicyToolError: something is missing or wrong; names the key.
        ImageError: a layer cannot be read.
    """
    sources = Sources(path.parent, check_layers, progress)
    return _Reader(Table(_document(path)), sources).config(pause)


def _document(path: Path) -> Any:
    try:
        content = path.read_text("utf-8")
        return json.loads(content) if path.suffix == ".json" else tomllib.loads(content)
    except OSError as error:
        raise PolicyToolError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise PolicyToolError(f"{path} is not {kind}: {error}") from error


class _Reader:
    def __init__(self, table: Table, sources: Sources) -> None:
        self._table, self._sources = table, sources
        self._remarks: list[str] = []

    def config(self, pause: bool) -> Config:
        table, parts = self._table, Parts()
        parts.allow_all = table.flag("allow_all")
        for name in FLAGS:
            other = "allow_hostnetwork" if name == "allow_host_network" else name
            parts.flags[name] = table.flag(other, name)
        origins = []
        for one in table.tables("container", "containers"):
            found = read_container(one, self._sources)
            parts.containers.append(found.container)
            origins.append(found.origins)
            self._remarks += found.remarks
        parts.external_processes = [self._process(t) for t in table.tables(*_both("external_process"))]
        parts.fragments = [self._fragment(one) for one in table.tables("fragment", "fragments")]
        parts.platform_rules = [self._platform_rule(one) for one in table.tables(*_both("platform_rule"))]
        lists = table.tables("transparency_trust_list", "transparency_trust_lists")
        parts.transparency_trust_lists = [self._trust_list(one) for one in lists]
        wanted = table.get(bool, "pause")
        if pause and wanted is not False and not parts.allow_all:
            parts.containers.append(json.loads(json.dumps(PAUSE)))
            origins.append(["known: k8s.gcr.io/pause:3.1"])
        self._remarks += table.end(
            {
                "windows_container": "is for Windows guests and left out",
                "windows_containers": "is for Windows guests and left out",
                "auth": "has no effect: nothing is pulled",
            }
        )
        if parts.allow_all and parts.containers:
            raise PolicyToolError("Invalid policy for open-door enforcer: allow_all stands beside containers")
        return Config(parts, self._remarks, origins)

    def _process(self, table: Table) -> dict[str, Any]:
        command = table.texts("command")
        if not command:
            table.fail("command", "is missing")
        process = {
            "command": command,
            "env_rules": [{"pattern": _PATH, "strategy": "string", "required": True}],
            "working_dir": table.text("working_dir") or "",
            "allow_stdio_access": table.flag("allow_stdio_access"),
        }
        if not process["working_dir"]:
            self._remarks.append(f"{table.at('working_dir')} is empty, which no request fits")
        self._remarks += table.end()
        return process

    def _fragment(self, table: Table) -> dict[str, Any]:
        found: dict[str, Any] = {key: table.text(key) for key in ("issuer", "feed", "minimum_svn")}
        found["includes"] = table.texts("include", "includes")
        for key, value in found.items():
            if value in (None, "", []):
                table.fail(key, "is missing" if value is None else "is empty")
        for one in found["includes"]:
            if one not in INCLUDES:
                table.fail("include", f"{one!r} is none of {', '.join(INCLUDES)}")
        receipts = table.texts("required_receipts")
        if receipts:
            found["required_receipts"] = receipts
        parameters: dict[str, Any] | None = table.get(dict, "parameters")
        if parameters:
            found["parameters"] = parameters
        self._remarks += table.end()
        return found

    def _platform_rule(self, table: Table) -> dict[str, Any]:
        rule = {
            "env_rules": [read_env_rule(one) for one in table.tables("env_rule", "env_rules")],
            "mounts": [read_mount(one) for one in table.tables("mount", "mounts")],
        }
        self._remarks += table.end()
        return rule

    def _trust_list(self, table: Table) -> dict[str, Any]:
        found: dict[str, Any] = {key: table.text(key) for key in ("issuer", "subject", "minimum_svn")}
        found["allowed_ledgers"] = table.texts("allowed_ledgers")
        for key, value in found.items():
            if not value:
                table.fail(key, "is missing")
        self._remarks += table.end()
        return found


def _both(name: str) -> tuple[str, str]:
    return name, f"{name}es" if name.endswith("s") else f"{name}s"
