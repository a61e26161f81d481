"""Statistics of a version 2 cgroup, converted to the shape of version 1 (spec containers.md 12)."""

from __future__ import annotations

import errno
import os
from typing import Final

from uvmd.linux.stat_files import Stats, pick, read_number, read_pairs, without_zeros

_MEMORY_STAT: Final = {
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


def _number(path: str) -> int:
    try:
        return read_number(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return 0
        raise


def _pairs(path: str) -> dict[str, int]:
    try:
        return read_pairs(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return {}
        raise


def read_v2(directory: str) -> Stats:
    """Read a group's directory; a missing file counts as 0, and a vanished group is all zeros.

    Raises OSError for any other reason.
    """
    cpu = _pairs(f"{directory}/cpu.stat")
    stats: Stats = {
        "pids": without_zeros(
            current=_number(f"{directory}/pids.current"), limit=_number(f"{directory}/pids.max")
        ),
        "cpu": {
            "usage": without_zeros(
                total=cpu.get("usage_usec", 0) * 1000,
                kernel=cpu.get("system_usec", 0) * 1000,
                user=cpu.get("user_usec", 0) * 1000,
            ),
            "throttling": without_zeros(
                periods=cpu.get("nr_periods", 0),
                throttled_periods=cpu.get("nr_throttled", 0),
                throttled_time=cpu.get("throttled_usec", 0) * 1000,
            ),
        },
        "memory": _memory(directory),
        "rdma": {},
    }
    if hugetlb := _hugetlb(directory):
        stats["hugetlb"] = hugetlb
    events = _pairs(f"{directory}/memory.events")
    if events:
        stats["memory_oom_control"] = without_zeros(oom_kill=events.get("oom_kill", 0))
    return stats


def _memory(directory: str) -> Stats:
    pairs = _pairs(f"{directory}/memory.stat")
    limit = _number(f"{directory}/memory.max")
    swap_limit = _number(f"{directory}/memory.swap.max")
    return {
        **pick(pairs, _MEMORY_STAT),
        **without_zeros(hierarchical_memory_limit=limit, hierarchical_swap_limit=swap_limit),
        "usage": without_zeros(
            limit=limit,
            usage=_number(f"{directory}/memory.current"),
            max=_number(f"{directory}/memory.peak"),
        ),
        "swap": without_zeros(
            limit=swap_limit,
            usage=_number(f"{directory}/memory.swap.current"),
            max=_number(f"{directory}/memory.swap.peak"),
        ),
        "kernel": without_zeros(usage=pairs.get("kernel_stack", 0)),
        "kernel_tcp": without_zeros(usage=pairs.get("sock", 0)),
    }


def _hugetlb(directory: str) -> list[Stats]:
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
            **without_zeros(
                usage=_number(f"{directory}/hugetlb.{size}.current"),
                max=_number(f"{directory}/hugetlb.{size}.max"),
            ),
            # Version 2 of the reference loses the page size (16.35); without it the list says little.
            "pagesize": size,
        }
        for size in sizes
    ]
