"""Cgroups of both versions, on trees of ordinary files."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.linux import cgroup_setup, cgroups, syscalls
from uvmd.linux.cgroup_stats import UNLIMITED, read_stats
from uvmd.linux.cgroup_v1_stats import read_v1
from uvmd.linux.cgroup_v2_stats import read_v2
from uvmd.linux.cgroups import Cgroups
from uvmd.linux.proc import parse_mountinfo
from uvmd.linux.stat_files import number

V1 = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
"""
HYBRID = V1 + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
V2 = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
ELSEWHERE = (
    "50 23 0:28 / /run/x/sys/fs/cgroup ro - cgroup2 cgroup2 rw\n51 23 0:28 / /y ro - cgroup c rw,pids\n"
)


def found(text: str) -> Cgroups:
    return cgroup_setup.cgroups_of(list(parse_mountinfo(text)))


def test_the_mount_table_tells_the_version() -> None:
    v1, hybrid, v2 = found(V1 + ELSEWHERE), found(HYBRID), found(V2 + ELSEWHERE)
    assert v1.hierarchies == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory",
        "systemd": "/sys/fs/cgroup/systemd",
    }
    assert (v1.version, v1.hybrid, v1.unified) == (1, False, None)
    assert (hybrid.version, hybrid.hybrid, hybrid.unified) == (1, True, "/sys/fs/cgroup/unified")
    assert (v2.version, v2.hybrid, v2.unified) == (2, False, "/sys/fs/cgroup")
    assert hybrid.directories("/p") == [
        "/sys/fs/cgroup/cpu,cpuacct/p", "/sys/fs/cgroup/memory/p", "/sys/fs/cgroup/systemd/p",
        "/sys/fs/cgroup/unified/p",
    ]  # fmt: skip


def tree(top: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def v1(tmp_path: Path) -> Cgroups:
    names = ("pids", "memory", "cpu", "cpuacct", "cpuset", "hugetlb", "blkio")
    for name in names:
        (tmp_path / name).mkdir(exist_ok=True)
    return Cgroups({name: str(tmp_path / name) for name in names}, None)


def test_processes_of_groups_below_count_too(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {"pids/p/cgroup.procs": "1\n2\n", "pids/p/a/cgroup.procs": "3\n", "pids/p/a/b/cgroup.procs": "4\n"},
    )
    assert v1(tmp_path).processes("/p") == [1, 2, 3, 4]
    assert v1(tmp_path).processes("/gone") == []
    tree(tmp_path, {"p/cgroup.procs": "5\n"})
    assert Cgroups({}, str(tmp_path)).processes("/p") == [5]


def test_a_group_is_killed_until_nobody_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, {"pids/p/cgroup.procs": "1\n2\n"})
    killed: list[int] = []

    def kill(pid: int, number: int) -> None:
        killed.append(pid)
        if pid == 1:
            (tmp_path / "pids" / "p" / "cgroup.procs").write_text("2\n3\n")  # it had just forked
        if pid == 2:
            raise ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    v1(tmp_path).kill("/p")
    assert sorted(killed) == [1, 2, 3]


def test_version_2_kills_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, {"p/cgroup.kill": "", "p/cgroup.procs": "1\n"})
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("not needed"))
    Cgroups({}, str(tmp_path)).kill("/p")
    assert (tmp_path / "p" / "cgroup.kill").read_text() == "1"


def test_groups_are_removed_from_the_inside_out(tmp_path: Path) -> None:
    for name in ("pids", "memory"):
        (tmp_path / name / "p" / "a" / "b").mkdir(parents=True)
    v1(tmp_path).remove("/p")
    v1(tmp_path).remove("/p")
    assert os.listdir(tmp_path / "pids") == []
    (tmp_path / "pids" / "q" / "inner").mkdir(parents=True)
    (tmp_path / "memory" / "q").mkdir()
    v1(tmp_path).remove_if_empty("/q")
    assert os.listdir(tmp_path / "pids") == ["q"]
    assert os.listdir(tmp_path / "memory") == []


def test_a_version_1_group_inherits_its_cpus(tmp_path: Path) -> None:
    groups = v1(tmp_path)
    tree(tmp_path, {"cpuset/cpuset.cpus": "0-3\n", "cpuset/cpuset.mems": "0\n"})
    tree(tmp_path, {"cpuset/p/cpuset.cpus": "\n", "cpuset/p/cpuset.mems": "1\n"})
    groups.ensure_group("/p")
    assert (tmp_path / "cpuset" / "p" / "cpuset.cpus").read_text() == "0-3"
    assert (tmp_path / "cpuset" / "p" / "cpuset.mems").read_text() == "1\n"
    assert (tmp_path / "blkio" / "p").is_dir()


def test_a_version_2_group_passes_controllers_on_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, str]] = []

    def write(path: str, value: str) -> None:
        written.append((os.path.relpath(path, tmp_path), value))
        if value == "+bad":
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(cgroups, "_write", write)
    tree(tmp_path, {"cgroup.controllers": "bad cpu memory\n", "cgroup.subtree_control": "cpu\n"})
    tree(tmp_path, {"p/cgroup.controllers": "memory\n", "p/cgroup.subtree_control": "\n"})
    groups = Cgroups({}, str(tmp_path))
    groups.ensure_group("/p")
    groups.set_memory_limit("/p", 5)
    assert written == [
        ("cgroup.subtree_control", "+bad"),
        ("cgroup.subtree_control", "+memory"),
        ("p/cgroup.subtree_control", "+memory"),
        ("p/memory.max", "5"),
    ]


def test_controllers_left_in_version_2_are_found_and_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, {"unified/cgroup.controllers": "hugetlb\n"})
    groups = Cgroups({"pids": str(tmp_path / "pids")}, str(tmp_path / "unified"))
    assert cgroup_setup.left_over_controllers(groups) == ["hugetlb"]
    assert cgroup_setup.left_over_controllers(Cgroups({}, str(tmp_path / "unified"))) == []
    monkeypatch.setattr(cgroup_setup, "ROOT", str(tmp_path))
    calls: list[Any] = []
    monkeypatch.setattr(syscalls, "mount", lambda *arguments: calls.append(arguments))
    cgroup_setup.mount_controllers(groups, ["hugetlb"])
    assert calls[0][:3] == ("cgroup", f"{tmp_path}/hugetlb", "cgroup")
    assert calls[0][4] == "hugetlb"
    assert groups.hierarchies["hugetlb"] == f"{tmp_path}/hugetlb"

    def busy(*_: Any) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(syscalls, "mount", busy)
    with pytest.raises(OSError, match="busy"):
        cgroup_setup.mount_controllers(groups, ["rdma"])
    assert not (tmp_path / "rdma").exists()


# Statistics


def test_version_1_statistics_have_the_reference_s_shape(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "pids/p/pids.current": "3\n",
            "pids/p/pids.max": "100\n",
            "cpu/p/cpu.stat": "nr_periods 5\nnr_throttled 0\nthrottled_time 7\nnr_bursts 1\n",
            "cpuacct/p/cpuacct.usage": "1000\n",
            "cpuacct/p/cpuacct.usage_percpu": "400 600 \n",
            "cpuacct/p/cpuacct.stat": "user 2\nsystem 3\n",
            "memory/p/memory.stat": (
                "cache 1\nrss 0\npgpgin 2\npgmajfault 3\nhierarchical_memory_limit 9\n"
                "hierarchical_memsw_limit 10\ntotal_cache 4\ntotal_pgfault 5\nshmem 6\nodd\n"
            ),
            "memory/p/memory.usage_in_bytes": "11\n",
            "memory/p/memory.max_usage_in_bytes": "12\n",
            "memory/p/memory.failcnt": "0\n",
            "memory/p/memory.limit_in_bytes": "13\n",
            "memory/p/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            "hugetlb/p/hugetlb.2MB.usage_in_bytes": "1\n",
            "hugetlb/p/hugetlb.2MB.max_usage_in_bytes": "2\n",
            "hugetlb/p/hugetlb.2MB.failcnt": "0\n",
            "hugetlb/p/hugetlb.2MB.rsvd.usage_in_bytes": "9\n",
            "blkio/p/blkio.weight": "1\n",
        },
    )
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert read_stats(v1(tmp_path), "/p") == {
        "hugetlb": [{"usage": 1, "max": 2, "pagesize": "2MB"}],
        "pids": {"current": 3, "limit": 100},
        "cpu": {
            "usage": {"total": 1000, "kernel": 3 * tick, "user": 2 * tick, "per_cpu": [400, 600]},
            "throttling": {"periods": 5, "throttled_time": 7},
        },
        "memory": {
            "cache": 1,
            "pg_pg_in": 2,
            "pg_maj_fault": 3,
            "hierarchical_memory_limit": 9,
            "hierarchical_swap_limit": 10,
            "total_cache": 4,
            "total_pg_fault": 5,
            "usage": {"usage": 11, "max": 12, "limit": 13},
            "swap": {},
            "kernel": {},
            "kernel_tcp": {},
        },
        "memory_oom_control": {"oom_kill": 2},
        "blkio": {},
    }


def test_on_version_1_the_processor_is_always_there_and_an_unknown_group_fails(tmp_path: Path) -> None:
    (tmp_path / "pids" / "p").mkdir(parents=True)
    assert read_stats(v1(tmp_path), "/p") == {"pids": {}, "cpu": {"usage": {}, "throttling": {}}}
    with pytest.raises(FileNotFoundError):
        read_stats(v1(tmp_path), "/q")


def test_a_counter_that_is_missing_ends_the_reading_of_memory(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "memory/p/memory.stat": "cache 1\n",
            "memory/p/memory.usage_in_bytes": "1\n",
            "memory/p/memory.max_usage_in_bytes": "1\n",
            "memory/p/memory.failcnt": "1\n",
            "memory/p/memory.limit_in_bytes": "1\n",
            "memory/p/memory.kmem.usage_in_bytes": "1\n",
        },
    )
    memory = read_stats(v1(tmp_path), "/p")["memory"]
    assert memory["usage"] == {"usage": 1, "max": 1, "failcnt": 1, "limit": 1}
    assert (memory["swap"], memory["kernel"]) == ({}, {})


def test_version_2_statistics_are_converted(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "p/pids.current": "1\n",
            "p/pids.max": "max\n",
            "p/cpu.stat": (
                "usage_usec 5\nuser_usec 2\nsystem_usec 3\nnr_periods 4\nnr_throttled 1\nthrottled_usec 6\n"
            ),
            "p/memory.current": "10\n",
            "p/memory.max": "max\n",
            "p/memory.peak": "20\n",
            "p/memory.swap.current": "0\n",
            "p/memory.swap.max": "30\n",
            "p/memory.stat": "anon 1\nfile 2\nkernel_stack 3\nsock 4\npgfault 5\nslab 9\n",
            "p/memory.events": "low 0\noom_kill 7\n",
            "p/hugetlb.2MB.current": "1\n",
            "p/hugetlb.2MB.max": "2\n",
            "p/hugetlb.2MB.rsvd.current": "3\n",
        },
    )
    assert read_stats(Cgroups({}, str(tmp_path)), "/p") == {
        "pids": {"current": 1, "limit": UNLIMITED},
        "cpu": {
            "usage": {"total": 5000, "kernel": 3000, "user": 2000},
            "throttling": {"periods": 4, "throttled_periods": 1, "throttled_time": 6000},
        },
        "memory": {
            "rss": 1,
            "cache": 2,
            "pg_fault": 5,
            "hierarchical_memory_limit": UNLIMITED,
            "hierarchical_swap_limit": 30,
            "usage": {"limit": UNLIMITED, "usage": 10, "max": 20},
            "swap": {"limit": 30},
            "kernel": {"usage": 3},
            "kernel_tcp": {"usage": 4},
        },
        "memory_oom_control": {"oom_kill": 7},
        "hugetlb": [{"usage": 1, "max": 2, "pagesize": "2MB"}],
        "rdma": {},
    }


def test_a_vanished_version_2_group_gives_zeros(tmp_path: Path) -> None:
    assert read_stats(Cgroups({}, str(tmp_path)), "/gone") == {
        "pids": {},
        "cpu": {"usage": {}, "throttling": {}},
        "memory": {"usage": {}, "swap": {}, "kernel": {}, "kernel_tcp": {}},
        "rdma": {},
    }


numbers = st.integers(0, 2**64 - 1)


@given(current=numbers, maximum=st.one_of(numbers, st.just("max")), usec=st.integers(0, 2**53))
def test_no_number_is_invented_or_lost(
    tmp_path_factory: pytest.TempPathFactory, current: int, maximum: Any, usec: int
) -> None:
    top = tmp_path_factory.mktemp("cg")
    tree(
        top,
        {
            "p/pids.current": f"{current}\n",
            "p/pids.max": f"{maximum}\n",
            "p/cpu.stat": f"usage_usec {usec}\n",
        },
    )
    stats = read_stats(Cgroups({}, str(top)), "/p")
    assert stats["pids"].get("current", 0) == current
    assert stats["pids"].get("limit", 0) == (UNLIMITED if maximum == "max" else maximum)
    assert stats["cpu"]["usage"].get("total", 0) == usec * 1000


def test_both_versions_have_the_processor_in_one_shape(tmp_path: Path) -> None:
    assert read_v1({})["cpu"] == read_v2(str(tmp_path))["cpu"] == {"usage": {}, "throttling": {}}


@pytest.mark.parametrize(("text", "value"), [(b"5\n", 5), (b"max\n", UNLIMITED), (b"", 0), (b"-1\n", -1)])
def test_a_file_of_one_number_is_read(text: bytes, value: int) -> None:
    assert number(text) == value


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "p" / "pids.current").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        read_stats(Cgroups({}, str(tmp_path)), "/p")


def test_a_long_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x" * 200_000)
    assert len(cgroups.read_file(str(tmp_path / "f"))) == 200_000
