from __future__ import annotations

import json

import pytest

from uvmd.bridge import call, notifications, operations, server
from uvmd.bridge.facade import HostFacade
from uvmd.bridge.frames import split
from uvmd.bridge.messages import (
    NESTED_REQUESTS,
    REQUESTS,
    RESPONSES,
    ZERO_GUID,
    CreateRequest,
    ExecuteRequest,
    ExecuteSettings,
    Message,
    NegotiateResponse,
    Notification,
    ProcessParameters,
    Response,
    StdioPorts,
    WaitRequest,
    WaitResponse,
    decode_response,
    encode_request,
    nested,
)
from uvmd.errors import InvalidMessage
from uvmd.host.requests import ContainerExit


def test_every_message_has_a_model() -> None:
    assert set(REQUESTS) == set(Message)
    assert set(RESPONSES) <= set(Message)
    assert all(model.model_json_schema() for model in {*REQUESTS.values(), *NESTED_REQUESTS.values()})


def test_a_request_is_written_as_the_host_of_the_specification_writes_it() -> None:
    request = WaitRequest(ContainerId="c", ActivityId=ZERO_GUID, ProcessId=321, TimeoutInMs=4294967295)
    frame = split(encode_request(Message.WAIT, 5, request))
    assert (frame.type, frame.id) == (0x10100601, 5)
    assert frame.body.decode() == (
        f'{{"ContainerId":"c","ActivityId":"{ZERO_GUID}","ProcessId":321,"TimeoutInMs":4294967295}}'
    )


def test_what_was_not_given_is_not_written() -> None:
    parameters = nested(ProcessParameters(CreateStdOutPipe=True))
    settings = ExecuteSettings(ProcessParameters=parameters, VsockStdioRelaySettings=StdioPorts(StdOut=7))
    body = split(encode_request(Message.EXECUTE, 0, ExecuteRequest(ContainerId="c", Settings=settings))).body
    assert json.loads(body) == {
        "ContainerId": "c",
        "Settings": {
            "ProcessParameters": '{"CreateStdOutPipe":true}',
            "VsockStdioRelaySettings": {"StdOut": 7},
        },
    }


def test_answers_are_read_by_their_models() -> None:
    assert decode_response(b'{"Result":0,"ExitCode":4294967295}', WaitResponse).exit_code == 4294967295
    assert decode_response(b'{"Result":0,"Version":4,"Capabilities":{}}', NegotiateResponse).version == 4
    failed = decode_response(b'{"Result":-1,"ErrorRecords":[{"Line":4294967295}]}', Response)
    assert failed.error_records[0].line == 4294967295
    with pytest.raises(InvalidMessage, match=r"^response.Result: "):
        decode_response(b'{"Result":4294967295}', Response)


def test_secrets_do_not_show_in_a_models_repr() -> None:
    shown = repr(ProcessParameters(Environment={"A": "s3cr3t"}, CommandArgs=("s3cr3t",)))
    shown += repr(CreateRequest(ContainerConfig="s3cr3t"))
    assert "s3cr3t" not in shown


def test_a_notification_has_every_key_that_a_host_reads() -> None:
    frame = split(notifications.exit_notification(ContainerExit("c", ZERO_GUID, "UnexpectedExit")))
    assert (frame.type, frame.id) == (0x30100101, 0)
    assert len(frame.body) + 16 == 0x8D
    assert decode_response(frame.body, Response).result == 0
    assert Notification.model_validate(json.loads(frame.body)).type == "UnexpectedExit"


def test_the_parts_of_the_room_fit_the_facade() -> None:
    # A Protocol costs nothing at run time; naming its users here keeps them together.
    assert {"wait", "modify", "power_off"} <= set(dir(HostFacade))
    assert callable(server.warm)
    assert callable(operations.modify)
    assert call.LATER is not call.SILENCE
