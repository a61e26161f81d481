"""What a cgroup uses, from constructed files of both versions."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from uvmd.linux.cgroup_usage import FILES, Usage, UsageReader, read_usage
from uvmd.linux.cgroups import Cgroups

NOTHING = Usage(0, 0, 0, 0, 0, 0, 0)


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.fixture
def v2(tmp_path: Path) -> Cgroups:
    files = {
        "cpu.stat": "usage_usec 1500\nuser_usec 1000\n",
        "memory.current": "4096\n",
        "memory.max": "8192\n",
        "pids.current": "3\n",
        "memory.events": "oom 2\noom_kill 1\n",
        "io.stat": "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=5\n",
    }
    write(tmp_path / "pods" / "a", files)
    return Cgroups({}, str(tmp_path))


@pytest.fixture
def v1(tmp_path: Path) -> Cgroups:
    trees = {
        "cpuacct": {"cpuacct.usage": "1500000\n"},
        "memory": {
            "memory.usage_in_bytes": "4096\n",
            "memory.limit_in_bytes": "9223372036854771712\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        },
        "pids": {"pids.current": "3\n"},
        "blkio": {"blkio.throttle.io_service_bytes": "8:0 Read 10\n8:0 Write 20\n8:16 Read 5\nTotal 35\n"},
    }
    for controller, files in trees.items():
        write(tmp_path / controller / "pods" / "a", files)
    return Cgroups({controller: str(tmp_path / controller) for controller in trees}, None)


def test_both_versions_give_the_same_numbers(v1: Cgroups, v2: Cgroups) -> None:
    of_v2 = read_usage(v2, "/pods/a")
    assert of_v2 == Usage(1_500_000, 4096, 8192, 3, 1, 15, 20)
    assert read_usage(v1, "/pods/a") == of_v2._replace(memory_limit_bytes=0), "no limit is 0"


def test_a_group_that_is_gone_uses_nothing(v1: Cgroups, v2: Cgroups) -> None:
    assert read_usage(v1, "/pods/b") == read_usage(v2, "/pods/b") == NOTHING


def test_a_controller_that_is_not_mounted_counts_nothing(v1: Cgroups) -> None:
    without = Cgroups({key: top for key, top in v1.hierarchies.items() if key != "memory"}, None)
    assert read_usage(without, "/pods/a").memory_bytes == 0


def test_no_limit_is_zero_in_words_too(v2: Cgroups) -> None:
    Path(f"{v2.unified}/pods/a/memory.max").write_text("max\n")
    assert read_usage(v2, "/pods/a").memory_limit_bytes == 0


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(
    v2: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int, count: int, offset: int) -> bytes:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(os, "pread", fail)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match=r"cpu\.stat"):
        read_usage(v2, "/pods/a")
    assert os.listdir("/proc/self/fd") == before


def test_a_reader_sees_what_changes_and_a_group_that_vanishes(
    v2: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = UsageReader(v2, "/pods/a")
    Path(f"{v2.unified}/pods/a/memory.current").write_text("5000\n")
    assert reader.read().memory_bytes == 5000

    def gone(fd: int, count: int, offset: int) -> bytes:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", gone)
        assert reader.read() == NOTHING
    reader.close()


def test_a_reader_lets_go_of_its_files(v1: Cgroups) -> None:
    before = os.listdir("/proc/self/fd")
    reader = UsageReader(v1, "/pods/a")
    assert len(os.listdir("/proc/self/fd")) == len(before) + FILES
    reader.close()
    assert os.listdir("/proc/self/fd") == before


def test_a_file_of_many_devices_is_read_whole(v2: Cgroups) -> None:
    lines = "".join(f"{n}:0 rbytes=1 wbytes=2 rios=3 wios=4\n" for n in range(2000))
    Path(f"{v2.unified}/pods/a/io.stat").write_text(lines)
    used = read_usage(v2, "/pods/a")
    assert (used.read_bytes, used.written_bytes) == (2000, 4000)
