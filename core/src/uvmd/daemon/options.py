"""From file, environment and flags to one configuration, and where each value came from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uvmd.daemon.config import DEFAULT_FILE, Config, Option, build, options
from uvmd.errors import ConfigError

CONFIG_FLAG = "--config"
CONFIG_VARIABLE = "UVMD_CONFIG"
#: Where `uvmd serve` was typed; the monitor works in /, and the daemon with it.
STARTED_IN = "UVMD_STARTED_IN"
#: Variables that share the prefix and are not options.
NOT_OPTIONS = frozenset({CONFIG_VARIABLE, STARTED_IN, "UVMD_MONITOR_FD", "UVMD_MONITOR_SOCKET", "UVMD_HOST"})
_PATHS = frozenset({"log.file", "paths.run_dir", "paths.bundle_roots"})


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and, for each key that is not at its default, who set it."""

    config: Config
    sources: Mapping[str, str]


def load(flags: Sequence[str], environment: Mapping[str, str]) -> Loaded:
    """Read the three doors; the later wins. Relative paths mean where uvmd was started.

    Args:
        flags: the command line after ``serve``, as ``--key value`` or ``--key=value``;
            a switch may stand alone.
        environment: ``UVMD_...`` variables are read, others ignored.

    Raises:
        ConfigError: an unknown key, flag or variable, a value of the wrong type, or a
            file that cannot be read. The text names the place.
    """
    known = options()
    given = parse_flags(flags, known)
    base = environment.get(STARTED_IN) or os.getcwd()
    path = _absolute(given.pop(CONFIG_FLAG, "") or environment.get(CONFIG_VARIABLE, ""), base)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    plugin: dict[str, Mapping[str, Any]] = {}
    if path or os.path.exists(DEFAULT_FILE):
        file = path or DEFAULT_FILE
        values, plugin = read_file(file, known)
        sources = dict.fromkeys(values, file)
    variables = {option.variable: option for option in known.values()}
    for name, text in environment.items():
        if not name.startswith("UVMD_") or name in NOT_OPTIONS:
            continue
        if name not in variables:
            raise ConfigError(f"environment: {name} is not an option{_suggest(name, variables)}")
        option = variables[name]
        values[option.key], sources[option.key] = option.parse(text, f"environment {name}"), name
    for flag, text in given.items():
        option = known[flag]
        values[flag], sources[flag] = option.parse(text, f"flag {option.flag}"), option.flag
    anchored = {key: _anchored(key, value, base) for key, value in values.items()}
    return Loaded(build(anchored, plugin), sources)


def _anchored(key: str, value: Any, base: str) -> Any:
    """Return the value with its paths absolute."""
    if key == "transport":
        before, unix, path = value.rpartition("unix:")
        return f"{before}{unix}{_absolute(path, base)}" if unix else value
    if key == "runtime.name":
        return _absolute(value, base) if "/" in value else value
    if key not in _PATHS:
        return value
    return _absolute(value, base) if isinstance(value, str) else tuple(_absolute(one, base) for one in value)


def _absolute(path: str, base: str) -> str:
    return os.path.normpath(f"{base}/{path}") if path and not path.startswith("/") else path


def parse_flags(flags: Sequence[str], known: Mapping[str, Option]) -> dict[str, str]:
    """Return the flags' texts by dotted key (and ``--config``)."""
    by_flag: dict[str, Option | None] = {option.flag: option for option in known.values()}
    by_flag[CONFIG_FLAG] = None
    given: dict[str, str] = {}
    rest = list(flags)
    while rest:
        flag, equals, text = rest.pop(0).partition("=")
        if flag not in by_flag:
            raise ConfigError(f"unknown flag {flag}{_suggest(flag, by_flag)}; see: uvmd serve --help")
        option = by_flag[flag]
        if not equals:
            if option is not None and isinstance(option.default, bool):
                text = "true"
            elif rest:
                text = rest.pop(0)
            else:
                raise ConfigError(f"flag {flag} wants a value")
        given[option.key if option else CONFIG_FLAG] = text
    return given


def read_file(path: str, known: Mapping[str, Option]) -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
    """Read a TOML file into checked values by dotted key, and the plugins' raw sections."""
    import tomllib  # only where there is a file: 10 ms of the start

    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    values: dict[str, Any] = {}
    plugin = document.pop("plugin", {})
    if not isinstance(plugin, dict) or not all(isinstance(section, dict) for section in plugin.values()):
        raise ConfigError(f"{path}: plugin holds one table a plugin: [plugin.NAME]")
    sections = {key.partition(".")[0] for key in known if "." in key}
    for name, entry in document.items():
        entries = (
            {f"{name}.{key}": value for key, value in entry.items()}
            if isinstance(entry, dict)
            else {name: entry}
        )
        if name in sections and not isinstance(entry, dict):
            raise ConfigError(f"{path}: {name} is a section: [{name}]")
        for key, value in entries.items():
            if key not in known:
                raise ConfigError(f"{path}: unknown key {key}{_suggest(key, known)}")
            values[key] = known[key].check(value, path)
    return values, plugin


def help_text() -> str:
    """What ``uvmd serve --help`` prints."""
    lines = [
        "Usage: uvmd serve [--config FILE] [--SECTION-KEY VALUE]...",
        "",
        "Run the guest daemon. It dials the host, answers its requests over the bridge and",
        "runs OCI containers. Typed by hand this command gives the whole: it becomes the",
        "monitor, which starts the daemon as its child. Stop it with Ctrl-C: all containers",
        "are then killed and deleted. With UVMD_MONITOR_SOCKET=PATH it is the daemon of the",
        "monitor there (`uvmd monitor`), and leaves the containers to it.",
        "",
        "Try it on one machine, with `uvmctl` as the host:",
        "    uvmd serve --transport unix:/run/uvmd-host.sock --log-format text",
        "    uvmctl --host unix:/run/uvmd-host.sock ping",
        "",
        f"A value may come from the file ({DEFAULT_FILE} where it exists), from the",
        "environment, or from a flag; the later wins. `uvmd config` shows what is in force",
        "and where it came from. A relative path means the directory where uvmd is started.",
        "",
        f"  {CONFIG_FLAG} FILE",
        f"      the TOML file to read (environment: {CONFIG_VARIABLE})",
    ]
    section = ""
    for option in options().values():
        head = option.key.partition(".")[0] if "." in option.key else ""
        if head != section:
            section = head
            lines += ["", f"[{section}]"]
        default = option.default
        shown = (
            ",".join(default)
            if isinstance(default, tuple)
            else str(default).lower()
            if isinstance(default, bool)
            else default
        )
        choices = f"; one of {', '.join(option.choices)}" if option.choices else ""
        lines.append(f"  {option.flag} {_METAVARS[type(default)]}".rstrip())
        lines.append(f"      {option.help}{choices}")
        lines.append(f"      default: {shown if shown != '' else '(empty)'}; environment: {option.variable}")
    return "\n".join(lines) + "\n"


_METAVARS: dict[type, str] = {
    str: "TEXT",
    int: "N",
    float: "SECONDS",
    bool: "[=true|false]",
    tuple: "A,B,...",
}


def _suggest(name: str, known: Mapping[str, Any]) -> str:
    import difflib  # only on the way to an error

    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
