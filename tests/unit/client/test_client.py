"""The messages as methods, against a fake daemon."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unit.client.conftest import sockets_in
from unit.client.fakes import FakeDaemon, ends_with, refusal
from uvmd.bridge.identifiers import Message
from uvmd.client import NULL_ID, Address, BadResponse, Client, RemoteError
from uvmd.client.process import INFINITE_MS


def test_negotiate_offers_version_four_and_keeps_the_capabilities(client: Client, daemon: FakeDaemon) -> None:
    capabilities = client.negotiate()
    (body,) = daemon.bodies(Message.NEGOTIATE)
    assert (body["MinimumVersion"], body["MaximumVersion"], body["ContainerId"]) == (4, 4, "")
    assert "UvmdEvents" not in body
    assert client.capabilities == capabilities
    assert "SupportedSchemaVersions" in capabilities


def test_event_frames_are_asked_for_only_when_wanted(client: Client, daemon: FakeDaemon) -> None:
    client.negotiate(events=True)
    assert daemon.bodies(Message.NEGOTIATE)[0]["UvmdEvents"] is True


def test_create_nests_the_document_in_a_string(client: Client, daemon: FakeDaemon) -> None:
    spec = {"ociVersion": "1.0.2", "process": {"args": ["é"]}}
    client.create("c1", bundle="/run/gcs/c/c1", spec=spec, scratch="/s")
    (body,) = daemon.bodies(Message.CREATE)
    assert json.loads(body["ContainerConfig"]) == {
        "SchemaVersion": {"Major": 2, "Minor": 1},
        "OciBundlePath": "/run/gcs/c/c1",
        "OciSpecification": spec,
        "ScratchDirPath": "/s",
    }


@pytest.mark.parametrize(
    ("call", "message", "fields"),
    [
        (lambda c: c.start("c1"), Message.START, {}),
        (lambda c: c.signal("c1", 7, 15), Message.SIGNAL, {"ProcessId": 7, "Options": {"Signal": 15}}),
        (lambda c: c.shutdown("c1"), Message.SHUTDOWN_GRACEFUL, {}),
        (lambda c: c.terminate("c1"), Message.SHUTDOWN_FORCED, {}),
        (
            lambda c: c.resize("c1", 7, rows=24, columns=80),
            Message.RESIZE,
            {"ProcessId": 7, "Height": 24, "Width": 80},
        ),
        (lambda c: c.delete("c1"), Message.DELETE, {}),
    ],
)
def test_simple_messages_carry_their_fields(
    client: Client, daemon: FakeDaemon, call: Any, message: int, fields: dict[str, Any]
) -> None:
    call(client)
    assert daemon.bodies(message) == [{"ContainerId": "c1", "ActivityId": NULL_ID, **fields}]


def test_modify_leaves_settings_out_when_there_are_none(client: Client, daemon: FakeDaemon) -> None:
    client.modify("PodCgroupMemoryLimit", request_type="Update")
    client.modify("Network", {"InstanceID": "x"}, container_id="c1")
    first, second = daemon.bodies(Message.MODIFY)
    assert first["Request"] == {"RequestType": "Update", "ResourceType": "PodCgroupMemoryLimit"}
    assert first["ContainerId"] == NULL_ID
    assert second["Request"]["Settings"] == {"InstanceID": "x"}
    assert second["ContainerId"] == "c1"


def test_properties_are_parsed_out_of_their_string(client: Client, daemon: FakeDaemon) -> None:
    daemon.answers[Message.GET_PROPERTIES] = lambda _: {"Properties": '{"ProcessList":[{"ProcessId":7}]}'}
    assert client.properties("c1", ["ProcessList"]) == {"ProcessList": [{"ProcessId": 7}]}
    assert json.loads(daemon.bodies(Message.GET_PROPERTIES)[0]["Query"]) == {"PropertyTypes": ["ProcessList"]}


def test_stacks_are_returned_as_text(client: Client, daemon: FakeDaemon) -> None:
    daemon.answers[Message.DUMP_STACKS] = lambda _: {"GuestStacks": "main: poll"}
    assert client.dump_stacks() == "main: poll"


def test_a_refusal_becomes_a_remote_error_with_name_and_records(client: Client, daemon: FakeDaemon) -> None:
    daemon.answers[Message.DELETE] = lambda _: refusal(0xC037010E, "no container c1")
    with pytest.raises(RemoteError) as caught:
        client.delete("c1")
    assert str(caught.value) == "SYSTEM_NOT_FOUND (0xC037010E): no container c1"
    assert caught.value.request == "DELETE"
    assert caught.value.records[0]["Message"] == "no container c1"


def test_an_unknown_code_is_shown_as_a_number(client: Client, daemon: FakeDaemon) -> None:
    daemon.answers[Message.DELETE] = lambda _: refusal(0x80070005, "")
    with pytest.raises(RemoteError) as caught:
        client.delete("c1")
    assert str(caught.value) == "HRESULT (0x80070005)"


def test_init_runs_with_its_streams_and_gives_its_output(client: Client, daemon: FakeDaemon) -> None:
    daemon.program = lambda given: (7, given.upper(), b"oops")
    with client.run_init("c1", stdin=True) as init:
        output = init.collect(b"hello")
    assert (output.status, output.stdout, output.stderr) == (7, b"HELLO", b"oops")
    settings = daemon.bodies(Message.EXECUTE)[0]["Settings"]
    assert json.loads(settings["ProcessParameters"]) == {
        "CreateStdInPipe": True,
        "CreateStdOutPipe": True,
        "CreateStdErrPipe": True,
    }
    assert list(settings["VsockStdioRelaySettings"]) == ["StdIn", "StdOut", "StdErr"]


def test_ports_are_never_reused_and_their_names_are_gone(
    client: Client, daemon: FakeDaemon, address: Address
) -> None:
    for _ in range(2):
        with client.run_init("c1") as init:
            init.collect()
    ports = [
        port
        for body in daemon.bodies(Message.EXECUTE)
        for port in body["Settings"]["VsockStdioRelaySettings"].values()
    ]
    assert len(set(ports)) == 4
    assert sockets_in(address) == []


def test_a_large_input_and_output_do_not_block_each_other(client: Client, daemon: FakeDaemon) -> None:
    daemon.program = lambda given: (0, given * 2, given)
    data = bytes(range(256)) * 8192
    with client.run_init("c1", stdin=True) as init:
        output = init.collect(data)
    assert output.stdout == data * 2
    assert output.stderr == data


def test_an_exec_carries_its_process(client: Client, daemon: FakeDaemon) -> None:
    daemon.program = ends_with(3)
    with client.exec("c1", {"args": ["true"], "cwd": "/"}, stdout=False, stderr=False) as process:
        assert process.wait(10) == 3
    settings = daemon.bodies(Message.EXECUTE)[0]["Settings"]
    assert "VsockStdioRelaySettings" not in settings
    assert json.loads(settings["ProcessParameters"]) == {"OciProcess": {"args": ["true"], "cwd": "/"}}


def test_an_external_process_is_addressed_to_the_vm(client: Client, daemon: FakeDaemon) -> None:
    with client.run_external(["ls", "/"], env={"A": "b"}, stdout=False, stderr=False) as process:
        process.wait(10)
    (body,) = daemon.bodies(Message.EXECUTE)
    assert body["ContainerId"] == NULL_ID
    parameters = json.loads(body["Settings"]["ProcessParameters"])
    assert parameters["CommandArgs"] == ["ls", "/"]
    assert parameters["Environment"] == {"A": "b"}


def test_a_failed_execute_leaves_no_socket(client: Client, daemon: FakeDaemon, address: Address) -> None:
    daemon.answers[Message.EXECUTE] = lambda _: refusal(0x80004005, "denied")
    with pytest.raises(RemoteError):
        client.run_init("c1", stdin=True)
    assert sockets_in(address) == []


def test_streams_that_a_policy_denied_are_missed_not_waited_for(
    client: Client, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uvmd.client.ports.StreamPorts.accept.__defaults__", (0.0,))
    daemon.deny_stdio = True
    with client.run_init("c1") as init:
        assert init.streams.incomplete
        assert init.collect().status == 0


def test_wait_sends_its_limit(client: Client, daemon: FakeDaemon) -> None:
    daemon.exit(7, 5)
    assert client.wait("c1", 7, 250) == 5
    pending = client.submit_wait("c1", 7)
    assert pending.result(10)["ExitCode"] == 5
    assert [body["TimeoutInMs"] for body in daemon.bodies(Message.WAIT)] == [250, INFINITE_MS]


def test_a_wait_that_is_not_over_can_be_asked_again(client: Client, daemon: FakeDaemon) -> None:
    with client.run_init("c1", stdin=True) as init:
        assert init.wait(0) is None
        assert init.collect().status == 0


def test_an_answer_without_its_field_is_a_bad_response(client: Client, daemon: FakeDaemon) -> None:
    daemon.answers[Message.EXECUTE] = lambda _: {}
    daemon.answers[Message.WAIT] = lambda _: {}
    with pytest.raises(BadResponse):
        client.execute("c1", {})
    with pytest.raises(BadResponse):
        client.wait("c1", 7)


def test_notifications_come_in_order(client: Client, daemon: FakeDaemon) -> None:
    daemon.notify("c1", "ForcedExit")
    daemon.notify("c2")
    first, second = client.notification(10), client.notification(10)
    assert first is not None
    assert (first.container_id, first.event) == ("c1", "ForcedExit")
    assert second is not None
    assert second.container_id == "c2"
    assert client.notification(0) is None


def test_raw_returns_the_body_whatever_it_says(client: Client, daemon: FakeDaemon) -> None:
    daemon.answers[0x10100E01] = lambda _: refusal(0x80004001, "no")
    assert json.loads(client.raw(0x10100E01, b"{}"))["Result"] == 0x80004001 - (1 << 32)


def test_closing_calls_back_once(client: Client) -> None:
    called: list[str] = []
    client.on_close(lambda: called.append("x"))
    client.close()
    client.close()
    assert called == ["x"]
