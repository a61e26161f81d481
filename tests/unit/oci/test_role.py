"""A container's place in its pod, read from its specification."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.errors import Refused
from uvmd.oci.role import Kind, Role, read_role

TYPE = "io.kubernetes.cri.container-type"
SANDBOX = "io.kubernetes.cri.sandbox-id"
VIRTUAL = "io.microsoft.cri.virtual-pod-id"
SKIP = "io.microsoft.cri.skip-pod-networking"
HOST = "io.microsoft.virtualmachine.lcow.hostnetwork"
NAMESPACE = {"windows": {"network": {"networkNamespace": "AB-CD"}}}


def role(container_id: str = "c1", *, windows: bool = False, **annotations: str) -> Role:
    spec: dict[str, Any] = {"annotations": {globals()[key]: value for key, value in annotations.items()}}
    return read_role(container_id, {**spec, **(NAMESPACE if windows else {})})


def test_without_annotations_a_container_stands_alone() -> None:
    assert read_role("c1", {}) == Role(Kind.STANDALONE, "c1", lenient_network=True)
    assert role(windows=True) == Role(Kind.STANDALONE, "c1", namespace="ab-cd", lenient_network=True)
    assert not role().in_pod


def test_a_sandbox_is_its_pod() -> None:
    assert role(TYPE="sandbox", windows=True) == Role(Kind.SANDBOX, "c1", namespace="ab-cd")
    # Its own id counts, whatever the annotation that workloads have says.
    assert role(TYPE="sandbox", SANDBOX="other").pod_id == "c1"


def test_a_workload_is_of_the_pod_that_it_names() -> None:
    assert role(TYPE="container", SANDBOX="s1", windows=True, HOST="true") == Role(Kind.WORKLOAD, "s1")


@pytest.mark.parametrize("kind", ["sandbox", "container", "", "podlet"])
def test_the_container_with_a_virtual_pods_id_is_its_sandbox(kind: str) -> None:
    found = role("v1", TYPE=kind, VIRTUAL="v1", windows=True)
    assert found == Role(Kind.SANDBOX, "v1", virtual=True, namespace="ab-cd", lenient_network=True)


def test_others_of_a_virtual_pod_are_of_it() -> None:
    assert role(TYPE="container", SANDBOX="s1", VIRTUAL="v1") == Role(Kind.WORKLOAD, "v1", virtual=True)
    found = role(TYPE="sandbox", VIRTUAL="v1")
    assert (found.kind, found.pod_id, found.lenient_network) == (Kind.SANDBOX, "v1", False)


@pytest.mark.parametrize(("value", "skips"), [("true", True), ("TRUE", True), ("1", False), ("", False)])
def test_networking_is_skipped_by_one_word_alone(value: str, skips: bool) -> None:
    assert role(TYPE="sandbox", SKIP=value).lenient_network is skips


def test_the_vms_network_is_a_flag() -> None:
    assert role(TYPE="sandbox", HOST="T").host_network
    assert not role(HOST="yes").host_network


@pytest.mark.parametrize("annotations", [{"TYPE": "Sandbox"}, {"TYPE": "x" * 500}, {"TYPE": "container"}])
def test_what_is_no_place_is_refused(annotations: dict[str, str]) -> None:
    with pytest.raises(Refused, match=r"io\.kubernetes\.cri"):
        role(**annotations)


@given(st.dictionaries(st.sampled_from(["TYPE", "SANDBOX", "VIRTUAL", "SKIP", "HOST"]), st.text(max_size=10)))
def test_any_annotations_give_a_place_or_a_refusal(annotations: dict[str, str]) -> None:
    try:
        found = role(**annotations)
    except Refused:
        return
    assert found.pod_id
    assert found.kind is not Kind.WORKLOAD or not (found.namespace or found.host_network)
