"""``uvmd doctor``: has this VM what uvmd, its configuration and its plugins need?

Each check says what was found and for what it is needed. Nothing is changed, no module is
loaded, no service is touched; what only a try could show is not claimed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from uvmd.errors import ConfigError

if TYPE_CHECKING:
    from uvmd.api import Requirement
    from uvmd.daemon.config import Config
    from uvmd.linux.cgroups import Cgroups

OK = "ok"
NOTE = "note"
MISSING = "missing"


class Finding(NamedTuple):
    """One line of the report. Something MISSING makes the VM unfit."""

    what: str
    state: str
    found: str
    needed_for: str = ""


def examine(config: Config) -> Iterator[Finding]:
    """Yield the findings on the machine where this runs, the most basic ones first."""
    yield _user()
    yield _kernel()
    yield _namespaces()
    yield _filter(config)
    yield _control_groups()
    yield from _platform()
    yield _runtime(config)
    yield from _folders(config)
    yield _transport(config)
    if config.vm.time_sync != "off":
        yield _clock()
    yield from _plugins(config)


def _user() -> Finding:
    if os.geteuid() == 0:
        return Finding("user", OK, "root")
    return Finding("user", MISSING, f"uid {os.geteuid()}", "mounts, cgroups, namespaces")


def _kernel() -> Finding:
    from uvmd.linux import abilities

    release = os.uname().release
    missing = abilities.missing_calls()
    if missing:
        return Finding("kernel", MISSING, f"{release}, without {', '.join(missing)}", "mounting safely")
    return Finding("kernel", OK, release)


def _namespaces() -> Finding:
    from uvmd.linux import abilities

    missing = abilities.missing_namespaces()
    if missing:
        return Finding("namespaces", MISSING, f"no {', '.join(missing)}", "containers")
    return Finding("namespaces", OK, ", ".join(abilities.NAMESPACES))


def _filter(config: Config) -> Finding:
    from uvmd.daemon import confinement
    from uvmd.linux import abilities, seccomp

    if not abilities.has_seccomp():
        return Finding("system call filter", NOTE, "not in this kernel", "the daemon confines itself")
    refused = seccomp.numbers(confinement.denied(powers_off=config.vm.agent))
    return Finding("system call filter", OK, f"{len(refused)} calls are refused to the daemon")


def _control_groups() -> Finding:
    from uvmd.linux import proc
    from uvmd.linux.cgroup_setup import cgroups_of

    groups = cgroups_of(proc.mounts())
    if not groups.hierarchies and groups.unified is None:
        return Finding("control groups", MISSING, "none are mounted", "containers")
    lacking = [name for name in ("memory", "cpu", "pids") if name not in _controllers(groups)]
    version = "version 1 beside a version 2 tree" if groups.hybrid else f"version {groups.version}"
    if lacking:
        return Finding("control groups", MISSING, f"{version}, no {', '.join(lacking)}", "limits of pods")
    return Finding("control groups", OK, version)


def _controllers(groups: Cgroups) -> set[str]:
    if groups.version == 1:
        return set(groups.hierarchies)
    with open(f"{groups.unified}/cgroup.controllers", encoding="ascii") as file:
        return set(file.read().split())


def _platform() -> Iterator[Finding]:
    from uvmd.linux.platform import find_platform
    from uvmd.policy.hardware import find_hardware

    yield Finding("platform", OK, find_platform().name)
    hardware = ", ".join(sorted(find_hardware())) or "none"
    yield Finding("confidential hardware", OK, hardware)


def _runtime(config: Config) -> Finding:
    from uvmd.oci.runtime import DEFAULT_PATH, find_program

    names = [config.runtime.name] if config.runtime.name else ["crun", "runc"]
    found = [path for name in names if (path := find_program(name, DEFAULT_PATH)) is not None]
    if not found:
        return Finding("OCI runtime", MISSING, f"no {' and no '.join(names)}", "containers")
    return Finding("OCI runtime", OK, found[0])


def _folders(config: Config) -> Iterator[Finding]:
    """Where uvmd writes: there, or to be made, in something that can be written to and has room."""
    uses = {config.paths.run_dir: "the journal, which a next daemon reads"}
    uses |= dict.fromkeys(config.paths.bundle_roots, "bundles and what is mounted in them")
    if config.log.file:
        uses[os.path.dirname(os.path.abspath(config.log.file))] = "the log"
    for path, use in uses.items():
        there = path
        while not os.path.isdir(there) and there != "/":
            there = os.path.dirname(there) or "/"
        found = os.statvfs(there)
        free = found.f_bavail * found.f_frsize // 2**20
        what = f"folder {path}"
        if found.f_flag & os.ST_RDONLY:
            yield Finding(what, MISSING, f"{there} is read-only", use)
        elif not free or (found.f_files and not found.f_favail):
            yield Finding(what, MISSING, f"{there} is full", use)
        else:
            yield Finding(what, OK, f"{free} MiB free" + ("" if there == path else ", will be made"))


def _transport(config: Config) -> Finding:
    from uvmd.linux import abilities
    from uvmd.transport import parse_transport

    transport = parse_transport(config.transport)
    if "vsock" in f"{transport.bridge} {transport.streams}" and not abilities.has_vsock():
        return Finding("transport", MISSING, "no vsock in this kernel", config.transport)
    return Finding("transport", OK, config.transport)


def _clock() -> Finding:
    from uvmd.daemon.time_sync import find_clock
    from uvmd.oci.runtime import DEFAULT_PATH, find_program

    clock, program = find_clock(), find_program("chronyd", DEFAULT_PATH)
    if clock and program:
        return Finding("clock", OK, f"{clock}, {program}")
    missing = ["no PTP device of a hypervisor"] if not clock else []
    missing += ["no chronyd"] if not program else []
    return Finding("clock", NOTE, ", ".join(missing), "vm.time_sync: the time after a pause")


def _plugins(config: Config) -> Iterator[Finding]:
    from uvmd import plugin_manager

    try:
        plugin_manager.resolve_all(config)
    except ConfigError as error:
        for line in str(error).splitlines():
            yield Finding("plugins", MISSING, line, "a start")
        return
    plugins = plugin_manager.load(config)
    yield Finding("plugins", OK, f"{len(plugins.declared)} loaded, every reference and setting is good")
    for name, declared in plugins.declared.items():
        yield from _required(name, declared.requirements)


def _required(plugin: str, requirements: Iterable[Requirement]) -> Iterator[Finding]:
    for one in requirements:
        found = _find(one)
        state = OK if found else (NOTE if one.optional else MISSING)
        what = f"{one.kind} {one.name.replace('|', ' or ')}"
        yield Finding(what, state, found or "not here", f"{plugin}: {one.purpose}")


def _find(one: Requirement) -> str:
    """Say where a requirement was found; empty if nowhere."""
    from uvmd.linux import abilities
    from uvmd.oci.runtime import DEFAULT_PATH, find_program

    if one.kind == "program":
        paths = (find_program(name, DEFAULT_PATH) for name in one.name.split("|"))
        return next(filter(None, paths), "")
    there = {
        "filesystem": abilities.has_filesystem,
        "dm-target": abilities.has_dm_target,
        "feature": abilities.has_feature,
    }[one.kind]
    return "in the kernel, or a module of it" if there(one.name) else ""
