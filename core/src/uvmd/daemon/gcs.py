"""The reference agent's command line, translated into uvmd's options.

Single-dash long flags as Go's flag package reads them (spec containers.md 2): ``-name
value``, ``-name=value`` and ``--name`` are all accepted, a boolean takes a value only
after ``=``, reading stops at the first word that is no flag.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uvmd.daemon.config import options
from uvmd.errors import ConfigError

_GO_TRUTH = {**dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
             **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False)}  # fmt: skip
_LEVELS = {
    "panic": "error", "fatal": "error", "error": "error", "warn": "warning", "warning": "warning",
    "info": "info", "debug": "debug", "trace": "debug",
}  # fmt: skip
#: Sizes that were measured for another daemon: obeyed, with a warning if they are below ours.
_SIZES = {"root-mem-reserve-bytes": "cgroups.reserve_bytes", "gcs-mem-limit-bytes": "cgroups.warn_bytes"}
_LARGEST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag of the reference: its default as text, and what it is for."""

    default: str
    help: str
    kind: type = str


FLAGS = {
    "v4": Flag("false", "register protocol version 4; without it every request is answered E_NOTIMPL", bool),
    "loglevel": Flag("debug", "panic, fatal, error, warn, info, debug or trace"),
    "logfile": Flag("", "log to this file instead of standard error"),
    "log-format": Flag("text", "text or json"),
    "use-inouterr": Flag("false", "bridge on descriptors 0 and 1", bool),
    "core-dump-location": Flag("", "written to /proc/sys/kernel/core_pattern"),
    "kmsgLogLevel": Flag("4", "forward the kernel's records up to this priority (0 emerg to 7 debug)", int),
    "root-mem-reserve-bytes": Flag("201326592", "memory kept from the containers' cgroup", int),
    "gcs-mem-limit-bytes": Flag("134217728", "warn when uvmd's own cgroup, /gcs, uses more than this", int),
    "disable-time-sync": Flag("false", "do not run chronyd on the hypervisor's clock", bool),
    "scrub-logs": Flag("true", "scrub payloads in logs", bool),
    "initial-policy-stance": Flag("allow", "allow or deny until a policy is set"),
}


def parse(arguments: Sequence[str]) -> dict[str, str]:
    """Return the given flags' texts by name.

    Raises:
        ConfigError: an unknown flag, a missing or unreadable value.
    """
    given: dict[str, str] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, text = word.lstrip("-").partition("=")
        flag = FLAGS.get(name)
        if flag is None or word.startswith("---"):
            raise ConfigError(f"flag provided but not defined: {word.partition('=')[0]}")
        if not equals:
            if flag.kind is bool:
                text = "true"
            elif rest:
                text = rest.pop(0)
            else:
                raise ConfigError(f"flag needs an argument: -{name}")
        if flag.kind is bool and text not in _GO_TRUTH:
            raise ConfigError(f"invalid boolean value for -{name}")
        if flag.kind is int and not (text.isascii() and text.isdigit() and int(text) < 1 << 64):
            raise ConfigError(f"invalid value for -{name}: want an unsigned number")
        given[name] = text
    return given


def translate(given: Mapping[str, str], environment: Mapping[str, str], *, owns_machine: bool) -> list[str]:
    """Return ``uvmd serve``'s flags for the reference's.

    Raises:
        ConfigError: a level, format or stance that the reference refuses too.
    """
    value = {name: given.get(name, flag.default) for name, flag in FLAGS.items()}
    level = _LEVELS.get(value["loglevel"].lower())
    if level is None:
        raise ConfigError("-loglevel: not a log level")
    stdio = _GO_TRUTH[value["use-inouterr"]]
    flags = {
        "--bridge-v4": str(_GO_TRUTH[value["v4"]]),
        "--log-level": level,
        "--log-file": value["logfile"],
        "--log-format": value["log-format"],
        "--log-scrub": str(_GO_TRUTH[value["scrub-logs"]]),
        "--log-kernel-level": str(min(int(value["kmsgLogLevel"]), 7)),
        "--cgroups-reserve-bytes": str(min(int(value["root-mem-reserve-bytes"]), _LARGEST)),
        "--cgroups-warn-bytes": str(min(int(value["gcs-mem-limit-bytes"]), _LARGEST)),
        "--vm-time-sync": "off" if _GO_TRUTH[value["disable-time-sync"]] else "auto",
        "--vm-core-pattern": value["core-dump-location"],
        "--vm-stance": value["initial-policy-stance"],
    }
    # What the reference has no flag for stays open to the environment and the file.
    if stdio:
        flags["--transport"] = "stdio"
    if owns_machine and "UVMD_VM_AGENT" not in environment:
        flags["--vm-agent"] = "true"
    if "UVMD_CGROUPS_OWN" not in environment:
        flags["--cgroups-own"] = "/gcs"
    return [f"{flag}={text}" for flag, text in flags.items()]


def notes(given: Mapping[str, str]) -> list[str]:
    """Return what should be said of the given flags once logging works."""
    known = options()
    return [
        f"-{name}={given[name]} is below the {known[key].default} that uvmd wants, obeying"
        for name, key in _SIZES.items()
        if name in given and int(given[name]) < known[key].default
    ]


def owns_machine() -> bool:
    """Whether ``gcs`` is PID 1 or its child: only then may a host power the machine off."""
    monitor = os.getppid()
    if monitor == 1:
        return True
    with open(f"/proc/{monitor}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[1] == "1"


def help_text() -> str:
    """What ``gcs -help`` prints."""
    lines = ["Usage: gcs [-flag[=value]]...", "", "uvmd under the reference agent's name and flags.", ""]
    for name, flag in FLAGS.items():
        lines.append(f"  -{name} {'' if flag.kind is bool else flag.kind.__name__}".rstrip())
        lines.append(f"      {flag.help} (default {flag.default or 'empty'})")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Entry point of ``python -m uvmd.daemon.gcs``: the daemon, with translated flags."""
    from uvmd.daemon.serve import run

    try:
        given = parse(sys.argv[1:])
        flags = translate(given, os.environ, owns_machine=owns_machine())
    except ConfigError as error:
        print(f"gcs: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(run(flags, notes=notes(given)))


if __name__ == "__main__":
    main()
