"""From wishes to an OCI spec."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.client import spec_defaults
from uvmd.client.errors import SpecError
from uvmd.client.spec import ContainerOptions, build_spec, bundle_path, merge_env
from uvmd.client.spec_text import Mount, parse_annotation, parse_size, parse_user, parse_volume

ABSOLUTE = st.text(st.characters(codec="ascii", exclude_characters=":\0"), max_size=20).map(
    lambda text: "/" + text
)


def options(**changes: Any) -> ContainerOptions:
    return ContainerOptions(**{"rootfs": "/srv/rootfs", "args": ["true"], **changes})


def test_a_plain_container_is_confined() -> None:
    spec = build_spec("c1", options())
    assert spec["root"] == {"path": "/srv/rootfs", "readonly": False}
    assert {entry["type"] for entry in spec["linux"]["namespaces"]} >= {
        "pid",
        "mount",
        "network",
        "ipc",
        "uts",
    }
    assert spec["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert "/proc/kcore" in spec["linux"]["maskedPaths"]
    assert "CAP_SYS_ADMIN" not in spec["process"]["capabilities"]["bounding"]
    assert "windows" not in spec


def test_a_privileged_one_is_not() -> None:
    spec = build_spec("c1", options(privileged=True))
    assert "maskedPaths" not in spec["linux"]
    assert spec["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "CAP_SYS_ADMIN" in spec["process"]["capabilities"]["bounding"]
    assert spec["annotations"] == {"io.microsoft.virtualmachine.lcow.privileged": "true"}
    assert not any("ro" in mount["options"] for mount in spec["mounts"])


def test_a_default_capability_is_a_capability_once() -> None:
    assert set(spec_defaults.CAPABILITIES) < set(spec_defaults.ALL_CAPABILITIES)
    assert len(set(spec_defaults.ALL_CAPABILITIES)) == len(spec_defaults.ALL_CAPABILITIES) == 41


def test_capabilities_are_added_and_taken_away_by_either_spelling() -> None:
    spec = build_spec("c1", options(cap_add=["net_admin", "CAP_CHOWN"], cap_drop=["CAP_MKNOD", "SYS_TIME"]))
    for names in spec["process"]["capabilities"].values():
        assert "CAP_NET_ADMIN" in names
        assert "CAP_MKNOD" not in names
        assert names.count("CAP_CHOWN") == 1


def test_limits_appear_only_when_asked_for() -> None:
    assert list(build_spec("c1", options())["linux"]["resources"]) == ["devices"]
    resources = build_spec("c1", options(memory_bytes=1 << 20, cpus=1.5, pids_limit=10))["linux"]["resources"]
    assert resources["memory"] == {"limit": 1 << 20}
    assert resources["cpu"] == {"quota": 150000, "period": 100000}
    assert resources["pids"] == {"limit": 10}


def test_a_terminal_gets_a_size_and_a_name() -> None:
    process = build_spec("c1", options(terminal=True, console_size=(50, 132)))["process"]
    assert process["consoleSize"] == {"height": 50, "width": 132}
    assert "TERM=xterm" in process["env"]


def test_the_network_is_none_the_vms_or_a_namespace() -> None:
    host = build_spec("c1", options(network="host"))
    assert {"type": "network"} not in host["linux"]["namespaces"]
    assert host["annotations"] == {"io.microsoft.virtualmachine.lcow.hostnetwork": "true"}
    named = build_spec("c1", options(network="a-b"))
    assert named["windows"] == {"network": {"networkNamespace": "a-b"}}


def test_a_tee_is_an_annotation() -> None:
    annotations = build_spec("c1", options(tee="out.log", annotations={"k": "v"}))["annotations"]
    assert annotations == {"k": "v", "io.microsoft.container.lcow.tee-log-path": "out.log"}


@pytest.mark.parametrize(
    "change",
    [
        {"args": []},
        {"cap_add": ["CAP_NONSENSE"]},
        {"rootfs": "rootfs"},
        {"rootfs": "/run/gcs/c/c1/rootfs"},
        {"rootfs": "/run/gcs/c/x/../c1"},
        {"cwd": "tmp"},
        {"hostname": "a b"},
        {"cpus": -1.0},
        {"cpus": 0.001},
        {"pids_limit": -1},
        {"env": ["=x"]},
        {"env": ["NAME"]},
    ],
)
def test_nonsense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        build_spec("c1", options(**change))


@pytest.mark.parametrize("container_id", ["", "-a", "a/b", "..", "a" * 129, "a\n"])
def test_an_id_that_a_runtime_would_refuse_is_refused(container_id: str) -> None:
    with pytest.raises(SpecError):
        bundle_path(container_id)


def test_an_environments_error_does_not_show_the_value() -> None:
    with pytest.raises(SpecError) as caught:
        merge_env([], ["=secret"])
    assert "secret" not in str(caught.value)


def test_a_user_is_left_to_the_guest_to_look_up() -> None:
    assert parse_user("") == {"uid": 0, "gid": 0}
    assert parse_user("www:20") == {"uid": 0, "gid": 0, "username": "www:20"}


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("64m", 64 << 20), ("1.5G", 3 << 29), ("2KiB", 2048)]
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "0", "1x", "1e3", "9" * 20])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_size(text)


@pytest.mark.parametrize("text", ["/a", "a:/b", "/a:b", "/a:/b:wx", "/a:/b:ro:x", ""])
def test_other_volumes_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_volume(text)


def test_a_volume_is_bound_privately() -> None:
    (mount,) = build_spec("c1", options(mounts=[Mount("/a", "/b", ("ro",))]))["mounts"][-1:]
    assert mount == {
        "destination": "/b",
        "type": "bind",
        "source": "/a",
        "options": ["rbind", "ro", "rprivate"],
    }


@given(source=ABSOLUTE, destination=ABSOLUTE, read_only=st.booleans())
def test_any_absolute_volume_survives(source: str, destination: str, read_only: bool) -> None:
    text = f"{source}:{destination}" + (":ro" if read_only else "")
    assert parse_volume(text) == Mount(source, destination, ("ro",) if read_only else ())


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.text(max_size=5)), max_size=8))
def test_the_last_value_of_a_variable_wins_and_there_is_one(pairs: list[tuple[str, str]]) -> None:
    merged = merge_env(["A=0"], [f"{name}={value}" for name, value in pairs])
    assert dict(entry.split("=", 1) for entry in merged) == {"A": "0", **dict(pairs)}
    assert len(merged) == len({"A", *dict(pairs)})


@pytest.mark.parametrize("text", ["", "k", "=v"])
def test_an_annotation_needs_a_key_and_a_value(text: str) -> None:
    with pytest.raises(SpecError):
        parse_annotation(text)
    assert parse_annotation("k=v=w") == ("k", "v=w")


@given(
    args=st.lists(st.text(max_size=10), min_size=1, max_size=4),
    env=st.lists(st.text(max_size=8).map(lambda text: f"X={text}"), max_size=4),
    memory=st.integers(0, 1 << 50),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_every_spec_is_json_with_distinct_mount_points(
    args: list[str], env: list[str], memory: int, flags: tuple[bool, bool, bool]
) -> None:
    privileged, read_only, terminal = flags
    spec = build_spec(
        "c1",
        options(
            args=args,
            env=env,
            memory_bytes=memory,
            privileged=privileged,
            read_only=read_only,
            terminal=terminal,
        ),
    )
    assert json.loads(json.dumps(spec)) == spec
    assert spec["process"]["args"] == args
    destinations = [mount["destination"] for mount in spec["mounts"]]
    assert len(destinations) == len(set(destinations))


def test_the_container_with_the_pods_id_is_its_sandbox() -> None:
    spec = build_spec("shop", options(pod="shop", network="ns-1"))
    assert spec["annotations"] == {
        "io.kubernetes.cri.container-type": "sandbox",
        "io.kubernetes.cri.sandbox-id": "shop",
    }
    assert spec["hostname"] == "shop"
    assert not any("path" in entry for entry in spec["linux"]["namespaces"])


def test_others_share_its_network_ipc_and_host_name() -> None:
    spec = build_spec("web", options(pod="shop", sandbox_pid=7, annotations={"a": "b"}))
    assert spec["annotations"]["io.kubernetes.cri.container-type"] == "container"
    assert spec["annotations"]["a"] == "b"
    assert spec["hostname"] == ""
    shared = {entry["type"]: entry["path"] for entry in spec["linux"]["namespaces"] if "path" in entry}
    assert shared == {"ipc": "/proc/7/ns/ipc", "network": "/proc/7/ns/net", "uts": "/proc/7/ns/uts"}
    for wrong in ({"hostname": "own"}, {"network": "host"}):
        with pytest.raises(SpecError, match="joins a pod"):
            build_spec("web", options(pod="shop", sandbox_pid=7, **wrong))
