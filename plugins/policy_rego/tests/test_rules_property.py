"""A policy never allows what its own description does not contain.

Policies and requests are drawn from few words, so that they often nearly fit. What is
allowed is held against a reading of the description that shares nothing with the rules.
"""

from __future__ import annotations

from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st
from policies import ID, SETS, container, create, device, execute, overlay, policy, rule

from uvmd_policy_rego.session import Session

WORDS, LAYERS, DIRECTORIES = ("a", "b", "a b"), ("l0", "l1"), ("/", "/srv")
ENVS = ("A=1", "A=2", "B=1")
CAPS = ("CAP_A", "CAP_B")
MOUNTS = [
    {"destination": destination, "source": source, "type": "bind", "options": options}
    for destination in ("/d", "/e")
    for source in ("/s", "/t")
    for options in (["ro"], ["ro", "bind"])
]
words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=2)
capabilities = st.fixed_dictionaries(
    {name: st.lists(st.sampled_from(CAPS), unique=True, max_size=2) for name in SETS[:1]}
).map(lambda drawn: {name: drawn["bounding"] for name in SETS})
containers = st.fixed_dictionaries(
    {
        "command": words,
        "env_rules": st.lists(st.builds(rule, st.sampled_from(ENVS), required=st.booleans()), max_size=2),
        "layers": st.lists(st.sampled_from(LAYERS), min_size=1, max_size=2),
        "mounts": st.lists(st.sampled_from(MOUNTS), max_size=2),
        "working_dir": st.sampled_from(DIRECTORIES),
        "capabilities": capabilities,
        "no_new_privileges": st.booleans(),
        "allow_elevated": st.booleans(),
        "signals": st.lists(st.sampled_from([9, 15]), max_size=2),
        "exec_processes": st.lists(
            st.fixed_dictionaries(
                {"command": words, "signals": st.lists(st.sampled_from([9, 15]), max_size=1)}
            ),
            max_size=2,
        ),
        "user": st.sampled_from(["0", "1"]).map(
            lambda uid: {
                "user_idname": {"pattern": uid, "strategy": "id"},
                "group_idnames": [{"pattern": "", "strategy": "any"}],
                "umask": "0022",
            }
        ),
    }
).map(lambda drawn: container(**drawn))
#: What a request changes of the description that it was made from.
changes = st.fixed_dictionaries(
    {},
    optional={
        "argList": words,
        "envList": st.lists(st.sampled_from(ENVS), max_size=2),
        "workingDir": st.sampled_from(DIRECTORIES),
        "mounts": st.lists(st.sampled_from(MOUNTS), max_size=2),
        "capabilities": capabilities,
        "noNewPrivileges": st.booleans(),
        "privileged": st.booleans(),
        "user": st.sampled_from([{"id": "0", "name": ""}, {"id": "1", "name": ""}]),
        "devices": st.just([{"path": "/dev/x"}]),
    },
)


def asked_of(one: dict[str, Any]) -> dict[str, Any]:
    """The request that fits a description."""
    return create(
        argList=one["command"],
        envList=[found["pattern"] for found in one["env_rules"]],
        workingDir=one["working_dir"],
        mounts=one["mounts"],
        capabilities=one["capabilities"],
        noNewPrivileges=one["no_new_privileges"],
        user={"id": one["user"]["user_idname"]["pattern"], "name": ""},
        groups=[],
    )


# The other reading


def fits(one: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether a description contains a request."""
    return (
        one["command"] == asked["argList"]
        and one["working_dir"] == asked["workingDir"]
        and may_be(one, asked)
        and (not asked["privileged"] or one["allow_elevated"])
        and asked["devices"] == []
        and all(mount in one["mounts"] for mount in asked["mounts"])
    )


def may_be(one: dict[str, Any], asked: dict[str, Any]) -> bool:
    known = {found["pattern"] for found in one["env_rules"]}
    needed = {found["pattern"] for found in one["env_rules"] if found["required"]}
    return (
        needed <= set(asked["envList"]) <= known
        and (asked["noNewPrivileges"] or not one["no_new_privileges"])
        and asked["user"]["id"] == one["user"]["user_idname"]["pattern"]
        and all(sorted(asked["capabilities"][name]) == sorted(one["capabilities"][name]) for name in SETS)
    )


def started(text: str, mounted: list[str]) -> Session:
    session = Session(text)
    for number, layer in enumerate(LAYERS):
        session.enforce("mount_device", device(layer, number))
    session.enforce("mount_overlay", overlay(*(LAYERS.index(layer) for layer in mounted)))
    return session


@settings(deadline=None, max_examples=60)
@given(
    described=st.lists(containers, min_size=1, max_size=2),
    which=st.integers(0, 1),
    order=st.none() | st.none() | st.permutations(LAYERS),
    change=changes,
    process=words,
    signal=st.sampled_from([1, 9, 15]),
)
def test_what_is_allowed_is_described(
    described: list[dict[str, Any]],
    which: int,
    order: list[str] | None,
    change: dict[str, Any],
    process: list[str],
    signal: int,
) -> None:
    one = described[which % len(described)]
    layers = list(reversed(one["layers"])) if order is None else list(order)
    session = started(policy(*described), layers)
    asked = asked_of(one) | change
    # Topmost first in a request, base first in a description.
    possible = [each for each in described if each["layers"] == list(reversed(layers))]
    allowed = session.enforce("create_container", asked).allowed
    event(f"created: {allowed}")
    if not allowed:
        # And what fits exactly one of them, all of which agree on streams, is not refused.
        assert not any(fits(each, asked) for each in possible)
        return
    left = [each for each in possible if fits(each, asked)]
    assert left
    run = execute(
        argList=process,
        envList=asked["envList"],
        workingDir=asked["workingDir"],
        capabilities=asked["capabilities"],
        noNewPrivileges=asked["noNewPrivileges"],
        user=asked["user"],
        groups=[],
    )
    if session.enforce("exec_in_container", run).allowed:
        event("executed")
        left = [each for each in left if any(p["command"] == process for p in each["exec_processes"])]
        assert left
    init = {"containerID": ID, "signal": signal, "isInitProcess": True, "argList": None}
    if session.enforce("signal_container_process", init).allowed:
        event("signalled")
        assert any(signal in each["signals"] for each in left)
    other = {**init, "isInitProcess": False, "argList": process}
    if session.enforce("signal_container_process", other).allowed:
        assert any(
            p["command"] == process and signal in p["signals"]
            for each in left
            for p in each["exec_processes"]
        )


@settings(deadline=None, max_examples=25)
@given(
    targets=st.lists(st.sampled_from(["m0", "m1"]), max_size=5),
    hashes=st.lists(st.sampled_from([*LAYERS, "x"]), min_size=5),
)
def test_only_layers_are_mounted_and_each_path_holds_one(targets: list[str], hashes: list[str]) -> None:
    session, held = Session(policy(container(layers=["l0", "l1"]))), set[str]()
    for target, hash in zip(targets, hashes, strict=False):
        asked = {**device(hash, 0), "target": f"/run/mounts/scsi/{target}"}
        allowed = session.enforce("mount_device", asked).allowed
        assert allowed is (hash in LAYERS and target not in held)
        held |= {target} if allowed else set()
