"""From OCI resources to the files of a cgroup, versions 1 and 2 (spec containers.md 3.2, 16.35).

For groups that no runtime makes: those of pods. Device rules are left out, they would bind
every container of the pod; a runtime sets them for each.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from uvmd.errors import Refused
from uvmd.linux.cgroups import ROOT, Cgroups, read_file

_UNLIMITED: Final = -1
#: Of the CPU quota, in microseconds: the kernel's own.
DEFAULT_PERIOD: Final = 100000
_PAGE_SIZE: Final = re.compile(r"([1-9][0-9]{0,6})([KMG]?)B?")
_UNIFIED_FILE: Final = re.compile(r"[a-z0-9_]+(\.[A-Za-z0-9_]+)+")


class Limit(NamedTuple):
    """One file and its value. ``controller`` says where it lies on version 1.

    An ``optional`` one may be missing where the kernel was built without it.
    """

    controller: str
    file: str
    value: str
    optional: bool = False


def limits(resources: dict[str, Any], version: int) -> list[Limit]:
    """Return what the resources are on this version.

    Raises:
        Refused: a value that cannot be meant.
    """
    return list(_version_1(resources) if version == 1 else _version_2(resources))


def write(cgroups: Cgroups, path: str, wanted: list[Limit]) -> list[Limit]:
    """Write limits of the group ``path``; return those that were there, for writing them back.

    A value that does not fit to another one of the same request (a limit above the old sum with
    swap, a quota above the parent's of the old period) is tried again after the others.

    Raises:
        OSError: naming the file; everything is as before.
    """
    before: list[Limit] = []
    try:
        left = _write_some(cgroups, path, wanted, before, again=True)
        _write_some(cgroups, path, left, before, again=False)
    except OSError:
        restore(cgroups, path, before)
        raise
    return before


def restore(cgroups: Cgroups, path: str, before: list[Limit]) -> None:
    """Write back what :func:`write` returned, as far as the kernel takes it."""
    for limit in reversed(before):
        try:
            _put(_file(cgroups, path, limit), limit.value)
        except OSError:
            continue


def _write_some(
    cgroups: Cgroups, path: str, wanted: list[Limit], before: list[Limit], *, again: bool
) -> list[Limit]:
    left = []
    for limit in wanted:
        file = _file(cgroups, path, limit)
        try:
            old = read_file(file).decode().strip()
            _put(file, limit.value)
        except FileNotFoundError:
            if not limit.optional:
                raise
            continue
        except OSError as error:
            if not again or error.errno not in (errno.EINVAL, errno.EBUSY):
                raise
            left.append(limit)
            continue
        before.append(limit._replace(value=old))
    return left


def _file(cgroups: Cgroups, path: str, limit: Limit) -> str:
    if cgroups.version == 2:
        return f"{cgroups.unified or ROOT}{path}/{limit.file}"
    top = cgroups.hierarchies.get(limit.controller, f"{ROOT}/{limit.controller}")
    return f"{top}{path}/{limit.file}"


def _put(file: str, value: str) -> None:
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise OSError(error.errno, error.strerror, file) from None


def _version_1(resources: dict[str, Any]) -> Iterator[Limit]:
    memory, cpu = resources.get("memory", {}), resources.get("cpu", {})
    for key, file, optional in (
        ("limit", "memory.limit_in_bytes", False),
        ("swap", "memory.memsw.limit_in_bytes", True),
        ("reservation", "memory.soft_limit_in_bytes", False),
        ("kernelTCP", "memory.kmem.tcp.limit_in_bytes", True),
        ("swappiness", "memory.swappiness", False),
    ):
        if memory.get(key):
            yield Limit("memory", file, str(memory[key]), optional)
    if memory.get("disableOOMKiller"):
        yield Limit("memory", "memory.oom_control", "1")
    for key, file in (
        ("shares", "cpu.shares"),
        ("period", "cpu.cfs_period_us"),
        ("quota", "cpu.cfs_quota_us"),
        ("realtimePeriod", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu.rt_runtime_us"),
    ):
        if cpu.get(key):
            yield Limit("cpu", file, str(cpu[key]), optional=key.startswith("realtime"))
    yield from _cpuset(cpu)
    if pids := resources.get("pids", {}).get("limit"):
        yield Limit("pids", "pids.max", "max" if pids < 0 else str(pids))
    if weight := resources.get("blockIO", {}).get("weight"):
        yield Limit("blkio", "blkio.bfq.weight", str(weight), optional=True)
        yield Limit("blkio", "blkio.weight", str(weight), optional=True)
    for entry in resources.get("hugepageLimits", ()):
        yield Limit("hugetlb", f"hugetlb.{_page_size(entry)}.limit_in_bytes", str(entry.get("limit", 0)))
    if class_id := resources.get("network", {}).get("classID"):
        yield Limit("net_cls", "net_cls.classid", str(class_id))


def _version_2(resources: dict[str, Any]) -> Iterator[Limit]:
    yield from _memory_2(resources.get("memory", {}))
    yield from _cpu_2(resources.get("cpu", {}))
    if pids := resources.get("pids", {}).get("limit"):
        yield Limit("pids", "pids.max", "max" if pids < 0 else str(pids))
    if weight := resources.get("blockIO", {}).get("weight"):
        yield Limit("io", "io.bfq.weight", str(weight), optional=True)
    for entry in resources.get("hugepageLimits", ()):
        yield Limit("hugetlb", f"hugetlb.{_page_size(entry)}.max", str(entry.get("limit", 0)))
    for file, value in resources.get("unified", {}).items():
        if not _UNIFIED_FILE.fullmatch(file) or file.startswith("cgroup."):
            raise Refused(f"linux.resources.unified: {file!r:.80} is no limit")
        yield Limit(file.partition(".")[0], file, value)


def _memory_2(memory: dict[str, Any]) -> Iterator[Limit]:
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit:
        yield Limit("memory", "memory.max", _or_max(limit))
    if swap:
        # OCI counts memory and swap together, version 2 apart.
        if swap > 0 and limit and limit > 0:
            if swap < limit:
                raise Refused("linux.resources.memory.swap is below the limit, which it includes")
            swap -= limit
        elif swap > 0:
            raise Refused("linux.resources.memory.swap needs a limit, which it includes")
        yield Limit("memory", "memory.swap.max", _or_max(swap), optional=True)
    if reservation := memory.get("reservation"):
        yield Limit("memory", "memory.low", _or_max(reservation))


def _cpu_2(cpu: dict[str, Any]) -> Iterator[Limit]:
    if shares := cpu.get("shares"):
        yield Limit("cpu", "cpu.weight", str(1 + (min(max(shares, 2), 262144) - 2) * 9999 // 262142))
    quota, period = cpu.get("quota"), cpu.get("period")
    if quota or period:
        text = str(quota) if quota and quota > 0 else "max"
        yield Limit("cpu", "cpu.max", f"{text} {period or DEFAULT_PERIOD}")
    if burst := cpu.get("burst"):
        yield Limit("cpu", "cpu.max.burst", str(burst), optional=True)
    if cpu.get("idle") is not None:
        yield Limit("cpu", "cpu.idle", str(cpu["idle"]), optional=True)
    yield from _cpuset(cpu)


def _cpuset(cpu: dict[str, Any]) -> Iterator[Limit]:
    for key in ("cpus", "mems"):
        if cpu.get(key):
            yield Limit("cpuset", f"cpuset.{key}", cpu[key])


def _or_max(number: int) -> str:
    return "max" if number <= _UNLIMITED else str(number)


def _page_size(entry: dict[str, Any]) -> str:
    found = _PAGE_SIZE.fullmatch(entry.get("pageSize", ""))
    if found is None:
        raise Refused("linux.resources.hugepageLimits: a page size is a number and K, M or G, as 2MB")
    return f"{found[1]}{found[2]}B"
