"""What is looked up after a fragment came, or went, is what a policy's rules would search."""

from __future__ import annotations

import json
from typing import Any

import pytest
from policies import ID, ROOT, container, create, device, execute, overlay, policy, rule

from uvmd.api import Fragment
from uvmd_policy_rego.fragments import load_fragment
from uvmd_policy_rego.session import Session
from uvmd_policy_rego.store import Store

RULES = [{"env_rules": [rule("A=1")], "mounts": []}, {"env_rules": [], "mounts": []}]
INCLUDES = ["containers", "platform_rules", "fragments"]


def session(**lists: Any) -> Session:
    imports = [
        {"issuer": "did:x", "feed": feed, "minimum_svn": "1", "includes": INCLUDES}
        for feed in ("a", "b", "c")
    ]
    return Session(
        policy(container(layers=["p1", "p2"]), container(layers=["q"]), fragments=imports, **lists)
    )


def load(one: Session, feed: str, **lists: Any) -> None:
    text = 'package extra\nsvn := 1\nframework_version := "0.5.0"\n'
    text += "".join(f"{name} := {json.dumps(value)}\n" for name, value in lists.items())
    assert load_fragment(one, Fragment("did:x", feed, text)).allowed


def searched(one: Session) -> tuple[set[str], list[str]]:
    found = [
        one.documents.find(f"data.framework.{name}")[0] for name in ("layer_hashes", "candidate_containers")
    ]
    return set(found[0]), sorted(json.dumps(one, sort_keys=True) for one in found[1])


def looked_up(one: Session) -> tuple[set[str], list[str]]:
    one.documents.changes()  # brings the index up to date
    index = one.documents._index
    return set(index._hashes), sorted(json.dumps(one, sort_keys=True) for one in index._candidates)


@pytest.mark.parametrize("lists", [{}, {"platform_rules": RULES}], ids=["plain", "with platform rules"])
def test_the_index_has_what_the_rules_would_find(lists: dict[str, Any]) -> None:
    one = session(**lists)
    states = [one.documents.store.snapshot()]
    assert looked_up(one) == searched(one)
    load(one, "a", containers=[container(layers=["extra"]), container(layers=["p1", "p2"])])
    assert "extra" in looked_up(one)[0]
    assert looked_up(one) == searched(one)
    states.append(one.documents.store.snapshot())
    load(one, "b", platform_rules=RULES)
    assert looked_up(one) == searched(one)
    states.append(one.documents.store.snapshot())
    load(one, "c", containers=[container(layers=["last"]), {"layers": {"a": "odd"}}, {"layers": 5}])
    assert looked_up(one) == searched(one)
    for state in reversed(states):
        one.documents.store.restore(state)
        assert looked_up(one) == searched(one)
    assert "extra" not in looked_up(one)[0]


def test_a_policy_without_containers_gets_those_of_its_fragments() -> None:
    imports = [{"issuer": "did:x", "feed": "a", "minimum_svn": "1", "includes": INCLUDES}]
    one = Session(policy(fragments=imports, containers=[]))
    assert looked_up(one) == (set(), [])
    load(one, "a", containers=[container(layers=["extra"])])
    assert looked_up(one) == searched(one)
    assert looked_up(one)[0] == {"extra"}


def test_a_question_reads_no_metadata_whole_that_grow_with_the_containers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str] = []
    real = Store.document
    monkeypatch.setattr(Store, "document", lambda self, name: (read.append(name), real(self, name))[1])
    one = Session(policy(allow_unencrypted_scratch=True))
    scratch = f"{ROOT}/scratch/{ID}"
    asked: list[tuple[str, dict[str, Any]]] = [
        ("mount_device", device("base", 0)),
        ("mount_device", device("top", 1)),
        ("scratch_mount", {"target": scratch, "encrypted": False}),
        ("mount_overlay", overlay(1, 0)),
        ("create_container", create()),
        ("exec_in_container", execute()),
        ("signal_container_process", {"containerID": ID, "signal": 15, "isInitProcess": True, "argList": []}),
        ("shutdown_container", {"containerID": ID}),
        ("unmount_overlay", {"unmountTarget": f"{ROOT}/rootfs"}),
        ("scratch_unmount", {"unmountTarget": scratch}),
        ("unmount_device", {"unmountTarget": "/run/mounts/scsi/m1"}),
    ]
    for point, input in asked:
        assert one.enforce(point, input).allowed, point
    assert set(read) <= {"operatingsystem", "issuers"}


VENDORS = """default modify_resource := {"allowed": false}
modify_resource := {"allowed": true} if {
    input.resource_type == "example.com/Lamp"
    not data.metadata.lamps[input.settings.Led]
}
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", VENDORS),
        ("reason := data.framework.reason\n", 'reason := {"errors": data.framework.errors}\n'),
        (
            "get_properties := data.framework.get_properties\n",
            'get_properties := {"allowed": input.x == 1}\n',
        ),
    ],
    ids=["a vendor's rule", "an older tool's reason", "a point of its own"],
)
def test_rules_beside_what_is_declared_do_not_keep_it_from_the_index(old: str, new: str) -> None:
    text = policy(container(layers=["p1", "p2"]), container(layers=["q"]))
    one = Session(text.replace(old, new) if old else text + new)
    assert one.documents.static
    assert looked_up(one) == searched(one)
    assert one.enforce("mount_device", device("q", 0)).allowed
    assert not one.enforce("mount_device", device("r", 1)).allowed


@pytest.mark.parametrize(
    "more",
    [
        "more := [one | some one in containers; input.x]\n",
        "platform_rules := [input.rule]\n",
        "odd if { data.framework.mount_device with data.policy.lists as input.x }\n",
        "api_svn := input.x\n",
    ],
    ids=["a list by its name", "a list of the request's", "another document in its place", "a version"],
)
def test_rules_that_could_have_a_part_in_it_do(more: str) -> None:
    assert not Session(policy(more=more)).documents.static


def test_a_policy_that_looks_at_the_default_mounts_itself_sees_those_that_were_added() -> None:
    rule = 'get_properties := {"allowed": count(data.defaultMounts) == input.count}\n'
    alias = "get_properties := data.framework.get_properties\n"
    one = Session(policy().replace(alias, rule), default_mounts=[])
    assert one.documents.static
    assert one.enforce("get_properties", {"count": 0}).allowed
    one.documents.extend_default_mounts([{"destination": "/x"}])
    assert one.enforce("get_properties", {"count": 1}).allowed
    assert one.enforce("mount_device", device("base", 0)).allowed


# Containers as data of the engine

OLDER = {"framework": "0.2.3", "api": "0.10.0"}


def lives(one: Session, *layers: str) -> list[Any]:
    """A container's questions; what is remembered of its candidates after each."""
    found = []
    for number, layer in enumerate(layers):
        one.enforce("mount_device", device(layer, number))
    for point, asked in (
        ("mount_overlay", overlay(*reversed(range(len(layers))))),
        ("create_container", create()),
    ):
        assert one.enforce(point, asked).allowed
        found.append(one.documents.store.entry("matches", ID)[0])
    return found


@pytest.mark.parametrize(
    ("lists", "more"),
    [({}, ""), (OLDER, ""), ({"platform_rules": RULES}, ""), ({}, "unused := input.nothing\n")],
    ids=["as declared", "with defaults of an older framework", "with platform rules", "beside other rules"],
)
def test_a_place_stands_for_the_very_container_that_was_declared(lists: dict[str, Any], more: str) -> None:
    declared = container(layers=["a", "b"]), container(layers=["a", "b"], command=["other"])
    one = Session(policy(*declared, more=more, **lists))
    assert one.documents.static
    candidates = one.documents.find("data.framework.candidate_containers")[0]
    overlaid, created = lives(one, "a", "b")
    assert overlaid == candidates
    assert created == [each for each in candidates if each["command"] == create()["argList"]]
    matches = one.documents.find("data.framework.matches")
    one.documents.set_input({"containerID": ID})
    assert one.documents.find("data.framework.matches") == [created]
    assert matches != [overlaid]


def test_a_container_of_a_fragment_stands_for_itself_beside_one_with_a_place() -> None:
    one = session()
    load(one, "a", containers=[container(layers=["p1", "p2"], command=["late"])])
    overlaid, created = lives(one, "p1", "p2")
    assert [each["command"] for each in overlaid] == [create()["argList"], ["late"]]
    assert [each["command"] for each in created] == [create()["argList"]]
    one.documents.set_input({"containerID": ID})
    assert one.documents.find("data.framework.matches") == [created]


def test_layers_of_which_one_is_not_mounted_are_no_container_s() -> None:
    one = session()
    one.enforce("mount_device", device("q", 0))
    assert not one.enforce("mount_overlay", overlay(0, 5)).allowed
    assert one.enforce("mount_overlay", overlay(0)).allowed
    assert not one.enforce("mount_overlay", {**overlay(0), "layerPaths": "q"}).allowed


def test_containers_have_their_places_also_after_other_data_was_replaced() -> None:
    # Such a rule may look at the default mounts, so the engine's data are put in place anew.
    more = "reads := data.defaultMounts\n"
    declared = container(layers=["a", "b"]), container(layers=["a", "b"], command=["other"])
    one = Session(policy(*declared, more=more, platform_rules=RULES))
    assert one.documents.static
    candidates = one.documents.find("data.framework.candidate_containers")[0]
    one.documents.extend_default_mounts([{"destination": "/etc/hosts"}])
    overlaid, created = lives(one, "a", "b")
    assert overlaid == candidates
    one.documents.set_input({"containerID": ID})
    assert one.documents.find("data.framework.matches") == [created]
