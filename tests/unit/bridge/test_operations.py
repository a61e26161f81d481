"""What reaches the host of each request, and what of its answer reaches the peer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.peer import Peer
from uvmd import errors
from uvmd.bridge import operations
from uvmd.bridge.hresult import name_of
from uvmd.bridge.identifiers import ZERO_GUID, Message
from uvmd.bridge.limits import MARK
from uvmd.host.requests import NULL_ID, ExecuteRequest

GUID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def document(**fields: Any) -> str:
    return json.dumps({"SchemaVersion": {"Major": 2, "Minor": 1}, **fields})


def execute(host: Peer, container_id: str, parameters: dict[str, Any], **ports: int) -> dict[str, Any]:
    settings: dict[str, Any] = {"ProcessParameters": json.dumps(parameters), "VsockStdioRelaySettings": ports}
    return host.ask(Message.EXECUTE, container_id=container_id, Settings=settings)


def test_create_passes_on_paths_specification_and_activity(host: Peer) -> None:
    spec = {"ociVersion": "1.0.2", "process": {"args": ["sh"]}}
    text = document(OciBundlePath="/run/b", ScratchDirPath="/run/s", OciSpecification=spec)
    body = {"ContainerId": "c", "ActivityId": GUID, "ContainerConfig": text, "SupportedVersions": {"a": 1}}
    answer = host.ask_raw(Message.CREATE, json.dumps(body).encode())
    assert answer == {"Result": 0, "ActivityId": GUID, "SelectedProtocolVersion": 0}
    assert host.fake.calls[-1] == ("create", "c", "/run/b", "/run/s", spec, GUID)


@pytest.mark.parametrize(("major", "minor", "ok"), [(2, 1, True), (2, 2, True), (3, 0, True), (2, 0, False)])
def test_schemas_from_two_one_on_are_accepted(host: Peer, major: int, minor: int, ok: bool) -> None:
    text = json.dumps({"SchemaVersion": {"Major": major, "Minor": minor}, "OciSpecification": {}})
    assert (host.code(Message.CREATE, ContainerConfig=text) == "S_OK") is ok


def test_an_old_schema_is_refused_before_the_host_is_asked(host: Peer) -> None:
    assert host.code(Message.CREATE, ContainerConfig="null") == "INVALID_JSON"
    assert all(call[0] != "create" for call in host.fake.calls)


def test_a_port_counts_only_with_its_flag_and_may_be_zero(host: Peer) -> None:
    host.create()
    execute(host, "c", {"CreateStdOutPipe": True, "CreateStdErrPipe": True}, StdIn=5, StdOut=6)
    request: ExecuteRequest = host.fake.calls[-1][2]
    assert request.ports == (None, 6, 0)
    assert request.oci_process is None
    assert not request.in_vm


def test_an_exec_is_known_by_its_oci_process(host: Peer) -> None:
    host.create()
    process = {"terminal": True, "args": ["sh"], "cwd": "/"}
    answer = execute(host, "c", {"OciProcess": process, "CreateStdInPipe": True}, StdIn=5)
    assert host.fake.calls[-1][2].oci_process == process
    assert answer["ProcessId"] == max(host.fake.containers["c"].execs)


@pytest.mark.parametrize(("container_id", "flag"), [(NULL_ID, False), ("c", True)])
def test_a_process_in_the_vm_gets_its_own_parameters(host: Peer, container_id: str, flag: bool) -> None:
    parameters = {
        "CommandArgs": ["/bin/ls", "-l"],
        "WorkingDirectory": "/tmp",
        "Environment": {"PATH": "/bin", "EMPTY": None},
        "EmulateConsole": True,
        "CreateInUtilityVM": flag,
        "ConsoleSize": [24, 80],
    }
    execute(host, container_id, parameters)
    assert host.fake.calls[-1][2] == ExecuteRequest(
        in_vm=True,
        args=("/bin/ls", "-l"),
        cwd="/tmp",
        env={"PATH": "/bin", "EMPTY": ""},
        terminal=True,
    )


def test_signal_zero_or_none_is_passed_on_for_the_host_to_decide(host: Peer) -> None:
    pid = host.create()
    for options, signal in (({}, 0), ({"Options": None}, 0), ({"Options": {"Signal": 15}}, 15)):
        assert host.code(Message.SIGNAL, ProcessId=pid, **options) == "S_OK"
        assert host.fake.calls[-1] == ("signal", "c", pid, signal)


def test_rows_are_the_height_and_columns_the_width(host: Peer) -> None:
    pid = host.create()
    host.fake.containers["c"].init.terminal = True
    assert host.code(Message.RESIZE, ProcessId=pid, Height=24, Width=80) == "S_OK"
    assert host.fake.calls[-1] == ("resize", "c", pid, 80, 24)


@pytest.mark.parametrize(
    ("type_", "forced"), [(Message.SHUTDOWN_GRACEFUL, False), (Message.SHUTDOWN_FORCED, True)]
)
def test_the_two_shutdowns_differ_in_force(host: Peer, type_: Message, forced: bool) -> None:
    host.create()
    assert host.code(type_) == "S_OK"
    assert host.fake.calls[-1] == ("shutdown", "c", forced)


def test_a_shutdown_of_a_dead_container_says_so(host: Peer) -> None:
    host.create()
    host.fake.exit_init("c", 0)
    assert host.code(Message.SHUTDOWN_GRACEFUL) == "SYSTEM_ALREADY_STOPPED"


def test_power_off_without_permission_is_refused(host: Peer) -> None:
    assert host.code(Message.SHUTDOWN_FORCED, container_id=NULL_ID) == "E_FAIL"
    assert host.code(Message.START) == "S_OK"


def test_power_off_with_permission_is_not_answered_and_ends_everything(host: Peer) -> None:
    host.fake.agent = True
    assert host.answers(host.post_fields(Message.SHUTDOWN_GRACEFUL, container_id=NULL_ID)) == []
    assert host.answers(host.post_fields(Message.START)) == []


def test_properties_travel_as_json_in_a_string(host: Peer) -> None:
    host.create()
    host.fake.returning["properties"] = {"ProcessList": [{"ProcessId": 7}]}
    answer = host.ask(Message.GET_PROPERTIES, Query='{"PropertyTypes":["ProcessList","Foo"]}')
    assert answer["Properties"] == '{"ProcessList":[{"ProcessId":7}]}'
    assert host.fake.calls[-1] == ("properties", "c", ("ProcessList", "Foo"))


@pytest.mark.parametrize("query", ["", "null", "{}", '{"PropertyTypes":null}'])
def test_nothing_asked_is_an_empty_object(host: Peer, query: str) -> None:
    host.create()
    assert host.ask(Message.GET_PROPERTIES, Query=query)["Properties"] == "{}"


@pytest.mark.parametrize(
    ("types", "code"),
    [
        (["uvmd.containers"], "S_OK"),
        (["uvmd.containers", "uvmd.mounts"], "S_OK"),
        (["uvmd.containers", "Statistics"], "E_FAIL"),
        (["Statistics"], "E_FAIL"),
        ([], "E_FAIL"),
    ],
)
def test_only_properties_of_ours_are_served_for_the_vm(host: Peer, types: list[str], code: str) -> None:
    query = json.dumps({"PropertyTypes": types})
    assert host.code(Message.GET_PROPERTIES, container_id=NULL_ID, Query=query) == code


def test_a_long_process_list_is_cut_so_that_the_host_lives(host: Peer) -> None:
    host.create()
    host.fake.returning["properties"] = {"ProcessList": [{"ProcessId": pid} for pid in range(10_000)]}
    listed = json.loads(host.ask(Message.GET_PROPERTIES)["Properties"])["ProcessList"]
    assert 1000 < len(listed) < 10_000


def test_properties_that_cannot_be_cut_are_an_error(host: Peer) -> None:
    host.create()
    host.fake.returning["properties"] = {"LCOWMetrics": "x" * 70_000}
    answer = host.ask(Message.GET_PROPERTIES)
    assert name_of(answer["Result"]) == "E_FAIL"
    assert "65520" in answer["ErrorMessage"]


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_properties_that_are_no_json_are_an_error(host: Peer, value: object) -> None:
    host.create()
    host.fake.returning["properties"] = {"LCOWMetrics": value}
    assert host.code(Message.GET_PROPERTIES) == "E_FAIL"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"ResourceType": "ContainerConstraints", "Settings": {"a": 1}}, ("Add", {"a": 1}, True)),
        ({"resourcetype": "ContainerConstraints", "RequestType": "", "settings": {}}, ("Add", {}, True)),
        ({"ResourceType": "ContainerConstraints", "RequestType": "Update", "Settings": None}, None),
        ({"ResourceType": "ContainerConstraints"}, None),
    ],
)
def test_modify_passes_on_raw_settings(host: Peer, request_: dict[str, Any], expected: Any) -> None:
    host.create()
    code = host.code(Message.MODIFY, Request=request_)
    name, container, request_type, resource, settings, has_settings = host.fake.calls[-1]
    assert (name, container, resource) == ("modify", "c", "ContainerConstraints")
    if expected is None:
        assert (code, settings, has_settings) == ("INVALID_JSON", None, False)
    else:
        assert (code, (request_type, settings, has_settings)) == ("S_OK", expected)


@pytest.mark.parametrize("request_", [[], "x", 5, {"RequestType": 5}, {"RequestType": []}])
def test_a_request_that_does_not_decode_is_invalid(host: Peer, request_: Any) -> None:
    assert host.code(Message.MODIFY, Request=request_) == "INVALID_JSON"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\x00", b"[1]"])
def test_stacks_are_dumped_whatever_the_body(host: Peer, body: bytes) -> None:
    assert host.ask_raw(Message.DUMP_STACKS, body) == {"Result": 0, "GuestStacks": "one thread\n"}


def test_a_large_dump_is_cut(host: Peer) -> None:
    host.fake.returning["dump_stacks"] = "Thread\n" * 50_000
    assert host.ask(Message.DUMP_STACKS)["GuestStacks"].endswith(MARK)


def test_delete_names_the_container(host: Peer) -> None:
    host.create()
    assert host.ask(Message.DELETE) == {"Result": 0, "ActivityId": ZERO_GUID}
    assert host.fake.calls[-1] == ("delete", "c")


@pytest.mark.parametrize("type_", sorted(set(Message) - {Message.NEGOTIATE, Message.DUMP_STACKS}))
@pytest.mark.parametrize("body", [b"", b"[]", b"7", b'{"ContainerId":5}', b'{"otsc":{"a":1}}'])
def test_what_does_not_decode_never_reaches_the_host(host: Peer, type_: Message, body: bytes) -> None:
    host.fake.calls.clear()
    assert name_of(host.ask_raw(type_, body)["Result"]) == "INVALID_JSON"
    assert host.fake.calls == []


OPERATION_OF = {
    Message.CREATE: "create",
    Message.START: "start",
    Message.SHUTDOWN_GRACEFUL: "shutdown",
    Message.EXECUTE: "execute",
    Message.WAIT: "wait",
    Message.SIGNAL: "signal",
    Message.RESIZE: "resize",
    Message.GET_PROPERTIES: "properties",
    Message.MODIFY: "modify",
    Message.DUMP_STACKS: "dump_stacks",
    Message.DELETE: "delete",
}
FIELDS: dict[Message, dict[str, Any]] = {
    Message.CREATE: {"ContainerConfig": document(OciSpecification={})},
    Message.EXECUTE: {"Settings": {"ProcessParameters": "{}"}},
    Message.MODIFY: {"Request": {}},
}


@pytest.mark.parametrize("type_", sorted(OPERATION_OF))
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidState("being created"), "INVALID_STATE"),
        (errors.PolicyDenied("no"), "E_FAIL"),
        (errors.RuntimeFailed("runc: no"), "E_FAIL"),
        (OSError(5, "eio"), "E_FAIL"),
        (KeyError("s3cr3t"), "E_FAIL"),
        (RecursionError(), "E_FAIL"),
        (SystemExit(3), "E_FAIL"),
    ],
)
def test_whatever_the_host_raises_is_answered(
    host: Peer, type_: Message, error: BaseException, code: str
) -> None:
    host.fake.raising[OPERATION_OF[type_]] = error
    answer = host.ask(type_, **FIELDS.get(type_, {}))
    assert name_of(answer["Result"]) == code
    assert "s3cr3t" not in json.dumps(answer)
    assert answer["ErrorRecords"][0]["ModuleName"] == "gcs"


def test_every_message_but_two_has_its_operation_here() -> None:
    assert callable(operations.create)
    assert set(OPERATION_OF) == set(Message) - {Message.NEGOTIATE, Message.SHUTDOWN_FORCED}
