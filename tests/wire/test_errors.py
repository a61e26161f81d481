"""Every error row of the specification whose cause this daemon can have.

Rows of the form (row id, message, body, expected code). Bodies that name no container use
one that does not exist. Texts are ours; what is checked of them is that they name the
field or the id and never quote a value of the body.
"""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from typing import Any

import pytest

from support.daemon import Daemon, running
from support.host import (
    CREATE,
    DELETE,
    DUMP_STACKS,
    EXECUTE,
    GET_PROPERTIES,
    MODIFY,
    NULL_ID,
    RESIZE,
    SHUTDOWN_FORCED,
    SHUTDOWN_GRACEFUL,
    SIGNAL,
    START,
    WAIT,
    ZERO_GUID,
    Connection,
    code,
)
from support.matrix import row

UNKNOWN = "0123456789abcdef" * 4
ALL_BUT_DUMP = (
    CREATE,
    START,
    SHUTDOWN_GRACEFUL,
    SHUTDOWN_FORCED,
    EXECUTE,
    WAIT,
    SIGNAL,
    RESIZE,
    GET_PROPERTIES,
    MODIFY,
    DELETE,
)


def body(container_id: str = UNKNOWN, **fields: Any) -> dict[str, Any]:
    return {"ContainerId": container_id, "ActivityId": ZERO_GUID, **fields}


def modify(
    resource: str | None, request: str | None = None, target: str = NULL_ID, **inner: Any
) -> dict[str, Any]:
    asked = dict(inner)
    if resource is not None:
        asked["ResourceType"] = resource
    if request is not None:
        asked["RequestType"] = request
    return body(target, Request=asked)


def config(**fields: Any) -> str:
    return json.dumps({"SchemaVersion": {"Major": 2, "Minor": 1}, **fields})


def parameters(text: Any) -> dict[str, Any]:
    return {"Settings": {"ProcessParameters": text}}


# -- bodies


@row("any.bad-json", "any.trailing-garbage")
@pytest.mark.parametrize("message", ALL_BUT_DUMP, ids=hex)
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b'{"ContainerId":"a"',
        b'{"ContainerId":"a"} x',
        b"[]",
        b"7",
        b'"text"',
        b"\xff\xfe",
        b"{'a':1}",
    ],
    ids=repr,
)
def test_a_body_that_is_no_object_answers_invalid_json(steady: Connection, message: int, text: bytes) -> None:
    answer = steady.ask(message, text)
    assert code(answer) == "INVALID_JSON"
    assert answer["ErrorMessage"]
    assert "ActivityId" not in answer
    record = answer["ErrorRecords"]
    assert len(record) == 1
    assert record[0]["Result"] == answer["Result"]
    assert record[0]["Message"] == answer["ErrorMessage"]
    assert record[0]["ModuleName"] == "gcs"
    assert isinstance(record[0]["FileName"], str)
    assert 0 <= record[0]["Line"] <= 4294967295


@row("any.wrong-type")
@pytest.mark.parametrize("message", ALL_BUT_DUMP, ids=hex)
@pytest.mark.parametrize("value", [5, True, [], {}, 1.5], ids=repr)
def test_a_container_id_of_another_type_answers_invalid_json(
    steady: Connection, message: int, value: Any
) -> None:
    answer = steady.ask(message, {"ContainerId": value, "ActivityId": ZERO_GUID})
    assert code(answer) == "INVALID_JSON"
    assert "ContainerId" in answer["ErrorMessage"]


@row("any.too-deep")
@pytest.mark.parametrize("message", [START, CREATE, MODIFY], ids=hex)
def test_nesting_and_digits_without_end_are_refused(steady: Connection, message: int) -> None:
    deep = b'{"ContainerId":"c","Extra":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    digits = b'{"ContainerId":"c","Extra":' + b"9" * 100_000 + b"}"
    for text in (deep, digits, b'{"ContainerId":"c","Extra":NaN}'):
        assert code(steady.ask(message, text)) == "INVALID_JSON"


SECRET = "s3cr3t-value"


@row(
    "any.no-secrets",
    "create.config-undecodable",
    "execute.no-parameters",
    "execute.parameters-undecodable",
    "modify.request-missing",
    "wait.negative-pid",
)
@pytest.mark.parametrize(
    ("message", "fields", "field"),
    [
        (WAIT, {"ProcessId": SECRET, "TimeoutInMs": 0}, "ProcessId"),
        (WAIT, {"ProcessId": -1, "TimeoutInMs": 0}, "ProcessId"),
        (WAIT, {"ProcessId": 1.5}, "ProcessId"),
        (WAIT, {"ProcessId": 2**32}, "ProcessId"),
        (WAIT, {"ProcessId": True}, "ProcessId"),
        (WAIT, {"ProcessId": 1, "TimeoutInMs": "x"}, "TimeoutInMs"),
        (SIGNAL, {"ProcessId": []}, "ProcessId"),
        (SIGNAL, {"ProcessId": 1, "Options": SECRET}, "Options"),
        (SIGNAL, {"ProcessId": 1, "Options": {"Signal": "9"}}, "Signal"),
        (SIGNAL, {"ProcessId": 1, "Options": {"Signal": 2**31}}, "Signal"),
        (RESIZE, {"ProcessId": 1, "Height": 65536, "Width": 1}, "Height"),
        (RESIZE, {"ProcessId": 1, "Height": 1, "Width": -1}, "Width"),
        (GET_PROPERTIES, {"Query": {}}, "Query"),
        (GET_PROPERTIES, {"Query": "{"}, "Query"),
        (GET_PROPERTIES, {"Query": '{"PropertyTypes":"Statistics"}'}, "PropertyTypes"),
        (GET_PROPERTIES, {"Query": '{"PropertyTypes":[5]}'}, "PropertyTypes"),
        (CREATE, {"ContainerConfig": ""}, "ContainerConfig"),
        (CREATE, {"ContainerConfig": SECRET}, "ContainerConfig"),
        (CREATE, {"ContainerConfig": {"a": SECRET}}, "ContainerConfig"),
        (CREATE, {"ContainerConfig": config(OciBundlePath=5)}, "OciBundlePath"),
        (CREATE, {"ContainerConfig": config(OciSpecification=SECRET)}, "OciSpecification"),
        (CREATE, {"ContainerConfig": config(ScratchDirPath=[])}, "ScratchDirPath"),
        (CREATE, {"ContainerConfig": json.dumps({"SchemaVersion": SECRET})}, "SchemaVersion"),
        (EXECUTE, {}, "ProcessParameters"),
        (EXECUTE, {"Settings": SECRET}, "Settings"),
        (EXECUTE, parameters(""), "ProcessParameters"),
        (EXECUTE, parameters(SECRET), "ProcessParameters"),
        (EXECUTE, parameters({}), "ProcessParameters"),
        (EXECUTE, parameters(json.dumps({"CommandArgs": SECRET})), "CommandArgs"),
        (EXECUTE, parameters(json.dumps({"Environment": {"A": 5}})), "Environment"),
        (EXECUTE, parameters(json.dumps({"CreateStdInPipe": "yes"})), "CreateStdInPipe"),
        (MODIFY, {}, "Request"),
        (MODIFY, {"Request": None}, "Request"),
        (MODIFY, {"Request": SECRET}, "Request"),
        (MODIFY, {"Request": {"RequestType": 5}}, "RequestType"),
        (MODIFY, {"Request": {"ResourceType": 5}}, "ResourceType"),
    ],
)
def test_a_field_of_the_wrong_type_is_named_and_not_quoted(
    steady: Connection, steady_daemon: Daemon, message: int, fields: dict[str, Any], field: str
) -> None:
    answer = steady.ask(message, body(**fields))
    assert code(answer) == "INVALID_JSON"
    assert field in answer["ErrorMessage"]
    assert SECRET not in json.dumps(answer)
    assert SECRET not in steady_daemon.log_text()


def case(message: int, fields: dict[str, Any], expected: str, *marks: pytest.MarkDecorator) -> Any:
    return pytest.param(message, fields, expected, marks=marks)


def old_schema(major: int, minor: int) -> dict[str, Any]:
    return body(ContainerConfig=json.dumps({"SchemaVersion": {"Major": major, "Minor": minor}}))


# -- the table of Appendix B and of section 5.3


@pytest.mark.parametrize(
    ("message", "fields", "expected"),
    [
        case(START, body(), "S_OK", row("start.unknown-container")),
        case(CREATE, old_schema(1, 0), "INVALID_JSON", row("create.schema-version")),
        case(CREATE, old_schema(2, 0), "INVALID_JSON"),
        case(CREATE, body(ContainerConfig="{}"), "INVALID_JSON"),
        case(SHUTDOWN_FORCED, body(), "SYSTEM_NOT_FOUND", row("shutdown.unknown-container")),
        case(SHUTDOWN_GRACEFUL, body(), "SYSTEM_NOT_FOUND"),
        case(WAIT, body(ProcessId=1), "SYSTEM_NOT_FOUND", row("wait.unknown-container")),
        case(WAIT, body(NULL_ID, ProcessId=4000000), "NOT_FOUND", row("wait.unknown-external")),
        case(SIGNAL, body(ProcessId=1), "SYSTEM_NOT_FOUND", row("signal.unknown-container")),
        case(
            RESIZE, body(ProcessId=1, Height=1, Width=1), "SYSTEM_NOT_FOUND", row("resize.unknown-container")
        ),
        case(SIGNAL, body(NULL_ID, ProcessId=1), "SYSTEM_NOT_FOUND", row("signal.null-id")),
        case(RESIZE, body(NULL_ID, ProcessId=1, Height=1), "SYSTEM_NOT_FOUND", row("resize.null-id")),
        case(GET_PROPERTIES, body(NULL_ID), "E_FAIL", row("properties.null-id")),
        case(GET_PROPERTIES, body(NULL_ID, Query="{"), "INVALID_JSON", row("properties.query-first")),
        case(GET_PROPERTIES, body(), "SYSTEM_NOT_FOUND", row("properties.unknown-container")),
        case(MODIFY, modify("Foo"), "E_FAIL", row("modify.unknown-type")),
        case(MODIFY, modify(None), "E_FAIL"),
        case(MODIFY, modify("network"), "E_FAIL"),
        case(MODIFY, modify("Foo", target=UNKNOWN), "E_FAIL"),
        case(MODIFY, modify("PodCgroupMemoryLimit"), "E_FAIL", row("modify.pod-limit-request-type")),
        case(MODIFY, modify("PodCgroupMemoryLimit", "Remove"), "E_FAIL"),
        case(MODIFY, modify("PodCgroupMemoryLimit", "Update"), "S_OK"),
        case(
            MODIFY,
            modify("ContainerConstraints", "Update", Settings={}),
            "SYSTEM_NOT_FOUND",
            row("modify.constraints-null-id"),
        ),
        case(
            MODIFY,
            modify("ContainerConstraints", "Update", UNKNOWN, Settings={}),
            "SYSTEM_NOT_FOUND",
            row("modify.unknown-container"),
        ),
        case(
            MODIFY,
            modify("ContainerConstraints", "Update", UNKNOWN),
            "INVALID_JSON",
            row("modify.settings-missing"),
        ),
        case(MODIFY, modify("ContainerConstraints", "Update", UNKNOWN, Settings=None), "INVALID_JSON"),
        case(MODIFY, modify("ContainerConstraints", "Update", UNKNOWN, Settings=[]), "INVALID_JSON"),
        case(MODIFY, modify("PodCgroupMemoryLimit", "Update", UNKNOWN), "SYSTEM_NOT_FOUND"),
        case(MODIFY, modify("SecurityPolicy", "Add"), "INVALID_JSON"),
        case(DELETE, body(), "SYSTEM_NOT_FOUND", row("delete.unknown-container")),
        case(EXECUTE, body(**parameters("{}")), "SYSTEM_NOT_FOUND", row("execute.unknown-container")),
        case(EXECUTE, body(**parameters('{"OciProcess":{"args":["a"]}}')), "SYSTEM_NOT_FOUND"),
        case(EXECUTE, body(NULL_ID, **parameters("{}")), "E_FAIL", row("execute.no-command")),
        case(EXECUTE, body(NULL_ID, **parameters('{"CommandLine":"  "}')), "E_FAIL"),
        case(EXECUTE, body(NULL_ID, **parameters('{"CommandLine":"a \\"b"}')), "E_FAIL"),
        case(
            EXECUTE,
            body(NULL_ID, **parameters('{"CommandArgs":["no-such-program-here"]}')),
            "E_FAIL",
            row("execute.program-not-found"),
        ),
        case(
            EXECUTE,
            body(NULL_ID, **parameters('{"CommandArgs":["true"],"WorkingDirectory":"/no/such"}')),
            "E_FAIL",
        ),
        case(DUMP_STACKS, body(), "S_OK"),
    ],
)
def test_the_codes_of_the_table(
    steady: Connection, message: int, fields: dict[str, Any], expected: str
) -> None:
    answer = steady.ask(message, fields)
    assert code(answer) == expected, answer.get("ErrorMessage")
    assert answer["ActivityId"] == ZERO_GUID
    if expected != "S_OK":
        assert set(answer) == {"Result", "ActivityId", "ErrorMessage", "ErrorRecords"}


#: Resource types of the reference by the plugin that brings them.
BROUGHT_BY = {
    "SCSIDevice": "storage_scsi",
    "MappedVirtualDisk": "storage_scsi",
    "VPMemDevice": "storage_pmem",
    "CombinedLayers": "storage_overlay",
    "MappedDirectory": "plan9",
    "Network": "network",
    "VPCIDevice": "vpci",
}


@pytest.mark.parametrize("resource", BROUGHT_BY)
def test_a_resource_type_is_unknown_without_its_plugin(resource: str) -> None:
    installed = {entry.name for entry in entry_points(group="uvmd.plugins.v1")}
    options = {"plugins-deny": BROUGHT_BY[resource]} if BROUGHT_BY[resource] in installed else {}
    with running(options=options) as daemon:
        bridge = daemon.connect()
        answer = bridge.ask(MODIFY, modify(resource, "Add", Settings={}))
        assert code(answer) == "E_FAIL"
        assert resource in answer["ErrorMessage"]
        bridge.close()


@row("dumpstacks.any-body")
@pytest.mark.parametrize("text", [b"", b"{", b"\0\0", b"[]"], ids=repr)
def test_dump_stacks_takes_any_body(steady: Connection, text: bytes) -> None:
    answer = steady.ask(DUMP_STACKS, text)
    assert code(answer) == "S_OK"
    assert "Thread" in answer["GuestStacks"] or "thread" in answer["GuestStacks"]
