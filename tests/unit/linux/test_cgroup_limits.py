"""From OCI resources to files of both versions, and writing them whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.errors import Refused
from uvmd.linux import cgroup_limits
from uvmd.linux.cgroup_limits import Limit, limits, restore, write
from uvmd.linux.cgroups import Cgroups

FULL: dict[str, Any] = {
    "memory": {"limit": 1000, "swap": 1500, "reservation": 500, "swappiness": 10, "disableOOMKiller": True},
    "cpu": {
        "shares": 1024,
        "quota": 5000,
        "period": 10000,
        "cpus": "0-1",
        "mems": "0",
        "burst": 7,
        "idle": 1,
    },
    "pids": {"limit": 9},
    "blockIO": {"weight": 100},
    "hugepageLimits": [{"pageSize": "2MB", "limit": 3}],
    "devices": [{"allow": False, "access": "rwm"}],
    "network": {"classID": 5},
    "unified": {"memory.high": "900"},
}


def values(resources: dict[str, Any], version: int) -> dict[str, str]:
    return {limit.file: limit.value for limit in limits(resources, version)}


def test_version_1_has_a_file_for_each() -> None:
    assert values(FULL, 1) == {
        "memory.limit_in_bytes": "1000", "memory.memsw.limit_in_bytes": "1500",
        "memory.soft_limit_in_bytes": "500", "memory.swappiness": "10", "memory.oom_control": "1",
        "cpu.shares": "1024", "cpu.cfs_period_us": "10000", "cpu.cfs_quota_us": "5000",
        "cpuset.cpus": "0-1", "cpuset.mems": "0", "pids.max": "9", "blkio.bfq.weight": "100",
        "blkio.weight": "100", "hugetlb.2MB.limit_in_bytes": "3", "net_cls.classid": "5",
    }  # fmt: skip


def test_version_2_counts_swap_apart_and_weighs_shares() -> None:
    assert values(FULL, 2) == {
        "memory.max": "1000", "memory.swap.max": "500", "memory.low": "500", "cpu.weight": "39",
        "cpu.max": "5000 10000", "cpu.max.burst": "7", "cpu.idle": "1", "cpuset.cpus": "0-1",
        "cpuset.mems": "0", "pids.max": "9", "io.bfq.weight": "100", "hugetlb.2MB.max": "3",
        "memory.high": "900",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("resources", "file", "value"),
    [
        ({"memory": {"limit": -1}}, "memory.max", "max"),
        ({"memory": {"limit": 5, "swap": -1}}, "memory.swap.max", "max"),
        ({"memory": {"limit": 5, "swap": 5}}, "memory.swap.max", "0"),
        ({"cpu": {"quota": -1, "period": 100000}}, "cpu.max", "max 100000"),
        ({"cpu": {"quota": 7}}, "cpu.max", "7 100000"),
        ({"cpu": {"period": 7}}, "cpu.max", "max 7"),
        ({"cpu": {"shares": 1}}, "cpu.weight", "1"),
        ({"cpu": {"shares": 262144}}, "cpu.weight", "10000"),
        ({"cpu": {"shares": 2**63}}, "cpu.weight", "10000"),
        ({"pids": {"limit": -1}}, "pids.max", "max"),
        ({"hugepageLimits": [{"pageSize": "1G"}]}, "hugetlb.1GB.max", "0"),
    ],
)
def test_version_2_says_unlimited_in_its_own_words(resources: dict[str, Any], file: str, value: str) -> None:
    assert values(resources, 2)[file] == value


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_not_set_is_not_written(version: int) -> None:
    unset = {"memory": {"limit": 0, "swap": 0}, "cpu": {"shares": 0, "quota": 0}, "pids": {"limit": 0}}
    assert limits({}, version) == limits(unset, version) == []


@pytest.mark.parametrize(
    ("resources", "version"),
    [
        ({"memory": {"swap": 5}}, 2),
        ({"memory": {"limit": 5, "swap": 4}}, 2),
        ({"hugepageLimits": [{"pageSize": "../x"}]}, 1),
        ({"hugepageLimits": [{}]}, 2),
        ({"unified": {"../x": "1"}}, 2),
        ({"unified": {"cgroup.procs": "1"}}, 2),
        ({"unified": {"memory/x.y": "1"}}, 2),
    ],
)
def test_what_cannot_be_meant_is_refused(resources: dict[str, Any], version: int) -> None:
    with pytest.raises(Refused, match=r"linux\.resources"):
        limits(resources, version)


numbers = st.integers(-(2**63), 2**64 - 1)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "memory": st.fixed_dictionaries(
                {}, optional={k: numbers for k in ("limit", "swap", "reservation")}
            ),
            "cpu": st.fixed_dictionaries({}, optional={k: numbers for k in ("shares", "quota", "period")}),
            "pids": st.fixed_dictionaries({"limit": numbers}),
            "unified": st.dictionaries(st.text(max_size=12), st.text(max_size=4), max_size=3),
        },
    ),
    st.sampled_from([1, 2]),
)
def test_any_resources_name_plain_files_or_are_refused(resources: dict[str, Any], version: int) -> None:
    try:
        found = limits(resources, version)
    except Refused:
        return
    for limit in found:
        assert "/" not in limit.file
        assert limit.value
        assert not limit.value.startswith("-1 ")


def group(tmp_path: Path, **files: str) -> Cgroups:
    for name, value in files.items():
        file = tmp_path / "memory" / "pods" / name.replace("__", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value)
    return Cgroups({"memory": str(tmp_path / "memory")}, None)


def read(tmp_path: Path, name: str) -> str:
    return (tmp_path / "memory" / "pods" / name).read_text()


def test_limits_are_written_and_can_be_put_back(tmp_path: Path) -> None:
    cgroups = group(tmp_path, a="1", b="2")
    before = write(cgroups, "/pods", [Limit("memory", "a", "3"), Limit("memory", "b", "4")])
    assert (read(tmp_path, "a"), read(tmp_path, "b")) == ("3", "4")
    restore(cgroups, "/pods", before)
    assert (read(tmp_path, "a"), read(tmp_path, "b")) == ("1", "2")


def test_a_file_that_is_missing_puts_the_others_back(tmp_path: Path) -> None:
    cgroups = group(tmp_path, a="1")
    optional = Limit("memory", "swap", "5", optional=True)
    write(cgroups, "/pods", [Limit("memory", "a", "3"), optional])
    with pytest.raises(FileNotFoundError):
        write(cgroups, "/pods", [Limit("memory", "a", "7"), Limit("memory", "none", "5")])
    assert read(tmp_path, "a") == "3"


def test_a_value_that_does_not_fit_yet_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgroups, tried, put = group(tmp_path, a="1", b="2"), [], cgroup_limits._put

    def once(file: str, value: str) -> None:
        tried.append(Path(file).name)
        if tried == ["a"]:
            raise OSError(errno.EINVAL, "Invalid argument", file)
        put(file, value)

    monkeypatch.setattr(cgroup_limits, "_put", once)
    write(cgroups, "/pods", [Limit("memory", "a", "3"), Limit("memory", "b", "4")])
    assert tried == ["a", "b", "a"]
    assert read(tmp_path, "a") == "3"
