"""Statistics of a cgroup in the shape of version 1, whatever the machine has.

The shape and the sources are those of spec containers.md 12: numbers that are 0 are left
out, an object that has only zeros is ``{}``. Files are read one by one: there are about
thirty, and each is written by the kernel at the moment it is read.
"""

from __future__ import annotations

import errno
import os
from typing import Any, Final

from uvmd.linux.cgroups import ROOT, Cgroups, read_file

UNLIMITED: Final = (1 << 64) - 1
_NS_PER_TICK: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

Stats = dict[str, Any]

_V1_MEMORY_STAT: Final = {
    "cache": "cache",
    "rss": "rss",
    "rss_huge": "rss_huge",
    "mapped_file": "mapped_file",
    "dirty": "dirty",
    "writeback": "writeback",
    "pgpgin": "pg_pg_in",
    "pgpgout": "pg_pg_out",
    "pgfault": "pg_fault",
    "pgmajfault": "pg_maj_fault",
    "inactive_anon": "inactive_anon",
    "active_anon": "active_anon",
    "inactive_file": "inactive_file",
    "active_file": "active_file",
    "unevictable": "unevictable",
}
_V1_MEMORY_KEYS: Final = {
    **_V1_MEMORY_STAT,
    "hierarchical_memory_limit": "hierarchical_memory_limit",
    "hierarchical_memsw_limit": "hierarchical_swap_limit",
    **{f"total_{name}": f"total_{key}" for name, key in _V1_MEMORY_STAT.items()},
}
_V1_COUNTERS: Final = (("usage", ""), ("swap", ".memsw"), ("kernel", ".kmem"), ("kernel_tcp", ".kmem.tcp"))
_V1_COUNTER_FILES: Final = (
    ("usage", "usage_in_bytes"),
    ("max", "max_usage_in_bytes"),
    ("failcnt", "failcnt"),
    ("limit", "limit_in_bytes"),
)
_V2_MEMORY_STAT: Final = {
    "anon": "rss",
    "file": "cache",
    "file_mapped": "mapped_file",
    "file_dirty": "dirty",
    "file_writeback": "writeback",
    "pgfault": "pg_fault",
    "pgmajfault": "pg_maj_fault",
    "inactive_anon": "inactive_anon",
    "active_anon": "active_anon",
    "inactive_file": "inactive_file",
    "active_file": "active_file",
    "unevictable": "unevictable",
}


def read_stats(cgroups: Cgroups, path: str) -> Stats:
    """Return the statistics of the group ``path``.

    Raises OSError: a file is there and cannot be read; or, on version 1, no controller knows
    the group. On version 2 a vanished group gives zeros.
    """
    if cgroups.version == 2:
        return _read_v2((cgroups.unified or ROOT) + path)
    found = {name: top + path for name, top in cgroups.hierarchies.items() if os.path.isdir(top + path)}
    if not found:
        raise FileNotFoundError(errno.ENOENT, "no controller knows this cgroup", path)
    return _read_v1(found)


def _number(text: bytes) -> int:
    text = text.strip()
    return UNLIMITED if text == b"max" else int(text or 0)


def _read_number(path: str) -> int:
    return _number(read_file(path))


def _read_pairs(path: str) -> dict[str, int]:
    """Read a file of ``name value`` lines; lines of another form are skipped."""
    pairs = {}
    for line in read_file(path).decode("ascii", "replace").splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            pairs[name] = int(value)
    return pairs


def _pick(pairs: dict[str, int], keys: dict[str, str]) -> Stats:
    return {key: pairs[name] for name, key in keys.items() if pairs.get(name)}


def _without_zeros(**numbers: int) -> Stats:
    return {key: number for key, number in numbers.items() if number}


# Version 1


def _read_v1(found: dict[str, str]) -> Stats:
    stats: Stats = {}
    if hugetlb := found.get("hugetlb"):
        stats["hugetlb"] = _v1_hugetlb(hugetlb)
    if pids := found.get("pids"):
        stats["pids"] = _v1_pids(pids)
    stats["cpu"] = {
        "usage": _v1_cpu_usage(found.get("cpuacct")),
        "throttling": _v1_throttling(found.get("cpu")),
    }
    if memory := found.get("memory"):
        stats["memory"] = _v1_memory(memory)
        oom = _v1_oom_control(memory)
        if oom is not None:
            stats["memory_oom_control"] = oom
    for emptied in ("blkio", "rdma"):
        if emptied in found:
            stats[emptied] = {}
    if not stats.get("hugetlb", True):
        del stats["hugetlb"]
    return stats


def _v1_hugetlb(directory: str) -> list[Stats]:
    suffix = ".usage_in_bytes"
    sizes = sorted(
        name[len("hugetlb.") : -len(suffix)]
        for name in os.listdir(directory)
        # .rsvd counts reservations of the same pages a second time.
        if name.startswith("hugetlb.") and name.endswith(suffix) and ".rsvd" not in name
    )
    return [
        {
            **_without_zeros(
                usage=_read_number(f"{directory}/hugetlb.{size}.usage_in_bytes"),
                max=_read_number(f"{directory}/hugetlb.{size}.max_usage_in_bytes"),
                failcnt=_read_number(f"{directory}/hugetlb.{size}.failcnt"),
            ),
            "pagesize": size,
        }
        for size in sizes
    ]


def _v1_pids(directory: str) -> Stats:
    try:
        current = _read_number(f"{directory}/pids.current")
        limit = read_file(f"{directory}/pids.max").strip()
    except FileNotFoundError:
        return {}
    # Unlimited counts as "no limit" here, unlike in version 2's conversion: 0, so left out.
    return _without_zeros(current=current, limit=0 if limit == b"max" else int(limit))


def _v1_cpu_usage(directory: str | None) -> Stats:
    usage: Stats = {}
    if directory is None:
        return usage
    try:
        total = _read_number(f"{directory}/cpuacct.usage")
        per_cpu = [int(text) for text in read_file(f"{directory}/cpuacct.usage_percpu").split()]
        ticks = _read_pairs(f"{directory}/cpuacct.stat")
    except FileNotFoundError:
        return usage
    usage = _without_zeros(
        total=total,
        kernel=ticks.get("system", 0) * _NS_PER_TICK,
        user=ticks.get("user", 0) * _NS_PER_TICK,
    )
    if per_cpu:
        usage["per_cpu"] = per_cpu
    return usage


def _v1_throttling(directory: str | None) -> Stats:
    if directory is None:
        return {}
    try:
        pairs = _read_pairs(f"{directory}/cpu.stat")
    except FileNotFoundError:
        return {}
    return _pick(
        pairs,
        {"nr_periods": "periods", "nr_throttled": "throttled_periods", "throttled_time": "throttled_time"},
    )


def _v1_memory(directory: str) -> Stats:
    memory: Stats = {key: {} for key, _ in _V1_COUNTERS}
    try:
        memory |= _pick(_read_pairs(f"{directory}/memory.stat"), _V1_MEMORY_KEYS)
        for key, infix in _V1_COUNTERS:
            counter = memory[key]
            for name, file in _V1_COUNTER_FILES:
                if number := _read_number(f"{directory}/memory{infix}.{file}"):
                    counter[name] = number
    except FileNotFoundError:
        pass  # without swap accounting the kernel's counters stay unread as well
    return memory


def _v1_oom_control(directory: str) -> Stats | None:
    try:
        pairs = _read_pairs(f"{directory}/memory.oom_control")
    except FileNotFoundError:
        return None
    return _pick(pairs, {name: name for name in ("oom_kill_disable", "under_oom", "oom_kill")})


# Version 2


def _v2_number(path: str) -> int:
    try:
        return _read_number(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return 0
        raise


def _v2_pairs(path: str) -> dict[str, int]:
    try:
        return _read_pairs(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return {}
        raise


def _read_v2(directory: str) -> Stats:
    cpu = _v2_pairs(f"{directory}/cpu.stat")
    stats: Stats = {
        "pids": _without_zeros(
            current=_v2_number(f"{directory}/pids.current"), limit=_v2_number(f"{directory}/pids.max")
        ),
        "cpu": {
            "usage": _without_zeros(
                total=cpu.get("usage_usec", 0) * 1000,
                kernel=cpu.get("system_usec", 0) * 1000,
                user=cpu.get("user_usec", 0) * 1000,
            ),
            "throttling": _without_zeros(
                periods=cpu.get("nr_periods", 0),
                throttled_periods=cpu.get("nr_throttled", 0),
                throttled_time=cpu.get("throttled_usec", 0) * 1000,
            ),
        },
        "memory": _v2_memory(directory),
        "rdma": {},
    }
    if hugetlb := _v2_hugetlb(directory):
        stats["hugetlb"] = hugetlb
    events = _v2_pairs(f"{directory}/memory.events")
    if events:
        stats["memory_oom_control"] = _without_zeros(oom_kill=events.get("oom_kill", 0))
    return stats


def _v2_memory(directory: str) -> Stats:
    pairs = _v2_pairs(f"{directory}/memory.stat")
    limit = _v2_number(f"{directory}/memory.max")
    swap_limit = _v2_number(f"{directory}/memory.swap.max")
    return {
        **_pick(pairs, _V2_MEMORY_STAT),
        **_without_zeros(hierarchical_memory_limit=limit, hierarchical_swap_limit=swap_limit),
        "usage": _without_zeros(
            limit=limit,
            usage=_v2_number(f"{directory}/memory.current"),
            max=_v2_number(f"{directory}/memory.peak"),
        ),
        "swap": _without_zeros(
            limit=swap_limit,
            usage=_v2_number(f"{directory}/memory.swap.current"),
            max=_v2_number(f"{directory}/memory.swap.peak"),
        ),
        "kernel": _without_zeros(usage=pairs.get("kernel_stack", 0)),
        "kernel_tcp": _without_zeros(usage=pairs.get("sock", 0)),
    }


def _v2_hugetlb(directory: str) -> list[Stats]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    suffix = ".current"
    sizes = sorted(
        name[len("hugetlb.") : -len(suffix)]
        for name in names
        if name.startswith("hugetlb.") and name.endswith(suffix) and ".rsvd" not in name
    )
    return [
        {
            **_without_zeros(
                usage=_v2_number(f"{directory}/hugetlb.{size}.current"),
                max=_v2_number(f"{directory}/hugetlb.{size}.max"),
            ),
            # Version 2 of the reference loses the page size (16.35); without it the list says little.
            "pagesize": size,
        }
        for size in sizes
    ]
