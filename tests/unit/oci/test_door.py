"""Reading what a host sent: spelling, types, nulls, and what strict drops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.oci import schema
from unit.oci.documents import host_spec
from uvmd.errors import InvalidMessage, Refused
from uvmd.oci import annotations, fields, spec
from uvmd.oci.spec import (
    check_hostname,
    check_mount_namespace,
    has_hooks,
    owns_pid_namespace,
    read_process,
    read_spec,
)


def left_of(document: dict[str, Any], strict: bool) -> dict[str, Any]:
    """The host's document, in a strict VM without the rules for devices."""
    if strict:
        del document["linux"]["resources"]["devices"]
    return document


@pytest.mark.parametrize("strict", [False, True])
def test_a_host_s_document_passes_as_it_is(strict: bool) -> None:
    assert read_spec(host_spec(), strict=strict) == left_of(host_spec(), strict)


def test_strict_takes_no_devices_ids_or_interfaces_that_nobody_is_asked_about() -> None:
    document = host_spec()
    mapping = [{"containerID": 1000, "hostID": 0, "size": 1}]
    rules = [{"allow": True, "access": "rwm"}]
    document["linux"].update(uidMappings=mapping, gidMappings=mapping, netDevices={"eth0": {"name": "x"}})
    document["linux"]["Resources"] = {"cpu": {"shares": 2}, "DEVICES": rules}
    del document["linux"]["resources"]
    document["mounts"][0].update(uidMappings=mapping, GIDMappings=mapping)
    expected = host_spec()
    expected["linux"]["resources"] = {"cpu": {"shares": 2}}
    assert read_spec(document, strict=True) == expected
    kept = read_spec(document, strict=False)
    assert kept["linux"]["resources"]["devices"] == rules
    assert kept["linux"]["uidMappings"] == kept["mounts"][0]["gidMappings"] == mapping


@pytest.mark.parametrize(("score", "left"), [(-1000, 0), (-997, 0), (-1, 0), (0, 0), (1000, 1000)])
def test_no_process_of_a_host_outlives_the_policy_when_memory_is_short(score: int, left: int) -> None:
    document = host_spec()
    document["process"]["oomScoreAdj"] = score
    for strict, expected in ((True, left), (False, score)):
        assert read_spec(document, strict=strict)["process"]["oomScoreAdj"] == expected
        assert read_process(document["process"], strict=strict)["oomScoreAdj"] == expected
    assert "oomScoreAdj" not in read_process({}, strict=True)


def swapped(value: Any) -> Any:
    """Every key of an object in another case, but for those that are data."""
    if isinstance(value, list):
        return [swapped(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key.swapcase(): item if key in ("annotations", "sysctl", "unified") else swapped(item)
        for key, item in value.items()
    }


@pytest.mark.parametrize("strict", [False, True])
def test_keys_match_in_any_case_at_every_level(strict: bool) -> None:
    assert read_spec(swapped(host_spec()), strict=strict) == left_of(host_spec(), strict)


def test_letters_that_fold_to_ascii_are_folded() -> None:
    kelvin, long_s = "\u212a", "\u017f"
    read = fields.read_object({f"net{long_s}": 1, f"hoo{kelvin}s": {}}, fields.SPEC, what="x", strict=False)
    assert read == {f"net{long_s}": 1, "hooks": {}}


def test_of_two_spellings_the_last_counts_and_strict_refuses_both() -> None:
    document = {**host_spec(), "Hostname": "other"}
    assert read_spec(document, strict=False)["hostname"] == "other"
    assert read_spec({**document, "HOSTNAME": None}, strict=False)["hostname"] == "other"
    for twice in (document, {**host_spec(), "Hostname": None}):
        with pytest.raises(InvalidMessage, match="hostname twice"):
            read_spec(twice, strict=True)


def test_null_is_absent_and_in_lists_the_zero_value() -> None:
    document = host_spec()
    document["hostname"] = None
    document["process"]["env"] = [None, "A=1"]
    document["process"]["user"] = None
    document["linux"]["namespaces"] = [None]
    document["annotations"]["x"] = None
    read = read_spec(document, strict=False)
    assert "hostname" not in read
    assert read["process"]["env"] == ["", "A=1"]
    assert read["process"]["user"] == {}
    assert read["linux"]["namespaces"] == [{}]
    assert read["annotations"]["x"] == ""


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ociVersion", 1), ("hostname", ["x"]), ("process.args", "ls"), ("process.args", [1]),
        ("process.terminal", 1), ("process.user.uid", -1), ("process.user.uid", 2**32),
        ("process.user.uid", 1.0), ("process.user.uid", True), ("process.user.uid", "0"),
        ("process.rlimits", {}),
        ("process.capabilities", []), ("process.capabilities.bounding", {}), ("root.readonly", "yes"),
        ("mounts", {}), ("annotations.a", 1), ("linux.resources", []), ("linux.namespaces", "x"),
        ("linux.devices", [[]]), ("linux.seccomp", True), ("linux.resources.memory.limit", 2**63),
    ],
)  # fmt: skip
def test_a_wrong_type_is_named_and_its_value_is_not(path: str, value: Any) -> None:
    document = host_spec()
    *parents, last = path.split(".")
    inner = document
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    with pytest.raises(InvalidMessage) as caught:
        read_spec(document, strict=False)
    dotted = path.replace("annotations.a", "annotations[*]")
    assert str(caught.value).startswith(f"ContainerConfig.OciSpecification.{dotted}")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
known = st.sampled_from(["process", "root", "linux", "mounts", "annotations", "hooks", "Process", "LINUX"])


@given(st.dictionaries(known | st.text(max_size=5), json_values, max_size=6), st.booleans())
def test_any_json_is_read_or_refused(document: dict[str, Any], strict: bool) -> None:
    try:
        read = read_spec(document, strict=strict)
    except InvalidMessage:
        return
    assert read["root"]["path"]
    assert isinstance(read["process"]["user"], dict)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=6))
def test_any_process_is_read_or_refused(document: dict[str, Any]) -> None:
    try:
        assert isinstance(read_process(document, strict=True)["user"], dict)
    except InvalidMessage:
        pass


def test_strict_keeps_known_fields_only() -> None:
    document = host_spec()
    document["freebsd"] = {}
    document["process"]["surprise"] = 1
    document["linux"]["resources"]["memory"]["surprise"] = 1
    document["annotations"]["run.oci.handler"] = "wasm"
    document["annotations"]["org.systemd.property.X"] = "1"
    document["annotations"]["module.wasm.image/variant"] = "compat"
    document["annotations"]["krun.ram_mib"] = "1"
    document["annotations"]["org.criu.config"] = "/etc/criu.conf"
    document["annotations"]["runs.fine"] = "1"
    expected = left_of(host_spec(), True)
    expected["annotations"]["runs.fine"] = "1"
    assert read_spec(document, strict=True) == expected
    assert read_spec(document, strict=False) == document


def test_the_table_knows_every_field_of_the_schema(request: pytest.FixtureRequest) -> None:
    """Our table is newer than some schemas and may know more, never less."""
    schema.check_against_schema(request)  # says so if the schema is not at hand
    missing = [
        f"{path}.{key}"
        for name, fields_, path in (
            ("config-schema.json", fields.SPEC, "spec"),
            ("config-linux.json", fields.SPEC._readers["linux"], "linux"),
        )
        for key in _properties(schema.FOLDER / name, path)
        if key not in fields_._readers and key not in ("solaris", "vm", "zos", "freebsd")
    ]
    assert missing == []


def _properties(path: Path, top: str) -> list[str]:
    if not path.exists():
        return []
    document = json.loads(path.read_text())
    return list(document["linux"]["properties"] if top == "linux" else document["properties"])


# Questions about a specification


@pytest.mark.parametrize(
    "namespaces",
    [None, [], [{"type": "pid"}], [{}], [{"type": "mount", "path": "/proc/1/ns/mnt"}],
     [{"type": "mount"}, {"type": "mount", "path": "/proc/1/ns/mnt"}]],
)  # fmt: skip
def test_a_container_without_a_mount_namespace_of_its_own_is_refused(namespaces: Any) -> None:
    linux = {} if namespaces is None else {"namespaces": namespaces}
    with pytest.raises(Refused, match="mount namespace of its own"):
        check_mount_namespace({"linux": linux})
    check_mount_namespace({"linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]}})


@pytest.mark.parametrize(
    ("namespaces", "owns"),
    [(None, False), ([], False), ([{"type": "pid"}], True), ([{"type": "pid", "path": ""}], True),
     ([{"type": "pid", "path": "/proc/1/ns/pid"}], False), ([{"type": "mount"}], False)],
)  # fmt: skip
def test_a_pid_namespace_is_owned_when_it_has_no_path(namespaces: Any, owns: bool) -> None:
    linux = {} if namespaces is None else {"namespaces": namespaces}
    assert owns_pid_namespace({"linux": linux}) is owns


def test_hooks_count_even_if_empty() -> None:
    assert has_hooks({"hooks": {}})
    assert not has_hooks({})


@pytest.mark.parametrize("name", ["", "box", "a.b-c_d", "x" * 255])
def test_ordinary_host_names_pass(name: str) -> None:
    check_hostname({"hostname": name})


@pytest.mark.parametrize("name", ["a b", "a\n", "ä", "x" * 256, "a/b", "a\0"])
def test_other_host_names_are_refused(name: str) -> None:
    with pytest.raises(Refused):
        check_hostname({"hostname": name})


def test_a_process_must_be_an_object() -> None:
    with pytest.raises(InvalidMessage, match=spec.PROCESS_FIELD):
        read_process([], strict=False)


# Annotations


@pytest.mark.parametrize(
    ("text", "value"),
    [(t, True) for t in ("1", "t", "T", "TRUE", "true", "True")]
    + [(f, False) for f in ("0", "f", "F", "FALSE", "false", "False")],
)
def test_flags_follow_go(text: str, value: bool) -> None:
    assert annotations.read_flag({"x": text}, "x", not value) is value


@pytest.mark.parametrize("text", ["", "yes", "tRUE", " true", "2"])
def test_a_flag_that_is_none_is_logged_and_the_default(text: str, caplog: pytest.LogCaptureFixture) -> None:
    assert annotations.read_flag({"x": text}, "x", True) is True
    assert "ignoring" in caplog.text
    assert annotations.read_flag({}, "x") is False


@given(st.integers(0, 2**64 - 1))
def test_unsigned_numbers_are_read(number: int) -> None:
    assert annotations.parse_u64(str(number)) == number


@given(st.text(max_size=25))
def test_other_texts_are_no_number(text: str) -> None:
    found = annotations.parse_u64(text)
    assert found is None or (text.isascii() and text.isdigit() and int(text) == found)
