"""Shaping: golden documents, rules of each annotation, and that arguments are left alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.oci.documents import host_spec
from uvmd.api.policy import Decision
from uvmd.errors import Failed, Refused
from uvmd.linux.accounts import Accounts, Group, User
from uvmd.linux.devices import DeviceNode
from uvmd.oci.shape import cgroup, devices, narrow, rlimits, shm, tee, users

ACCOUNTS = Accounts((User("root", 0, 0), User("bob", 7, 8)), (Group("root", 0), Group("staff", 50)))
NODES = (
    DeviceNode("/dev/null", "c", 1, 3, 0, 0),
    DeviceNode("/dev/sda", "b", 8, 0, 0, 6),
    DeviceNode("/dev/odd", "c", 0, 0, 0, 0),
)

Spec = dict[str, Any]
STEPS: dict[str, Callable[[Spec], Spec]] = {
    "rlimit": rlimits.apply_core_rlimit,
    "shm": shm.apply_shm_size,
    "privileged": lambda spec: devices.apply_privileged(spec, NODES),
    "user": lambda spec: {**spec, "process": users.apply_user_string(spec["process"], ACCOUNTS)},
    "cgroup": lambda spec: cgroup.apply_cgroup_path(spec, "/pods/c1"),
    "endless": cgroup.apply_endless_limits,
    "windows": cgroup.drop_windows,
    "tee": lambda spec: tee.apply_log_mount(spec, "/run/gcs/c/c1/logs"),
    "narrowed": lambda spec: {
        **spec,
        "process": narrow.apply_decision(
            spec["process"], Decision(True, env=["PATH=/bin"], capabilities={"bounding": ["CAP_KILL"]})
        ),
    },
}


@pytest.mark.parametrize("step", STEPS)
def test_each_step_gives_its_golden_document(
    step: str, golden: Callable[[str, str], None], valid: Callable[[Spec], None]
) -> None:
    before = host_spec()
    after = STEPS[step](before)
    assert before == host_spec(), "the argument was changed"
    golden(f"{step}.json", json.dumps(after, indent=1, sort_keys=True) + "\n")
    valid(cgroup.drop_windows(after))


def test_all_steps_together_give_a_valid_document(
    golden: Callable[[str, str], None], valid: Callable[[Spec], None]
) -> None:
    spec = host_spec()
    for step in STEPS.values():
        spec = step(spec)
    golden("all.json", json.dumps(spec, indent=1, sort_keys=True) + "\n")
    valid(spec)


@given(quota=st.none() | st.integers(-5, 5), pids=st.none() | st.integers(-5, 5), other=st.integers(-2, 2))
def test_of_limits_only_those_that_are_none_go(quota: int | None, pids: int | None, other: int) -> None:
    given_ = {"quota": quota, "shares": other}
    resources = {"cpu": given_, "pids": {"limit": pids}, "memory": {"limit": other}}
    rest, endless = cgroup.split_endless(resources)
    assert resources == {"cpu": given_, "pids": {"limit": pids}, "memory": {"limit": other}}
    assert rest["memory"] == {"limit": other}
    assert rest["cpu"]["shares"] == other
    assert ("quota" in rest["cpu"]) is (quota is None or quota >= 0) is ("cpu" not in endless)
    assert ("limit" in rest["pids"]) is (pids is None or pids >= 0) is ("pids" not in endless)
    assert cgroup.split_endless(rest) == (rest, {})


@pytest.mark.parametrize("step", ["rlimit", "shm", "tee"])
def test_without_the_annotation_nothing_changes(step: str) -> None:
    spec = host_spec()
    spec["annotations"] = {}
    assert STEPS[step](spec) is spec


@pytest.mark.parametrize("step", STEPS)
def test_a_step_never_changes_its_argument(step: str) -> None:
    spec = host_spec()
    frozen = copy.deepcopy(spec)
    STEPS[step](spec)
    STEPS[step](spec)
    assert spec == frozen


# Core rlimit


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_any_two_numbers_are_a_limit(soft: int, hard: int) -> None:
    spec = {**host_spec(), "annotations": {"io.microsoft.lcow.rlimitcore": f"{soft};{hard}"}}
    assert rlimits.apply_core_rlimit(spec)["process"]["rlimits"][-1] == {
        "type": "RLIMIT_CORE",
        "soft": soft,
        "hard": hard,
    }


@pytest.mark.parametrize(
    "value", ["1", "1;", ";1", "1;2;3", "a;b", "-1;1", "1;18446744073709551616", " 1;1", "1,1"]
)
def test_anything_else_is_no_limit(value: str) -> None:
    with pytest.raises(Refused, match="rlimitcore"):
        rlimits.apply_core_rlimit({**host_spec(), "annotations": {"io.microsoft.lcow.rlimitcore": value}})


# Shared memory


@pytest.mark.parametrize("value", ["", "0", "-1", "x", "1k", "18446744073709551616"])
def test_a_size_is_an_unsigned_number_above_zero(value: str) -> None:
    with pytest.raises(Refused, match="shm"):
        shm.apply_shm_size({**host_spec(), "annotations": {"io.microsoft.lcow.shm.size-kb": value}})


def test_every_mount_on_shared_memory_is_replaced() -> None:
    spec = host_spec()
    spec["mounts"] *= 2
    mounts = shm.apply_shm_size(spec)["mounts"]
    assert [mount["destination"] for mount in mounts] == ["/proc", "/proc", "/dev/shm"]
    assert mounts[-1]["options"][-1] == "size=4096k"


# Users


@pytest.mark.parametrize(
    ("text", "uid", "gid"),
    [
        ("bob", 7, 8), ("7", 7, 8), ("+7", 7, 8), ("9", 9, 0), ("bob:5", 7, 5), ("7:staff", 7, 50),
        ("9:staff", 9, 50), ("0:root", 0, 0), ("4294967295:4294967295", 2**32 - 1, 2**32 - 1),
    ],
)  # fmt: skip
def test_user_strings_name_ids(text: str, uid: int, gid: int) -> None:
    assert users.resolve_user(text, ACCOUNTS) == (uid, gid)


@pytest.mark.parametrize(
    "text",
    ["a:b:c", "eve", "bob:eve", "", ":", "bob:", ":5", "-1", "4294967296", "bob:-1", "99999999999999999999"],
)
def test_other_strings_are_refused(text: str) -> None:
    with pytest.raises(Failed):
        users.resolve_user(text, ACCOUNTS)


def test_two_lines_of_one_name_are_nobody_and_of_one_number_have_no_group() -> None:
    twice = Accounts((User("bob", 7, 8), User("bob", 9, 9), User("eve", 7, 1)), ())
    with pytest.raises(Failed, match="2 lines"):
        users.resolve_user("bob", twice)
    assert users.resolve_user("7", twice) == (7, 0)


def test_ids_of_the_image_s_files_must_be_ids_too() -> None:
    odd = Accounts((User("bob", -7, 8), User("eve", 1, 2**33)), (Group("g", -1),))
    for text in ("bob", "eve", "1", "1:g"):
        with pytest.raises(Failed):
            users.resolve_user(text, odd)


def test_numbers_need_no_files_and_names_do() -> None:
    nothing = Accounts(None, None)
    assert users.resolve_user("5:6", nothing) == (5, 6)
    for text in ("bob", "5:staff"):
        with pytest.raises(Failed):
            users.resolve_user(text, nothing)


names = st.text(st.characters(codec="utf-8"), max_size=6)
lines = st.lists(st.builds(User, names, st.integers(-5, 2**33), st.integers(-5, 2**33)), max_size=6)
groups = st.lists(st.builds(Group, names, st.integers(-5, 2**33)), max_size=6)


@given(names | st.integers(-5, 2**33).map(str), lines, groups)
def test_whatever_the_files_hold_an_id_comes_out_or_an_error(
    text: str, found: list[User], known: list[Group]
) -> None:
    try:
        uid, gid = users.resolve_user(text, Accounts(tuple(found), tuple(known)))
    except Failed:
        return
    assert 0 <= uid < 2**32
    assert 0 <= gid < 2**32


# Tee logs


@pytest.mark.parametrize(
    ("value", "path"),
    [("a", "a"), ("a/b.log", "a/b.log"), ("/a", "a"), ("a/../b", "b"), ("./a//b/", "a/b"), ("", "")],
)
def test_a_tee_path_lies_below_the_logs(value: str, path: str) -> None:
    assert tee.tee_log_path({"annotations": {"io.microsoft.container.lcow.tee-log-path": value}}) == path


@pytest.mark.parametrize("value", ["..", "../a", "a/../..", "a/../../b", ".", "/", "a/..", "/../x", "a\0b"])
def test_a_tee_path_that_leaves_the_logs_is_refused(value: str) -> None:
    with pytest.raises(Refused, match="tee-log-path"):
        tee.tee_log_path({"annotations": {"io.microsoft.container.lcow.tee-log-path": value}})


@given(st.text(max_size=40))
def test_no_text_leads_out_of_the_logs(value: str) -> None:
    try:
        path = tee.tee_log_path({"annotations": {"io.microsoft.container.lcow.tee-log-path": value}})
    except Refused:
        return
    assert ".." not in path.split("/")
    assert not path.startswith("/")


# Devices


def test_a_privileged_container_gets_every_device_and_one_rule() -> None:
    linux = devices.apply_privileged(host_spec(), NODES)["linux"]
    assert [device["path"] for device in linux["devices"]] == ["/dev/null", "/dev/sda"]
    assert "fileMode" not in linux["devices"][0]
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert linux["resources"]["memory"] == {"limit": 67108864}


def test_a_decision_that_narrows_nothing_leaves_the_process() -> None:
    process = host_spec()["process"]
    assert narrow.apply_decision(process, Decision(True)) == process
