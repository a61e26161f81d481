"""resolv.conf of pods that run, when adapters come and go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.host.fakes import Bench, container_spec
from unit.host.pod_parts import FakeNetwork, NotedMounts, sandbox_spec, with_network
from uvmd.api.transaction import transaction
from uvmd.errors import Failed, Refused
from uvmd.host.operations import name_servers

KEYS = {"netns:n", "nic:02:00:00:00:00:01"}


@pytest.fixture
def network(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> FakeNetwork:
    """The provider of a bench with the pod s1, whose namespace is n."""
    NotedMounts().install(monkeypatch)
    provider = with_network(bench, "n", "other")
    bench.create("s1", sandbox_spec("N"))
    return provider


def change(
    bench: Bench, network: FakeNetwork, servers: Sequence[str], searches: Sequence[str] = ("a.b",)
) -> None:
    """What a request of the network does, around the change of the adapters."""
    with transaction() as undo:
        follow = name_servers.watch(bench.ctx, KEYS)
        network.servers, network.searches = servers, searches
        follow(undo)


def resolv_conf(bench: Bench, container_id: str = "s1") -> Path:
    return bench.bundle(container_id) / "resolv.conf"


def test_the_file_follows_the_adapters_in_place(bench: Bench, network: FakeNetwork) -> None:
    path = resolv_conf(bench)
    file = path.stat().st_ino
    change(bench, network, ["10.0.0.1", "10.0.0.2"])
    assert path.read_text() == "search a.b\nnameserver 10.0.0.1\nnameserver 10.0.0.2\n"
    change(bench, network, [], [])
    assert path.read_text() == ""
    change(bench, network, ["10.0.0.3"], [])
    assert path.read_text() == "nameserver 10.0.0.3\n"
    # It is bound into the pod's containers: another file of this name would not be seen there.
    assert path.stat().st_ino == file


def test_what_the_pod_has_written_itself_stays(bench: Bench, network: FakeNetwork) -> None:
    resolv_conf(bench).write_text("nameserver 9.9.9.9\n")
    change(bench, network, ["10.0.0.2"])
    assert resolv_conf(bench).read_text() == "nameserver 9.9.9.9\n"


def test_a_standalone_container_with_a_file_of_the_hosts_is_left_alone(
    bench: Bench, network: FakeNetwork
) -> None:
    theirs = [{"destination": "/etc/resolv.conf", "type": "bind", "source": "/theirs"}]
    windows = {"network": {"networkNamespace": "n"}}
    bench.create("c1", container_spec(windows=windows, mounts=theirs))
    change(bench, network, ["10.0.0.2"])
    assert not resolv_conf(bench, "c1").exists()
    assert "10.0.0.2" in resolv_conf(bench).read_text()


def test_pods_of_other_namespaces_and_other_changes_do_not_matter(bench: Bench, network: FakeNetwork) -> None:
    bench.create("s2", sandbox_spec("other"))
    change(bench, network, ["10.0.0.2"])
    assert resolv_conf(bench, "s2").read_text() == "search a.b\nnameserver 10.0.0.1\n"
    network.failures["dns"] = RuntimeError("asked")
    with transaction() as undo:
        name_servers.watch(bench.ctx, {"device:0:1", "container:s1"})(undo)


def test_too_many_searches_refuse_the_adapter_and_a_failure_puts_the_file_back(
    bench: Bench, network: FakeNetwork
) -> None:
    before = resolv_conf(bench).read_text()
    with pytest.raises(Refused, match="7 DNS searches"):
        change(bench, network, ["10.0.0.2"], list("abcdefg"))
    assert resolv_conf(bench).read_text() == before
    network.servers, network.searches = ["10.0.0.1"], ["a.b"]
    with pytest.raises(OSError, match="later"), transaction() as undo:
        follow = name_servers.watch(bench.ctx, KEYS)
        network.servers = ["10.0.0.2", "10.0.0.3"]
        follow(undo)
        assert "10.0.0.3" in resolv_conf(bench).read_text()
        raise OSError("later")
    assert resolv_conf(bench).read_text() == before


def test_a_symlink_is_not_followed_and_a_full_disk_is_told(
    bench: Bench, network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: 1)
    with pytest.raises(Failed, match=r"resolv\.conf: No space left"):
        change(bench, network, ["10.0.0.2"])
    monkeypatch.undo()
    path = resolv_conf(bench)
    target = path.with_name("target")
    path.rename(target)
    path.symlink_to(target)
    text = target.read_text()
    with pytest.raises(Failed):
        change(bench, network, ["10.0.0.4"])
    assert target.read_text() == text


NAMES = st.lists(st.sampled_from(["10.0.0.1", "fd00::1", "a", "b.c"]), max_size=3, unique=True)


@given(steps=st.lists(st.tuples(NAMES, NAMES), max_size=4))
def test_whatever_comes_and_goes_the_file_says_what_is_there(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[list[str], list[str]]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        NotedMounts().install(patch)
        bench = Bench(tmp_path_factory.mktemp("pod"))
        network = with_network(bench, "n")
        bench.create("s1", sandbox_spec("n"))
        for servers, searches in steps:
            change(bench, network, servers, searches)
        lines = [f"search {' '.join(network.searches)}"] if network.searches else []
        lines += [f"nameserver {one}" for one in network.servers]
        assert resolv_conf(bench).read_text().splitlines() == lines
