"""What plugins may add to a container, and what they may not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.oci.documents import host_spec
from uvmd.api.containers import Additions
from uvmd.errors import Failed, Refused
from uvmd.oci.shape.additions import apply_additions

DEVICE = {"path": "/dev/lamp", "type": "c", "major": 240, "minor": 7}


def test_additions_of_several_are_all_there() -> None:
    spec, devices = apply_additions(
        host_spec(),
        [
            ("a", Additions(mounts=({"Destination": "/a", "source": "/x", "type": "bind"},), groups=(10, 5))),
            ("b", Additions(devices=({**DEVICE, "access": "r"},), environment={"TERM": "dumb", "B": "1"})),
            ("c", Additions()),
        ],
    )
    assert spec["mounts"][-1] == {"destination": "/a", "source": "/x", "type": "bind"}
    assert devices == [DEVICE]
    assert spec["linux"]["devices"][-1] == DEVICE
    assert spec["linux"]["resources"]["devices"][-1]["access"] == "r"
    assert spec["process"]["env"] == ["PATH=/bin", "TERM=dumb", "B=1"]
    assert spec["process"]["user"]["additionalGids"] == [10, 5]


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        (
            Additions(mounts=({"destination": "/a"},)),
            Additions(mounts=({"destination": "/a"},)),
            "mount at /a",
        ),
        (Additions(devices=(DEVICE,)), Additions(devices=(DEVICE,)), "device /dev/lamp"),
        (Additions(environment={"A": "1"}), Additions(environment={"A": "1"}), "variable A"),
        (Additions(mounts=({"destination": "/a"}, {"destination": "/a"})), Additions(), "mount at /a"),
        (Additions(mounts=({"destination": "/proc"},)), Additions(), "/proc, and so does the host"),
        (
            Additions(devices=({**DEVICE, "path": "/dev/null"},)),
            Additions(),
            "/dev/null, and so does the host",
        ),
    ],
)
def test_two_that_want_the_same_refuse_the_container(first: Additions, second: Additions, what: str) -> None:
    with pytest.raises(Refused, match=what):
        apply_additions(host_spec(), [("one", first), ("two", second)])


@pytest.mark.parametrize(
    "added",
    [
        None,
        {"mounts": []},
        Additions(mounts=({"destination": "relative"},)),
        Additions(mounts=({"destination": "/a/../b"},)),
        Additions(mounts=({"source": "/a"},)),
        Additions(mounts=({"destination": "/a", "options": "ro"},)),
        Additions(mounts=("/a",)),  # type: ignore[arg-type]
        Additions(devices=({**DEVICE, "path": "lamp"},)),
        Additions(devices=({**DEVICE, "type": "x"},)),
        Additions(devices=({**DEVICE, "major": "1"},)),
        Additions(devices=({**DEVICE, "access": "rwx"},)),
        Additions(devices=({**DEVICE, "access": ""},)),
        Additions(environment={"A=B": "1"}),
        Additions(environment={"": "1"}),
        Additions(environment={"A": "1\0"}),
        Additions(environment={"A": 1}),  # type: ignore[dict-item]
        Additions(groups=(-1,)),
        Additions(groups=(True,)),
    ],
)
def test_what_is_no_addition_names_the_shaper(added: Any) -> None:
    with pytest.raises(Failed, match="lamp"):
        apply_additions(host_spec(), [("lamp", added)])


texts = st.text(st.characters(codec="utf-8"), max_size=6)
mounts = st.fixed_dictionaries({"destination": texts | st.just("/a")}, optional={"options": st.lists(texts)})
devices_ = st.fixed_dictionaries(
    {"path": texts | st.just("/dev/a"), "type": st.sampled_from("bcupx")},
    optional={"major": st.integers(), "access": texts},
)
additions_ = st.builds(
    Additions,
    st.lists(mounts, max_size=2),
    st.lists(devices_, max_size=2),
    st.dictionaries(texts, texts, max_size=2),
    st.lists(st.integers(), max_size=2),
)


@given(st.lists(st.tuples(texts, additions_), max_size=3))
def test_whatever_plugins_return_is_added_once_or_refused(found: list[tuple[str, Additions]]) -> None:
    before = host_spec()
    try:
        after, _ = apply_additions(before, found)
    except (Refused, Failed):
        assert before == host_spec()
        return
    assert before == host_spec(), "the argument was changed"
    for part in ("mounts",):
        destinations = [mount.get("destination") for mount in after[part]]
        assert len(set(destinations)) == len(destinations)
    names = [text.partition("=")[0] for text in after["process"]["env"]]
    assert len(set(names)) == len(names)
    assert copy.deepcopy(after) == after
