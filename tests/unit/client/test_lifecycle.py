"""Ending and removing containers, and what the daemon tells of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unit.client.fakes import FakeDaemon, refusal
from uvmd.bridge.identifiers import Message
from uvmd.client import BadResponse, Client, ClientError, RemoteError
from uvmd.client import lifecycle as lifecycle_module
from uvmd.client.lifecycle import init_pid, remove, stop, wait_for_exit
from uvmd.client.status import container_status, mount_table, vm_status

STOPPED = 0xC0370110


def knows(daemon: FakeDaemon, *containers: dict[str, Any], **more: Any) -> None:
    ps = {"containers": list(containers), "processes": [], "inconsistent": None, "degraded": None, **more}
    daemon.answers[Message.GET_PROPERTIES] = lambda _: {"Properties": json.dumps({"uvmd.ps": ps})}


def container(pid: int = 70, **more: Any) -> dict[str, Any]:
    return {
        "id": "c1",
        "state": "running",
        "pid": pid,
        "exit_code": None,
        "age_s": 1.5,
        "processes": [],
        **more,
    }


def test_the_list_is_read_into_values(client: Client, daemon: FakeDaemon) -> None:
    execs = [{"pid": 80, "exit_code": 3, "terminal": True}]
    knows(daemon, container(processes=execs), degraded="umount /x", processes=[{"pid": 9, "terminal": False}])
    status = vm_status(client)
    assert status.degraded == "umount /x"
    assert status.inconsistent == ""
    (found,) = status.containers
    assert (found.id, found.state, found.pid, found.exit_code, found.age_s) == (
        "c1",
        "running",
        70,
        None,
        1.5,
    )
    assert (found.execs[0].pid, found.execs[0].exit_code, found.execs[0].terminal) == (80, 3, True)
    assert status.processes[0].pid == 9
    assert container_status(client, "c2") is None


def test_fields_that_are_missing_or_strange_do_no_harm(client: Client, daemon: FakeDaemon) -> None:
    knows(daemon, {}, {"id": 7, "pid": "x", "exit_code": [], "processes": 5}, processes=None)
    assert [found.pid for found in vm_status(client).containers] == [0, 0]


def test_another_daemons_answer_is_a_bad_response(client: Client, daemon: FakeDaemon) -> None:
    daemon.answers[Message.GET_PROPERTIES] = lambda _: {"Properties": "{}"}
    with pytest.raises(BadResponse):
        vm_status(client)
    with pytest.raises(BadResponse):
        mount_table(client)


def test_the_mount_table_is_returned_row_by_row(client: Client, daemon: FakeDaemon) -> None:
    answer = json.dumps({"uvmd.mounts": [{"target": "/run/mounts/1"}, None]})
    daemon.answers[Message.GET_PROPERTIES] = lambda _: {"Properties": answer}
    assert mount_table(client) == [{"target": "/run/mounts/1"}]


def test_a_container_without_init_has_no_pid(client: Client, daemon: FakeDaemon) -> None:
    knows(daemon, container(pid=0))
    with pytest.raises(ClientError, match="no init"):
        init_pid(client, "c1")
    with pytest.raises(RemoteError, match="SYSTEM_NOT_FOUND"):
        init_pid(client, "c2")


def test_stopping_asks_and_returns_the_exit_code(client: Client, daemon: FakeDaemon) -> None:
    knows(daemon, container())
    daemon.exit(70, 0)
    assert stop(client, "c1", 10) == 0
    assert daemon.bodies(Message.SHUTDOWN_GRACEFUL)
    assert not daemon.bodies(Message.SHUTDOWN_FORCED)


def test_stopping_kills_what_does_not_end(client: Client, daemon: FakeDaemon) -> None:
    knows(daemon, container())
    daemon.answers[Message.SHUTDOWN_FORCED] = lambda _: daemon.exit(70, 137)
    assert stop(client, "c1", 0) == 137


def test_stopping_what_has_stopped_is_fine(client: Client, daemon: FakeDaemon) -> None:
    knows(daemon, container(state="terminated"))
    daemon.answers[Message.SHUTDOWN_GRACEFUL] = lambda _: refusal(STOPPED, "not running")
    daemon.exit(70, 4)
    assert stop(client, "c1", 10) == 4


def test_a_wait_that_gave_up_is_forgotten(client: Client, daemon: FakeDaemon) -> None:
    knows(daemon, container())
    assert wait_for_exit(client, "c1", 0) is None
    daemon.exit(70, 1)
    client.start("c1")


def test_removing_just_deletes(client: Client, daemon: FakeDaemon) -> None:
    remove(client, "c1")
    assert [type_word for type_word, _ in daemon.requests] == [Message.DELETE]


def test_removing_by_force_kills_first_and_waits_for_the_end(client: Client, daemon: FakeDaemon) -> None:
    knows(daemon, container())
    daemon.answers[Message.SHUTDOWN_FORCED] = lambda _: daemon.exit(70, 137)
    remove(client, "c1", force=True)
    sent = [type_word for type_word, _ in daemon.requests]
    assert sent[0] == Message.SHUTDOWN_FORCED
    assert sent[-1] == Message.DELETE
    assert Message.WAIT in sent


def test_without_a_list_the_notification_tells_of_the_end(client: Client, daemon: FakeDaemon) -> None:
    daemon.answers[Message.GET_PROPERTIES] = lambda _: refusal(0x80004005, "not here")
    daemon.answers[Message.SHUTDOWN_FORCED] = lambda _: daemon.notify("c1", "ForcedExit")
    remove(client, "c1", force=True)
    assert daemon.bodies(Message.DELETE)


def test_what_never_ends_is_still_asked_to_be_deleted(
    client: Client, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle_module, "KILL_S", 0.0)
    daemon.answers[Message.GET_PROPERTIES] = lambda _: refusal(0x80004005, "not here")
    daemon.answers[Message.DELETE] = lambda _: refusal(0x80370105, "still running")
    with pytest.raises(RemoteError, match="INVALID_STATE"):
        remove(client, "c1", force=True)


def test_removing_what_has_stopped_needs_no_wait(client: Client, daemon: FakeDaemon) -> None:
    daemon.answers[Message.SHUTDOWN_FORCED] = lambda _: refusal(STOPPED, "not running")
    remove(client, "c1", force=True)
    assert not daemon.bodies(Message.WAIT)
