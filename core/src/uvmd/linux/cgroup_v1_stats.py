"""Statistics of a cgroup from the files of version 1 (spec containers.md 12)."""

from __future__ import annotations

import os
from typing import Final

from uvmd.linux.cgroups import read_file
from uvmd.linux.stat_files import Stats, pick, read_number, read_pairs, without_zeros

_NS_PER_TICK: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

_MEMORY_STAT: Final = {
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
_MEMORY_KEYS: Final = {
    **_MEMORY_STAT,
    "hierarchical_memory_limit": "hierarchical_memory_limit",
    "hierarchical_memsw_limit": "hierarchical_swap_limit",
    **{f"total_{name}": f"total_{key}" for name, key in _MEMORY_STAT.items()},
}
_COUNTERS: Final = (("usage", ""), ("swap", ".memsw"), ("kernel", ".kmem"), ("kernel_tcp", ".kmem.tcp"))
_COUNTER_FILES: Final = (
    ("usage", "usage_in_bytes"),
    ("max", "max_usage_in_bytes"),
    ("failcnt", "failcnt"),
    ("limit", "limit_in_bytes"),
)


def read_v1(found: dict[str, str]) -> Stats:
    """Read a group's directories, by controller.

    A missing file ends the reading of its controller. Raises OSError for any other reason.
    """
    stats: Stats = {}
    if hugetlb := found.get("hugetlb"):
        stats["hugetlb"] = _hugetlb(hugetlb)
    if pids := found.get("pids"):
        stats["pids"] = _pids(pids)
    stats["cpu"] = {
        "usage": _cpu_usage(found.get("cpuacct")),
        "throttling": _throttling(found.get("cpu")),
    }
    if memory := found.get("memory"):
        stats["memory"] = _memory(memory)
        oom = _oom_control(memory)
        if oom is not None:
            stats["memory_oom_control"] = oom
    for emptied in ("blkio", "rdma"):
        if emptied in found:
            stats[emptied] = {}
    if not stats.get("hugetlb", True):
        del stats["hugetlb"]
    return stats


def _hugetlb(directory: str) -> list[Stats]:
    suffix = ".usage_in_bytes"
    sizes = sorted(
        name[len("hugetlb.") : -len(suffix)]
        for name in os.listdir(directory)
        # .rsvd counts reservations of the same pages a second time.
        if name.startswith("hugetlb.") and name.endswith(suffix) and ".rsvd" not in name
    )
    return [
        {
            **without_zeros(
                usage=read_number(f"{directory}/hugetlb.{size}.usage_in_bytes"),
                max=read_number(f"{directory}/hugetlb.{size}.max_usage_in_bytes"),
                failcnt=read_number(f"{directory}/hugetlb.{size}.failcnt"),
            ),
            "pagesize": size,
        }
        for size in sizes
    ]


def _pids(directory: str) -> Stats:
    try:
        current = read_number(f"{directory}/pids.current")
        limit = read_file(f"{directory}/pids.max").strip()
    except FileNotFoundError:
        return {}
    # Unlimited counts as "no limit" here, unlike in version 2's conversion: 0, so left out.
    return without_zeros(current=current, limit=0 if limit == b"max" else int(limit))


def _cpu_usage(directory: str | None) -> Stats:
    usage: Stats = {}
    if directory is None:
        return usage
    try:
        total = read_number(f"{directory}/cpuacct.usage")
        per_cpu = [int(text) for text in read_file(f"{directory}/cpuacct.usage_percpu").split()]
        ticks = read_pairs(f"{directory}/cpuacct.stat")
    except FileNotFoundError:
        return usage
    usage = without_zeros(
        total=total,
        kernel=ticks.get("system", 0) * _NS_PER_TICK,
        user=ticks.get("user", 0) * _NS_PER_TICK,
    )
    if per_cpu:
        usage["per_cpu"] = per_cpu
    return usage


def _throttling(directory: str | None) -> Stats:
    if directory is None:
        return {}
    try:
        pairs = read_pairs(f"{directory}/cpu.stat")
    except FileNotFoundError:
        return {}
    return pick(
        pairs,
        {"nr_periods": "periods", "nr_throttled": "throttled_periods", "throttled_time": "throttled_time"},
    )


def _memory(directory: str) -> Stats:
    memory: Stats = {key: {} for key, _ in _COUNTERS}
    try:
        memory |= pick(read_pairs(f"{directory}/memory.stat"), _MEMORY_KEYS)
        for key, infix in _COUNTERS:
            counter = memory[key]
            for name, file in _COUNTER_FILES:
                if number := read_number(f"{directory}/memory{infix}.{file}"):
                    counter[name] = number
    except FileNotFoundError:
        pass  # without swap accounting the kernel's counters stay unread as well
    return memory


def _oom_control(directory: str) -> Stats | None:
    try:
        pairs = read_pairs(f"{directory}/memory.oom_control")
    except FileNotFoundError:
        return None
    return pick(pairs, {name: name for name in ("oom_kill_disable", "under_oom", "oom_kill")})
