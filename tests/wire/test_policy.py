"""The gate from outside: a closed door, an open one, and a policy that is set once."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support import specs
from support.containers import new_id, run
from support.daemon import Daemon, running
from support.host import (
    CREATE,
    DUMP_STACKS,
    EXECUTE,
    GET_PROPERTIES,
    MODIFY,
    NULL_ID,
    START,
    ZERO_GUID,
    Connection,
    code,
)
from support.leaks import Snapshot, assert_nothing_left
from support.matrix import row


def body(container_id: str, **fields: object) -> dict[str, object]:
    return {"ContainerId": container_id, "ActivityId": ZERO_GUID, **fields}


def policy(**settings: str) -> dict[str, object]:
    inner = {"RequestType": "Add", "ResourceType": "SecurityPolicy", "Settings": settings}
    return body(NULL_ID, Request=inner)


@pytest.fixture
def closed() -> Iterator[Daemon]:
    with running(options={"vm-stance": "deny"}) as daemon:
        yield daemon


@row("create.denied", "execute.denied", "properties.denied", "dumpstacks.denied")
def test_a_closed_door_denies_every_question_and_changes_nothing(closed: Daemon) -> None:
    bridge = closed.connect()
    before = Snapshot.take(closed)
    container_id = new_id()
    config = bridge.host.container_config(container_id, specs.container("/bin/true"))
    parameters = json.dumps({"CommandArgs": ["true"], "Environment": {}})
    denied = [
        bridge.ask(CREATE, body(container_id, ContainerConfig=config)),
        bridge.ask(EXECUTE, body(NULL_ID, Settings={"ProcessParameters": parameters})),
        # Asked before the container is looked up: a stranger learns nothing of what exists.
        bridge.ask(GET_PROPERTIES, body(container_id)),
        bridge.ask(DUMP_STACKS, body(NULL_ID)),
    ]
    assert [code(answer) for answer in denied] == ["E_FAIL"] * 4
    assert all("denied" in answer["ErrorMessage"] for answer in denied)
    assert code(bridge.ask(START, body(container_id))) == "S_OK"
    assert_nothing_left(closed, before)
    bridge.close()


def test_an_empty_policy_opens_the_closed_door_once(closed: Daemon) -> None:
    bridge = closed.connect()
    answer = bridge.ask(MODIFY, policy(EnforcerType="", EncodedSecurityPolicy=""))
    assert code(answer) == "S_OK", answer.get("ErrorMessage")
    assert run(bridge, "/bin/true").exit_code == 0
    assert code(bridge.ask(MODIFY, policy(EncodedSecurityPolicy=""))) == "E_FAIL", "set once"
    bridge.close()


def test_a_policy_that_no_enforcer_here_can_read_is_refused(steady: Connection) -> None:
    answer = steady.ask(MODIFY, policy(EnforcerType="rego", EncodedSecurityPolicy="bm8gcG9saWN5IGF0IGFsbA=="))
    assert code(answer) == "E_FAIL"
    assert "bm8gcG9sa" not in json.dumps(answer)
    answer = steady.ask(MODIFY, policy(EnforcerType="no-such-enforcer", EncodedSecurityPolicy="eA=="))
    assert code(answer) == "E_FAIL"
    # Neither opened nor closed anything.
    assert run(steady, "/bin/true").exit_code == 0


def test_the_scripted_enforcer_of_the_tests_cannot_be_selected(steady: Connection) -> None:
    for name in ("scripted", "Scripted", "uvmd.api.testing", "open_door"):
        answer = steady.ask(MODIFY, policy(EnforcerType=name, EncodedSecurityPolicy="eA=="))
        assert code(answer) == "E_FAIL"
