"""Execs in containers: their environment is the container's, their user is as the host says."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import specs
from support.containers import created, new_id, run, shell
from support.host import Connection, Refused
from support.matrix import row


def output(bridge: Connection, container_id: str, process: dict) -> bytes:
    exec_ = bridge.execute(container_id, process, stdout=True)
    assert exec_.wait() == 0
    return exec_.stdout.read_all()


def test_many_execs_run_side_by_side(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        running = [container.exec(*shell(f"sleep 0.2; echo {n}; exit {n}"), stdout=True) for n in range(10)]
        assert [exec_.wait() for exec_ in running] == list(range(10))
        assert [int(exec_.stdout.read_all()) for exec_ in running] == list(range(10))
        assert len({exec_.pid for exec_ in running}) == 10


def test_an_exec_runs_in_the_namespaces_of_its_container(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60", hostname="inside") as container:
        init = container.init()
        exec_ = container.exec("/bin/sleep", "60")
        for name in ("pid", "mnt", "uts", "ipc", "net"):
            ours, theirs = (Path(f"/proc/{pid}/ns/{name}").readlink() for pid in (init.pid, exec_.pid))
            assert ours == theirs
            assert ours != Path(f"/proc/self/ns/{name}").readlink()
        assert output(bridge, container.id, specs.process("/bin/hostname")) == b"inside\n"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({"uid": 0, "gid": 0}, "0 0"),
        ({"uid": 12, "gid": 34}, "12 34"),
        ({"username": "web"}, "1000 1001"),
        ({"username": "web:wheel"}, "1000 10"),
        ({"username": "1000"}, "1000 1001"),
        ({"username": "4242"}, "4242 0"),
        ({"username": "4242:wheel"}, "4242 10"),
        ({"username": "web:77"}, "1000 77"),
        ({"uid": 5, "gid": 6, "additionalGids": [10, 1001]}, "5 6 10 1001"),
    ],
)
def test_the_user_of_an_exec_is_resolved(bridge: Connection, user: dict, expected: str) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        process = specs.process(*shell("echo $(id -u) $(id -g) $(id -G)"), user=user)
        uid, gid, *groups = output(bridge, container.id, process).decode().split()
        wanted = expected.split()
        assert [uid, gid] == wanted[:2]
        assert set(groups) == set(wanted[1:])


@row("execute.user-unknown")
@pytest.mark.parametrize(
    "name", ["nobody-here", "web:nobody", "a:b:c", ":", "web:", ":wheel", "-1", "4294967296"]
)
def test_a_user_that_cannot_be_resolved_fails_the_exec(bridge: Connection, name: str) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        with pytest.raises(Refused):
            bridge.execute(container.id, specs.process("/bin/true", user={"username": name}))


def test_an_exec_gets_the_containers_limits(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        process = specs.process(*shell("ulimit -n"))
        process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 77}]
        assert output(bridge, container.id, process) == b"1024\n"


def test_environment_and_folder_are_those_of_the_request(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60", env=("PATH=/bin", "OF=container")) as container:
        container.init()
        process = specs.process(*shell("env; pwd"), env=("PATH=/bin", "MINE=yes it is"), cwd="/tmp")
        lines = output(bridge, container.id, process).decode().splitlines()
        assert "MINE=yes it is" in lines
        assert "OF=container" not in lines
        assert lines[-1] == "/tmp"


def test_capabilities_are_as_the_specification_says(bridge: Connection) -> None:
    status = run(bridge, *shell("cat /proc/self/status")).stdout.decode()
    wanted = sum(1 << bit for bit in (0, 1, 5, 6, 7))  # CHOWN, DAC_OVERRIDE, KILL, SETGID, SETUID
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    assert int(effective, 16) == wanted
    assert "NoNewPrivs:\t1" in status


def test_a_seccomp_filter_reaches_the_container(bridge: Connection) -> None:
    spec_seccomp = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
    spec = specs.container(*shell("mkdir /tmp/x; echo $?"))
    spec["linux"]["seccomp"] = spec_seccomp
    container_id = new_id()
    bridge.create(container_id, spec)
    init = bridge.execute(container_id, stdout=True)
    assert init.wait() == 0
    assert init.stdout.read_all() == b"1\n"
    bridge.delete(container_id)
