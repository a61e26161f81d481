"""Appendix A and B of spec bridge.md: bytes that a real host sends, and the codes it gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.fake_host import FakeHost
from support.peer import Peer
from uvmd.bridge.frames import Frame, split
from uvmd.bridge.hresult import name_of
from uvmd.bridge.identifiers import ZERO_GUID, Message
from uvmd.bridge.server import warm

Z = ZERO_GUID
UNSUPPORTED = "UNSUPPORTED_PROTOCOL_VERSION"


def before(type_: int, body: bytes) -> tuple[Frame, str]:
    host = Peer(FakeHost()).connect(negotiate=False)
    host.post(type_, body)
    ((_, frame),) = host.sent
    return frame, name_of(json.loads(frame.body)["Result"])


def test_the_first_frame_of_a_real_host_gets_the_exact_answer() -> None:
    peer = Peer(FakeHost())
    bridge = peer.bridge
    bridge.bridge_up(1)
    body = f'{{"ContainerId":"","ActivityId":"{Z}","MinimumVersion":4,"MaximumVersion":4}}\n'
    bridge.bridge_frame(1, 1, bytes.fromhex("010b10107d000000 0000000000000000") + body.encode())
    ((_, answer),) = peer.sent
    frame = answer.encode()
    assert len(frame) == 342
    assert frame[:16] == bytes.fromhex("010b102056010000 0000000000000000")
    assert split(frame).body.decode() == (
        f'{{"Result":0,"ActivityId":"{Z}","Version":4,"Capabilities":{{'
        '"SupportedSchemaVersions":[{"Major":2,"Minor":1}],"RuntimeOsType":"Linux",'
        '"GuestDefinedCapabilities":{"NamespaceAddRequestSupported":true,"SignalProcessSupported":true,'
        '"DumpStacksSupported":true,"DeleteContainerStateSupported":true}}}'
    )


def negotiate(text: str) -> tuple[str, dict[str, Any]]:
    frame, code = before(Message.NEGOTIATE, text.encode())
    return code, json.loads(frame.body)


@pytest.mark.parametrize(
    ("text", "code", "echoed"),
    [
        (f'{{"ActivityId":"{Z}","MinimumVersion":5,"MaximumVersion":9}}', UNSUPPORTED, True),
        (f'{{"ActivityId":"{Z}","MinimumVersion":1,"MaximumVersion":3}}', UNSUPPORTED, True),
        (f'{{"ActivityId":"{Z}","MinimumVersion":"4","MaximumVersion":4}}', "INVALID_JSON", True),
        (f'{{"ActivityId":"{Z}","MinimumVersion":', "INVALID_JSON", False),
        ("", "INVALID_JSON", False),
        (f'{{"activityID":"{Z}","MINIMUMVERSION":3,"maximumversion":7,"x":1}}\n', "S_OK", True),
    ],
)
def test_negotiations_are_answered_as_observed(text: str, code: str, echoed: bool) -> None:
    got, answer = negotiate(text)
    assert got == code
    assert ("ActivityId" in answer) is echoed
    if code == "S_OK":
        assert answer["Version"] == 4
    else:
        assert set(answer) - {"ActivityId"} == {"Result", "ErrorMessage", "ErrorRecords"}


@pytest.mark.parametrize("type_", [*(set(Message) - {Message.NEGOTIATE}), 0x10100E01, 0x30100101, 0x20100101])
def test_anything_before_negotiate_is_not_implemented(type_: int) -> None:
    frame, code = before(type_, b"{}")
    assert code == "E_NOTIMPL"
    assert frame.type == 0x20000000 | type_ & 0x0FFFFFFF


def modify(resource: str | None, request: str | None = None, **fields: Any) -> dict[str, Any]:
    asked = {"ResourceType": resource, "RequestType": request, **fields}
    return {"Request": {key: value for key, value in asked.items() if value is not None}}


OLD = json.dumps({"SchemaVersion": {"Major": 1, "Minor": 0}})


@pytest.mark.parametrize(
    ("type_", "container", "fields", "code"),
    [
        (Message.NEGOTIATE, "", {"MinimumVersion": 4, "MaximumVersion": 4}, "E_NOTIMPL"),
        (0x10100E01, "c", {}, "E_NOTIMPL"),
        (0x30100101, "c", {}, "E_NOTIMPL"),
        (Message.START, "c", {}, "S_OK"),
        (Message.CREATE, "c", {"ContainerConfig": ""}, "INVALID_JSON"),
        (Message.CREATE, "c", {"ContainerConfig": OLD}, "INVALID_JSON"),
        (Message.SHUTDOWN_FORCED, "c", {}, "SYSTEM_NOT_FOUND"),
        (Message.SHUTDOWN_GRACEFUL, "c", {}, "SYSTEM_NOT_FOUND"),
        (Message.WAIT, "c", {"ProcessId": 1}, "SYSTEM_NOT_FOUND"),
        (Message.WAIT, Z, {"ProcessId": 1}, "NOT_FOUND"),
        (Message.WAIT, "c", {"ProcessId": -1}, "INVALID_JSON"),
        (Message.SIGNAL, Z, {"ProcessId": 1}, "SYSTEM_NOT_FOUND"),
        (Message.RESIZE, Z, {"ProcessId": 1, "Height": 1, "Width": 1}, "SYSTEM_NOT_FOUND"),
        (Message.GET_PROPERTIES, Z, {}, "E_FAIL"),
        (Message.GET_PROPERTIES, Z, {"Query": "{"}, "INVALID_JSON"),
        (Message.GET_PROPERTIES, "c", {}, "SYSTEM_NOT_FOUND"),
        (Message.MODIFY, Z, {}, "INVALID_JSON"),
        (Message.MODIFY, Z, {"Request": None}, "INVALID_JSON"),
        (Message.MODIFY, Z, modify("Foo"), "E_FAIL"),
        (Message.MODIFY, Z, modify("Network"), "INVALID_JSON"),
        (Message.MODIFY, Z, modify("Network", "Update", Settings={}), "E_FAIL"),
        (Message.MODIFY, Z, modify("Network", "Remove", Settings={}), "S_OK"),
        (Message.MODIFY, Z, modify("PodCgroupMemoryLimit"), "E_FAIL"),
        (Message.MODIFY, "c", modify("Network", Settings={}), "SYSTEM_NOT_FOUND"),
        (Message.DELETE, "c", {}, "SYSTEM_NOT_FOUND"),
        (Message.EXECUTE, "c", {}, "INVALID_JSON"),
        (Message.EXECUTE, "c", {"Settings": {}}, "INVALID_JSON"),
        (Message.EXECUTE, "c", {"Settings": {"ProcessParameters": "{}"}}, "SYSTEM_NOT_FOUND"),
    ],
)
def test_the_observed_answers_hold(
    host: Peer, type_: int, container: str, fields: dict[str, Any], code: str
) -> None:
    assert host.code(type_, container_id=container, **fields) == code


def test_garbage_after_the_value_is_refused_without_an_activity(host: Peer) -> None:
    answer = host.ask_raw(Message.START, f'{{"ContainerId":"c","ActivityId":"{Z}"}} x'.encode())
    assert name_of(answer["Result"]) == "INVALID_JSON"
    assert "ActivityId" not in answer


def test_everything_holds_with_the_models_loaded_before() -> None:
    warm()
    assert Peer(FakeHost()).connect().code(Message.WAIT, ProcessId=-1) == "INVALID_JSON"
