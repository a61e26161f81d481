"""A strict VM: a policy's answers reach containers, streams it forbids go nowhere."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from support import specs
from support.containers import shell
from support.host import (
    CREATE,
    DELETE,
    EXECUTE,
    MODIFY,
    NULL_ID,
    SIGNAL,
    START,
    ZERO_GUID,
    Refused,
    code,
)
from support.matrix import row
from support.streams import Output
from support.strict import strict_container, strict_vm

TEE = "io.microsoft.container.lcow.tee-log-path"
NO_STDIO = {"create_container": {"stdio": False}}


def assert_never_dialled(output: Output) -> None:
    assert not output.accepted.is_set()
    output.abandon()


def test_streams_that_the_policy_forbids_are_never_dialled(runtime: str) -> None:
    with strict_vm(runtime, NO_STDIO) as (_, bridge):
        with strict_container(
            bridge, *shell("cat && echo secret && echo secret >&2 && sleep 60")
        ) as container:
            init = container.init(stdin=True, stdout=True, stderr=True)
            exec_ = container.exec(*shell("cat; echo secret; exit 3"), stdin=True, stdout=True)
            assert exec_.wait() == 3
            for output in (init.stdout, init.stderr, exec_.stdout):
                assert_never_dialled(output)
            # The process runs on: its output goes nowhere, without an error.
            names = [os.readlink(f"/proc/{init.pid}/fd/{fd}") for fd in (0, 1, 2)]
            assert not [name for name in names if "socket" in name]


@pytest.mark.parametrize("kind", ["exec", "external"])
def test_a_terminal_without_streams_is_refused(runtime: str, kind: str) -> None:
    script = {**NO_STDIO, "exec_external": {"stdio": False}}
    with strict_vm(runtime, script) as (_, bridge):
        with strict_container(bridge, "/bin/sleep", "60") as container:
            container.init()
            with pytest.raises(Refused) as caught:
                if kind == "exec":
                    container.exec("/bin/sh", terminal=True, stdin=True, stdout=True)
                else:
                    parameters = {"CommandArgs": ["sh"], "EmulateConsole": True}
                    bridge.execute(NULL_ID, parameters=parameters, stdin=True, stdout=True)
            assert code(caught.value.answer) == "E_FAIL"
            assert "terminal" in caught.value.answer["ErrorMessage"]


def test_a_tee_log_without_streams_is_refused(runtime: str) -> None:
    with strict_vm(runtime, NO_STDIO) as (_, bridge):
        with pytest.raises(Refused, match="stdio"):
            with strict_container(bridge, "/bin/true", annotations={TEE: "out.log"}):
                pass


def test_an_external_process_without_streams_has_dev_null(runtime: str) -> None:
    with strict_vm(runtime, {"exec_external": {"stdio": False}}) as (_, bridge):
        parameters = {"CommandArgs": ["sleep", "60"], "Environment": {}}
        process = bridge.execute(NULL_ID, parameters=parameters, stdout=True)
        assert {os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
        assert_never_dialled(process.stdout)
        bridge.signal(NULL_ID, process.pid)
        assert process.wait() == 137


def test_the_environment_is_what_the_policy_keeps(runtime: str) -> None:
    kept = ["PATH=/bin", "KEPT=yes"]
    script = {"create_container": {"env": kept}, "exec_in_container": {"env": kept}}
    env = ("PATH=/bin", "KEPT=yes", "DROPPED=yes")
    with strict_vm(runtime, script) as (_, bridge):
        with strict_container(bridge, *shell("env; sleep 60"), env=env) as container:
            init = container.init(stdout=True)
            text = init.stdout.read_until(b"KEPT=yes")
            exec_ = container.exec("/bin/env", env=env, stdout=True)
            assert exec_.wait() == 0
            for seen in (text, exec_.stdout.read_all()):
                assert b"DROPPED" not in seen


def test_the_capabilities_are_what_the_policy_keeps(runtime: str) -> None:
    sets = ("bounding", "effective", "inheritable", "permitted", "ambient")
    # What is not asked for cannot be given, by a policy or by a fragment of it.
    kept = {"capabilities": {name: ["CAP_KILL", "CAP_SYS_ADMIN"] for name in sets}}
    script = {"create_container": kept, "exec_in_container": kept}
    with strict_vm(runtime, script) as (_, bridge):
        with strict_container(bridge, "/bin/sleep", "60") as container:
            init = container.init()
            exec_ = container.exec("/bin/sleep", "60")
            for pid in (init.pid, exec_.pid):
                status = Path(f"/proc/{pid}/status").read_text()
                found = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Cap"))
                assert {int(found[name], 16) for name in ("CapBnd", "CapPrm", "CapEff")} == {1 << 5}
                assert {int(found[name], 16) for name in ("CapInh", "CapAmb")} == {0}


@row("create.bad-id-strict", "delete.bad-id-strict", "modify.strict-id")
def test_ids_are_64_hexadecimal_digits(runtime: str) -> None:
    with strict_vm(runtime, {}) as (_, bridge):
        for bad in ("web", "a" * 63, "g" * 64, "A" * 63 + "\n"):
            base = {"ContainerId": bad, "ActivityId": ZERO_GUID}
            config = bridge.host.container_config("b", specs.container("/bin/true"))
            assert code(bridge.ask(CREATE, {**base, "ContainerConfig": config})) == "E_FAIL"
            assert code(bridge.ask(DELETE, base)) == "E_FAIL"
            request = {"ResourceType": "ContainerConstraints", "Settings": {"Linux": {}}}
            assert code(bridge.ask(MODIFY, {**base, "Request": request})) == "E_FAIL"


@row("any.case-twice-strict")
def test_keys_that_differ_only_in_case_are_refused(runtime: str) -> None:
    with strict_vm(runtime, {}) as (_, bridge):
        twice = b'{"ContainerId":"a","containerid":"b","ActivityId":"%s"}' % ZERO_GUID.encode()
        assert code(bridge.ask(START, twice)) == "INVALID_JSON"


@row("signal.denied")
def test_a_denied_signal_is_not_sent(runtime: str) -> None:
    script = {"signal_container_process": {"allowed": False, "reason": "no signals"}}
    with strict_vm(runtime, script) as (_, bridge):
        with strict_container(bridge, "/bin/sleep", "60") as container:
            init = container.init()
            body = {"ContainerId": container.id, "ActivityId": ZERO_GUID, "ProcessId": init.pid}
            answer = bridge.ask(SIGNAL, {**body, "Options": {"Signal": 9}})
            assert code(answer) == "E_FAIL"
            assert "no signals" in answer["ErrorMessage"]
            assert bridge.properties(container.id, "ProcessList")["ProcessList"]


def test_the_policy_survives_the_daemon(runtime: str) -> None:
    with strict_vm(runtime, {"exec_external": {"allowed": False, "reason": "never"}}) as (daemon, _):
        daemon.kill_daemon()
        fresh = daemon.connect()
        settings = {"ProcessParameters": json.dumps({"CommandArgs": ["true"], "Environment": {}})}
        body = {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID, "Settings": settings}
        assert code(fresh.ask(EXECUTE, body)) == "E_FAIL", "a restart must not open the door"
        fresh.close()
