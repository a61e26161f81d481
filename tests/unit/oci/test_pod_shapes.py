"""Shaping for pods: golden documents, rules of each scheme, and that arguments are left alone."""

from __future__ import annotations

import copy
import json
import posixpath
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.oci.documents import host_spec
from uvmd.api.containers import Additions
from uvmd.errors import Refused
from uvmd.linux.devices import DeviceNode
from uvmd.oci.shape import (
    additions,
    cgroup,
    devices,
    gpu,
    namespaces,
    network_files,
    propagation,
    security_context,
    sources,
)

Spec = dict[str, Any]
ROOT = "/run/gcs/c/s1"
MOUNTS = [
    {"destination": "/data", "type": "bind", "source": "sandbox:///data/a", "options": ["rbind", "rshared"]},
    {"destination": "/cache", "type": "bind", "source": "sandbox-tmp://cache", "options": ["rbind"]},
    {"destination": "/huge", "type": "bind", "source": "hugepages://2M/x", "options": ["rbind"]},
    {"destination": "/vm", "type": "bind", "source": "uvm:///opt/vm", "options": ["rbind", "ro"]},
    {"destination": "blockdev:///dev/disk", "type": "bind", "source": "/run/mounts/d", "options": ["bind"]},
    {"destination": "/etc/hosts", "type": "bind", "source": "/own/hosts", "options": ["bind"]},
]
ADDED = Additions(
    mounts=({"destination": "/usr/lib/lamp", "type": "bind", "source": "/opt/lamp", "options": ["ro"]},),
    devices=({"path": "/dev/lamp", "type": "c", "major": 240, "minor": 7, "access": "rw"},),
    environment={"LAMP": "left", "TERM": "dumb"},
    groups=(10, 44),
)


def pod_spec(**changes: Any) -> Spec:
    """What a host sends for a workload."""
    spec = host_spec()
    return {**spec, "mounts": [*spec["mounts"], *copy.deepcopy(MOUNTS)], **changes}


def _gpu(spec: Spec) -> Spec:
    annotations = {**spec["annotations"], "io.microsoft.container.gpu.capabilities": "utility,compute"}
    return gpu.apply_gpu_hook(
        {**spec, "annotations": annotations},
        program="/usr/bin/generichook",
        bundle="/run/gcs/c/c1",
        root="/run/gcs/c/c1/rootfs",
        locations=["0001:00:00.0", "0002:00:00.0"],
        environment={"PATH": "/bin"},
    )


STEPS: dict[str, Callable[[Spec], Spec]] = {
    "sources": lambda spec: sources.apply_schemes(spec, ROOT)[0],
    "files": lambda spec: network_files.apply_file_mounts(spec, ROOT),
    "additions": lambda spec: additions.apply_additions(spec, [("lamp", ADDED)])[0],
    "nodes": lambda spec: devices.apply_nodes(spec, [DeviceNode("/dev/null", "c", 1, 3, 0, 6)]),
    "gpu": _gpu,
    "host-network": namespaces.drop_network_namespace,
    "propagation": propagation.apply_propagation,
    "context": lambda spec: {
        **spec,
        "process": security_context.apply_variable(spec["process"], "/security-context-x"),
    },
    "staged": lambda spec: sources.replace_sources(spec, {"/own/hosts": "/run/uvmd/containers/c1/mounts/0"}),
}


def for_schema(spec: Spec) -> Spec:
    """Leave out what the schema does not know: containerd and both runtimes speak of rslave."""
    linux = {key: part for key, part in spec["linux"].items() if key != "rootfsPropagation"}
    return {**cgroup.drop_windows(spec), "linux": linux}


@pytest.mark.parametrize("step", STEPS)
def test_each_step_gives_its_golden_document(
    step: str, golden: Callable[[str, str], None], valid: Callable[[Spec], None]
) -> None:
    before = pod_spec()
    after = STEPS[step](before)
    assert before == pod_spec(), "the argument was changed"
    golden(f"pod-{step}.json", json.dumps(after, indent=1, sort_keys=True) + "\n")
    valid(for_schema(after))


def test_all_steps_together_give_a_valid_document(
    golden: Callable[[str, str], None], valid: Callable[[Spec], None]
) -> None:
    spec = pod_spec()
    for step in STEPS.values():
        spec = step(spec)
    golden("pod-all.json", json.dumps(spec, indent=1, sort_keys=True) + "\n")
    valid(for_schema(spec))


# Sources


def test_schemes_become_paths_and_say_what_they_need() -> None:
    spec, needed = sources.apply_schemes(pod_spec(), ROOT)
    assert [mount["source"] for mount in spec["mounts"][-6:]] == [
        f"{ROOT}/sandboxMounts/data/a",
        f"{ROOT}/sandboxTmpfsMounts/cache",
        f"{ROOT}/hugepages/2M/x",
        "/opt/vm",
        "/run/mounts/d",
        "/own/hosts",
    ]
    assert [source.page_size for source in needed.pod] == ["", "", "2M"]
    assert (needed.uvm, needed.disks) == (("/opt/vm",), ("/dev/disk",))


@pytest.mark.parametrize(
    ("scheme", "rest", "below"),
    [
        ("sandbox://", "/a/b", "sandboxMounts/a/b"), ("sandbox://", "a/../b", "sandboxMounts/b"),
        ("sandbox://", "", "sandboxMounts"), ("sandbox://", "a/..", "sandboxMounts"),
        ("sandbox-tmp://", "//a", "sandboxTmpfsMounts/a"), ("hugepages://", "/2M/a", "hugepages/2M/a"),
        ("hugepages://", "1G", "hugepages/1G"),
    ],
)  # fmt: skip
def test_a_source_is_cleaned_below_its_directory(scheme: str, rest: str, below: str) -> None:
    _, needed = sources.apply_schemes(pod_spec(mounts=[{"source": scheme + rest, "destination": "/a"}]), ROOT)
    assert [source.below for source in needed.pod] == [below]


@pytest.mark.parametrize(
    "source",
    [
        "sandbox://..", "sandbox://../sandboxMountsX", "sandbox://a/../../b", "sandbox-tmp:///../x", "sandbox://a\0b",
        "hugepages://", "hugepages://../2M", "hugepages://2T/x", "hugepages://0M", "hugepages://x/2M", "hugepages://2MB/x",
        "uvm://", "uvm://a", "uvm://../a", "uvm:///a\0",
    ],
)  # fmt: skip
def test_a_source_that_leaves_its_directory_is_refused(source: str) -> None:
    with pytest.raises(Refused, match=source.partition("//")[0]):
        sources.apply_schemes(pod_spec(mounts=[{"source": source, "destination": "/a"}]), ROOT)


@given(st.sampled_from(sorted(sources.DIRECTORIES)), st.text("ab./2M\0", max_size=24))
def test_no_text_leads_out_of_a_pods_directory(scheme: str, rest: str) -> None:
    spec = pod_spec(mounts=[{"source": scheme + rest, "destination": "/a"}])
    try:
        shaped, needed = sources.apply_schemes(spec, ROOT)
    except Refused:
        return
    (mount,) = shaped["mounts"]
    top = f"{ROOT}/{sources.DIRECTORIES[scheme]}"
    assert mount["source"] == posixpath.normpath(mount["source"])
    assert mount["source"] == top or mount["source"].startswith(f"{top}/")
    assert needed.pod[0].below == mount["source"].removeprefix(f"{ROOT}/")


def test_a_specification_without_mounts_stays_without() -> None:
    spec = pod_spec()
    del spec["mounts"]
    shaped, needed = sources.apply_schemes(spec, ROOT)
    assert shaped is spec
    assert needed == sources.Sources()
    assert sources.replace_sources(spec, {}) is spec


# Network files


def test_hosts_has_the_name_and_its_first_label() -> None:
    golden = (
        "127.0.0.1 localhost\n127.0.0.1 {}\n\n# The following lines are desirable for IPv6 capable hosts\n"
    )
    assert network_files.hosts_text("box").startswith(golden.format("box"))
    assert network_files.hosts_text("box.a.b").startswith(golden.format("box.a.b box"))
    assert network_files.hosts_text("box").endswith("\nff02::2 ip6-allrouters\n")


def test_resolv_conf_has_searches_then_servers() -> None:
    assert network_files.resolv_conf_text([], []) == ""
    text = network_files.resolv_conf_text(["10.0.0.1", "fe80::1"], ["a.b", "c"])
    assert text == "search a.b c\nnameserver 10.0.0.1\nnameserver fe80::1\n"
    assert network_files.resolv_conf_text([], list("abcdef")) == "search a b c d e f\n"


@pytest.mark.parametrize("searches", [list("abcdefg"), ["a b"], ["a\nnameserver 6.6.6.6"], [""]])
def test_searches_that_would_do_more_are_refused(searches: list[str]) -> None:
    with pytest.raises(Refused, match="DNS"):
        network_files.resolv_conf_text([], searches)


@given(st.lists(st.text(max_size=8), max_size=4), st.lists(st.text(max_size=8), max_size=8))
def test_every_line_of_resolv_conf_is_one_of_two_kinds(servers: list[str], searches: list[str]) -> None:
    try:
        text = network_files.resolv_conf_text(servers, searches)
    except Refused:
        return
    lines = text.split("\n")[:-1]
    assert len(lines) == len(servers) + bool(searches)
    assert [line.partition(" ")[2] for line in lines if line.startswith("nameserver ")] == servers


def test_only_files_that_are_not_mounted_are_added() -> None:
    mounts = network_files.missing_mounts(pod_spec(), ROOT)
    assert [mount["destination"] for mount in mounts] == ["/etc/hostname", "/etc/resolv.conf"]
    assert {tuple(mount["options"]) for mount in mounts} == {("bind", "ro")}
    writable = network_files.missing_mounts(pod_spec(root={"path": "/x"}), ROOT)
    assert {tuple(mount["options"]) for mount in writable} == {("bind",)}


# Devices, hooks, namespaces, the security context


@pytest.mark.parametrize("given", [None, [], [{"allow": True, "access": "r"}], [{"allow": False}]])
def test_rules_begin_by_allowing_nothing(given: Any) -> None:
    resources = {} if given is None else {"devices": given}
    nothing = {"allow": False, "access": "rwm"}
    denied = devices.apply_denial({"linux": {"resources": resources}})
    assert denied["linux"]["resources"]["devices"] == [nothing, *(given or [])]
    assert devices.apply_denial(denied) is denied
    assert devices.apply_denial({"linux": {}})["linux"]["resources"]["devices"] == [nothing]


def test_a_node_takes_the_place_of_its_path_and_gets_a_rule() -> None:
    nodes = [DeviceNode("/dev/null", "c", 1, 3, 0, 6), DeviceNode("/dev/odd", "c", 0, 0, 0, 0)]
    linux = devices.apply_nodes(pod_spec(), nodes, "r")["linux"]
    assert [(device["path"], device["gid"]) for device in linux["devices"]] == [("/dev/null", 6)]
    assert linux["resources"]["devices"][-1] == {
        "allow": True, "type": "c", "major": 1, "minor": 3, "access": "r",
    }  # fmt: skip


def test_a_gpus_hook_comes_after_those_that_are_there() -> None:
    spec = pod_spec(hooks={"createRuntime": [{"path": "/first"}], "poststop": []})
    hooks = _gpu(spec)["hooks"]
    assert [hook["path"] for hook in hooks["createRuntime"]] == ["/first", "/usr/bin/generichook"]
    assert hooks["poststop"] == []
    arguments = hooks["createRuntime"][1]["args"]
    assert arguments[6:] == [
        "--utility", "--compute", "--device=0001:00:00.0", "--device=0002:00:00.0", "--pid={{pid}}",
        "/run/gcs/c/c1/rootfs",
    ]  # fmt: skip


def test_the_network_namespace_goes_and_the_others_stay() -> None:
    kept = namespaces.drop_network_namespace(pod_spec())["linux"]["namespaces"]
    assert [entry["type"] for entry in kept] == ["pid", "mount"]
    assert namespaces.drop_network_namespace({"linux": {}})["linux"]["namespaces"] == []


def test_a_propagation_that_the_host_chose_stays() -> None:
    spec = pod_spec(linux={**pod_spec()["linux"], "rootfsPropagation": "rshared"})
    assert propagation.apply_propagation(spec) is spec


@pytest.mark.parametrize(
    ("annotations", "files"),
    [
        ({}, {"a": "1"}),
        ({"io.microsoft.virtualmachine.lcow.securitypolicy.env": "false"}, {}),
        ({"io.microsoft.virtualmachine.lcow.securitypolicy.env": "what"}, {"a": "1"}),
        ({"io.microsoft.virtualmachine.wcow.amd-certificate": "w"}, {"a": "1", "host-amd-cert-base64": "w"}),
        ({"io.microsoft.virtualmachine.lcow.amd-certificate": "l"}, {"a": "1", "host-amd-cert-base64": "l"}),
    ],
)
def test_the_security_context_is_the_vms_and_the_certificate(
    annotations: dict[str, str], files: dict[str, str]
) -> None:
    assert security_context.context_files({"annotations": annotations}, {"a": "1"}) == files
    assert security_context.context_files({}, {}) == {}
