"""Pods that cannot be: the answer's code, its text, and that nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import specs
from support.containers import new_id
from support.daemon import Daemon
from support.host import CREATE, ZERO_GUID, Connection, code
from support.leaks import Snapshot, assert_nothing_left
from support.matrix import row
from support.pods import (
    SANDBOX_ID,
    SKIP_NETWORK,
    TYPE,
    VIRTUAL_ID,
    bind,
    pod,
    sandbox_spec,
    start_sandbox,
    workload_spec,
)

NAMESPACE = {"network": {"networkNamespace": "E26C0A1B-52E0-4F8C-9B35-6A4D0E0B1F7C"}}


def refused(bridge: Connection, spec: dict[str, Any], container_id: str = "") -> tuple[str, str]:
    """Ask for a container that must not come about; returns code and text."""
    container_id = container_id or new_id()
    text = bridge.host.container_config(container_id, spec)
    body = {"ContainerId": container_id, "ActivityId": ZERO_GUID, "ContainerConfig": text}
    answer = bridge.ask(CREATE, body)
    return code(answer), answer.get("ErrorMessage", "")


@contextmanager
def nothing_left(daemon: Daemon) -> Iterator[None]:
    before = Snapshot.take(daemon)
    yield
    assert_nothing_left(daemon, before)


@pytest.fixture(autouse=True)
def warm(steady: Connection) -> None:
    """Threads and modules come with the first requests; they are no leak."""
    with pod(steady) as made:
        made.run("true")


@row("create.type-unknown")
def test_an_unknown_container_type_is_refused(steady_daemon: Daemon, steady: Connection) -> None:
    with nothing_left(steady_daemon):
        answer = refused(steady, specs.container("/bin/true", annotations={TYPE: "podlet"}))
    assert answer[0] == "E_FAIL"
    assert "podlet" in answer[1]


@row("create.sandbox-id-missing")
def test_a_workload_must_name_its_pod(steady_daemon: Daemon, steady: Connection) -> None:
    with nothing_left(steady_daemon):
        answer = refused(steady, workload_spec("", "/bin/true"))
    assert answer[0] == "E_FAIL"
    assert SANDBOX_ID in answer[1]


@row("create.pod-unknown")
def test_a_workload_needs_its_sandbox(steady_daemon: Daemon, steady: Connection) -> None:
    nobody = new_id()
    with nothing_left(steady_daemon):
        answer = refused(steady, workload_spec(nobody, "/bin/true"))
    assert answer[0] == "E_FAIL"
    assert nobody in answer[1]


@pytest.mark.parametrize("pod_id", ["../../etc", "a/b", "x y", ".", "-x", ZERO_GUID])
def test_a_pods_id_is_a_safe_name(steady_daemon: Daemon, steady: Connection, pod_id: str) -> None:
    with nothing_left(steady_daemon):
        assert refused(steady, workload_spec(pod_id, "/bin/true"))[0] == "E_FAIL"
        virtual = sandbox_spec(pod_id, annotations={VIRTUAL_ID: pod_id})
        assert refused(steady, virtual)[0] == "E_FAIL"


@row("create.pod-exists")
def test_a_pod_has_one_sandbox(steady_daemon: Daemon, steady: Connection) -> None:
    virtual = new_id()
    spec = sandbox_spec(virtual, annotations={VIRTUAL_ID: virtual})
    made = start_sandbox(steady, pod_id=virtual, annotations={VIRTUAL_ID: virtual})
    with nothing_left(steady_daemon):
        answer = refused(steady, spec)
        assert answer[0] == "E_FAIL"
        assert virtual in answer[1]
        assert refused(steady, spec, container_id=virtual)[0] == "SYSTEM_ALREADY_EXISTS"
    made.close()


@row("create.bad-hostname")
@pytest.mark.parametrize("hostname", ["a b", "a\n127.0.0.1 evil", "x" * 256, "ä", "a/b"])
def test_a_host_name_that_is_none_is_refused(
    steady_daemon: Daemon, steady: Connection, hostname: str
) -> None:
    pod_id = new_id()
    with nothing_left(steady_daemon):
        answer = refused(steady, sandbox_spec(pod_id, hostname=hostname), pod_id)
    assert answer[0] == "E_FAIL"
    assert "hostname" in answer[1]


def test_a_workload_has_no_host_name_of_its_own(steady: Connection) -> None:
    with pod(steady) as made:
        answer = refused(steady, workload_spec(made.id, "/bin/true", hostname="own"))
    assert answer[0] == "E_FAIL"
    assert "hostname" in answer[1]


@row("create.bad-mounts")
@pytest.mark.parametrize(
    "source",
    [
        "sandbox://../sandboxMountsX",
        "sandbox://../../../etc",
        "sandbox-tmp://..",
        "hugepages://../hugepagesX",
        "hugepages://",
        "hugepages://many/x",
        "uvm://relative",
        "uvm:///no/such/path",
    ],
)
def test_a_mount_that_escapes_or_is_not_there_is_refused(
    steady_daemon: Daemon, steady: Connection, source: str
) -> None:
    with pod(steady) as made:
        with nothing_left(steady_daemon):
            answer = refused(steady, workload_spec(made.id, "/bin/true", mounts=[bind("/mnt", source)]))
        assert answer[0] == "E_FAIL"
        assert source.partition("//")[0] in answer[1]


def test_a_symlink_in_the_pods_directory_is_not_followed(
    steady_daemon: Daemon, steady: Connection, tmp_path: Path
) -> None:
    with pod(steady) as made:
        (made.root / "sandboxMounts" / "trap").symlink_to(tmp_path)
        with nothing_left(steady_daemon):
            for source in ("sandbox:///trap", "sandbox:///trap/below"):
                spec = workload_spec(made.id, "/bin/true", mounts=[bind("/mnt", source)])
                assert refused(steady, spec)[0] == "E_FAIL"
        assert not list(tmp_path.iterdir())


@row("create.bad-devices")
def test_a_device_that_is_not_there_is_refused(steady_daemon: Daemon, steady: Connection) -> None:
    with pod(steady) as made:
        spec = workload_spec(made.id, "/bin/true")
        for path in ("/dev/no-such-lamp", "/etc/passwd", "", "/dev/fd"):
            spec["linux"]["devices"] = [{"path": path, "type": "c", "major": 1, "minor": 3}]
            with nothing_left(steady_daemon):
                answer = refused(steady, spec)
            assert answer[0] == "E_FAIL"
            assert "linux.devices" in answer[1]


def test_a_block_device_must_be_a_link_to_one(
    steady_daemon: Daemon, steady: Connection, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("file")
    with pod(steady) as made:
        for source in ("/dev/null", str(tmp_path / "link"), str(tmp_path / "none")):
            mount = {"destination": "blockdev:///dev/disk", "type": "bind", "source": source}
            with nothing_left(steady_daemon):
                answer = refused(steady, workload_spec(made.id, "/bin/true", mounts=[mount]))
            assert answer[0] == "E_FAIL"
            assert "symlink to a device" in answer[1]


@row("create.namespace-unknown")
def test_a_sandbox_of_an_unknown_namespace_is_refused(steady_daemon: Daemon, steady: Connection) -> None:
    pod_id = new_id()
    spec = {**sandbox_spec(pod_id), "windows": NAMESPACE}
    with nothing_left(steady_daemon):
        answer = refused(steady, spec, pod_id)
    assert answer[0] == "NOT_FOUND"
    assert NAMESPACE["network"]["networkNamespace"].lower() in answer[1]


def test_a_sandbox_may_say_that_it_goes_without_network(steady: Connection) -> None:
    pod_id = new_id()
    spec = {**sandbox_spec(pod_id, annotations={SKIP_NETWORK: "TRUE"}), "windows": NAMESPACE}
    steady.create(pod_id, spec)
    assert (steady.host.bundle(pod_id) / "resolv.conf").read_text() == ""
    steady.delete(pod_id)


def test_a_user_that_the_image_lacks_refuses_the_sandbox(steady_daemon: Daemon, steady: Connection) -> None:
    pod_id = new_id()
    with nothing_left(steady_daemon):
        answer = refused(steady, sandbox_spec(pod_id, user={"username": "nobody-here"}), pod_id)
    assert answer[0] == "E_FAIL"
    assert "nobody-here" in answer[1]


def test_a_missing_root_leaves_nothing_of_the_pod(steady_daemon: Daemon, steady: Connection) -> None:
    pod_id = new_id()
    with nothing_left(steady_daemon):
        code_, text = refused(steady, sandbox_spec(pod_id, root=Path("/no/such/root")), pod_id)
        assert code_ == "E_FAIL"
        assert "root" in text
    made = start_sandbox(steady, pod_id=pod_id)  # the id is free
    made.close()


def test_limits_that_no_pod_can_have_leave_nothing(steady_daemon: Daemon, steady: Connection) -> None:
    pod_id = new_id()
    spec = sandbox_spec(pod_id)
    spec["linux"]["resources"]["cpu"] = {"cpus": "4000-5000"}
    with nothing_left(steady_daemon):
        answer = refused(steady, spec, pod_id)
    assert answer[0] == "E_FAIL"
    assert "cpuset.cpus" in answer[1]
