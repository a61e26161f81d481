"""What an operator may set, once, with its default and its explanation.

One description serves four doors: the TOML file, ``UVMD_...`` in the environment, the
flags of ``uvmd serve`` and the help texts. The later door wins: file, environment, flags.
Nothing here imports pydantic: configuration is read before the bridge is dialled, and the
two together would double the time to the first answer (docs/decisions/0002).

Every section is a frozen dataclass; the type of an option is the type of its default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from uvmd.errors import ConfigError
from uvmd.linux.paths import is_clean_absolute

DEFAULT_FILE = "/etc/uvmd/uvmd.toml"
MIB = 1 << 20


def _option(
    default: Any,
    help: str,
    choices: Sequence[str] = (),
    at_least: float | None = None,
    cgroup: bool = False,
) -> Any:
    about = {"help": help, "choices": tuple(choices), "at_least": at_least, "cgroup": cgroup}
    return field(default=default, metadata=about)


@dataclass(frozen=True, slots=True)
class Log:
    """Where log lines go and what they may show."""

    format: str = _option("json", "one JSON object a line, or text for people", ("json", "text"))
    level: str = _option(
        "info", "the least severe level that is logged", ("debug", "info", "warning", "error")
    )
    file: str = _option("", "append to this file (made with mode 0600) instead of standard error")
    scrub: bool = _option(True, "hide environment values, arguments and policy bodies")
    kernel_level: int = _option(
        -1,
        "forward the kernel's records up to this priority (0 emerg to 7 debug); -1 forwards none",
        at_least=-1,
    )


@dataclass(frozen=True, slots=True)
class Runtime:
    """The OCI runtime that runs the containers."""

    name: str = _option("", "crun, runc or an absolute path; empty takes crun where installed, else runc")
    timeout_s: float = _option(60.0, "seconds after which a call of the runtime is killed", at_least=0.1)


@dataclass(frozen=True, slots=True)
class Paths:
    """Folders that uvmd uses or lets a host use."""

    run_dir: str = _option("/run/uvmd", "journal and runtime state; owner-only")
    bundle_roots: tuple[str, ...] = _option(
        ("/run/gcs", "/run/mounts"), "bundles and scratch folders must lie strictly below one of these"
    )


@dataclass(frozen=True, slots=True)
class Vm:
    """How much of the machine uvmd answers for."""

    agent: bool = _option(False, "the machine is ours: a host may power it off")
    stance: str = _option("allow", "answer to every question until a policy is set", ("allow", "deny"))
    sequential: str = _option(
        "auto", "one request at a time: auto looks for confidential hardware", ("auto", "always")
    )
    core_pattern: str = _option("", "written to /proc/sys/kernel/core_pattern at start; empty leaves it")
    time_sync: str = _option(
        "off", "auto runs chronyd on the hypervisor's PTP clock where there is one", ("off", "auto")
    )


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The cgroup under which all containers live, and that of uvmd itself."""

    pods: str = _option("/pods", "root cgroup of all containers", cgroup=True)
    reserve_bytes: int = _option(
        192 * MIB, "memory kept from containers: limit = total - reserve", at_least=0
    )
    own: str = _option(
        "",
        "cgroup for uvmd itself, protected up to the reserve; empty stays in the one it was started in",
        cgroup=True,
    )
    warn_bytes: int = _option(
        128 * MIB, "log a warning when the cgroup of uvmd itself uses more than this; 0 does not", at_least=0
    )


@dataclass(frozen=True, slots=True)
class Bridge:
    """The connection to the host."""

    max_inbound_bytes: int = _option(16 * MIB, "largest frame taken from the host", at_least=65536)
    v4: bool = _option(True, "speak protocol version 4; off answers every request with E_NOTIMPL")


@dataclass(frozen=True, slots=True)
class Stdio:
    """Streams of processes."""

    drain_grace_s: float = _option(
        10.0,
        "seconds of silence after which a dead process's output, held open by another, is closed",
        at_least=0,
    )


@dataclass(frozen=True, slots=True)
class Plugins:
    """Which installed plugins are loaded. A name that nobody provides stops the start."""

    allow: tuple[str, ...] = _option(("*",), "names that may load, or * for all that are installed")
    deny: tuple[str, ...] = _option((), "names that must not load")
    require: tuple[str, ...] = _option((), "names without which uvmd must not start")


@dataclass(frozen=True, slots=True)
class Network:
    """Who sets the containers' networks up."""

    provider: str = _option("", "name of the provider, needed where several plugins have one")


@dataclass(frozen=True, slots=True)
class Policy:
    """Which enforcers a host may pick."""

    enforcers: tuple[str, ...] = _option(
        ("open_door", "rego"), "names that a SecurityPolicy message may select"
    )


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration. ``plugin`` holds the raw sections of the plugins."""

    transport: str = _option("vsock", "vsock[:CID[:PORT]], unix:PATH (dialled) or stdio[:unix:PATH]")
    log: Log = field(default_factory=Log)
    runtime: Runtime = field(default_factory=Runtime)
    paths: Paths = field(default_factory=Paths)
    vm: Vm = field(default_factory=Vm)
    cgroups: Cgroups = field(default_factory=Cgroups)
    bridge: Bridge = field(default_factory=Bridge)
    stdio: Stdio = field(default_factory=Stdio)
    plugins: Plugins = field(default_factory=Plugins)
    network: Network = field(default_factory=Network)
    policy: Policy = field(default_factory=Policy)
    plugin: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that can be set: ``key`` is its dotted name, the flag and variable follow from it."""

    key: str
    default: Any
    help: str
    choices: tuple[str, ...]
    at_least: float | None
    cgroup: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.key.replace(".", "-").replace("_", "-")

    @property
    def variable(self) -> str:
        return "UVMD_" + self.key.replace(".", "_").upper()

    def check(self, value: Any, source: str) -> Any:
        """Return ``value`` as the option's type.

        Raises:
            ConfigError: another type, not among the choices, too small, or no cgroup.
        """
        want = type(self.default)
        if want is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
            value = tuple(value)
        elif want is float and type(value) is int:
            value = float(value)
        if type(value) is not want:
            raise ConfigError(
                f"{source}: {self.key} wants {_KINDS[want]}, not {_KINDS.get(type(value), 'that')}"
            )
        if self.choices and value not in self.choices:
            raise ConfigError(f"{source}: {self.key} is one of {', '.join(self.choices)}")
        if self.at_least is not None and value < self.at_least:
            raise ConfigError(f"{source}: {self.key} must be at least {self.at_least:g}")
        if self.cgroup and value and not (is_clean_absolute(value) and value != "/"):
            raise ConfigError(f"{source}: {self.key} is a cgroup's path from the root of all, like /pods")
        if self.cgroup and not value and self.default:
            raise ConfigError(f"{source}: {self.key} cannot be empty")
        return value

    def parse(self, text: str, source: str) -> Any:
        """Read the option from a flag's or variable's text."""
        want = type(self.default)
        if want is bool:
            if text.lower() not in _TRUTH:
                raise ConfigError(f"{source}: {self.key} wants true or false")
            return _TRUTH[text.lower()]
        if want is tuple:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if want is str:
            return self.check(text, source)
        try:
            return self.check(want(text), source)
        except ValueError:
            raise ConfigError(f"{source}: {self.key} wants {_KINDS[want]}") from None


_KINDS: dict[type, str] = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false", tuple: "a list of texts",
    list: "a list", dict: "a table",
}  # fmt: skip
_TRUTH = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


def options(section: type = Config, prefix: str = "") -> dict[str, Option]:
    """Every option by its dotted key, in the order of the file."""
    found: dict[str, Option] = {}
    for entry in fields(section):
        key = prefix + entry.name
        if "help" in entry.metadata:
            meta = entry.metadata
            found[key] = Option(
                key, entry.default, meta["help"], meta["choices"], meta["at_least"], meta["cgroup"]
            )
        elif isinstance(entry.default_factory, type) and is_dataclass(entry.default_factory):
            found.update(options(entry.default_factory, key + "."))
    return found


def build(values: Mapping[str, Any], plugin: Mapping[str, Mapping[str, Any]] | None = None) -> Config:
    """Make the configuration from checked values by dotted key."""
    sections: dict[str, dict[str, Any]] = {}
    top: dict[str, Any] = {}
    for key, value in values.items():
        section, dot, name = key.partition(".")
        if dot:
            sections.setdefault(section, {})[name] = value
        else:
            top[key] = value
    for entry in fields(Config):
        if entry.name in sections and isinstance(entry.default_factory, type):
            top[entry.name] = entry.default_factory(**sections[entry.name])
    return Config(**top, plugin=plugin or {})
