"""The verbs that look, change and end things."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from pathlib import Path
from typing import Any

import click
import pytest

from unit.cli_ctl.conftest import Invoke
from unit.client.fakes import DialingDaemon, FakeDaemon, ends_with, refusal
from uvmd.bridge.identifiers import Message
from uvmd.cli.ctl.app import uvmctl
from uvmd.cli.ctl.lifecycle import signal_number
from uvmd.cli.ctl.ping import quantile
from uvmd.cli.ctl.stats import render
from uvmd.client import NULL_ID

CONTAINER = {
    "id": "web",
    "state": "running",
    "pid": 70,
    "exit_code": None,
    "age_s": 125.0,
    "processes": [{"pid": 80, "exit_code": None, "terminal": True}],
}
METRICS = {
    "cpu": {"usage": {"total": 2_500_000_000}},
    "memory": {"usage": {"usage": 3 << 20, "limit": 64 << 20}},
    "pids": {"current": 4},
}


def serve(daemon: FakeDaemon, **vm: Any) -> None:
    """Let the daemon answer with one container and its figures."""
    ps = {"containers": [CONTAINER], "processes": [], "inconsistent": None, "degraded": None, **vm}
    mounts = [{"target": "/run/mounts/1", "source": "scsi 0:1", "kind": "read-only", "use_count": 2}]

    def properties(body: dict[str, Any]) -> dict[str, Any]:
        (kind,) = json.loads(body["Query"])["PropertyTypes"]
        values = {"uvmd.ps": ps, "uvmd.mounts": mounts}
        if body["ContainerId"] != NULL_ID:
            return {"Properties": json.dumps({"LCOWMetrics": METRICS})}
        return {"Properties": json.dumps({kind: values[kind]})}

    daemon.answers[Message.GET_PROPERTIES] = properties


def test_ps_is_a_table(invoke: Invoke, daemon: FakeDaemon) -> None:
    serve(daemon, processes=[{"pid": 9, "exit_code": None, "terminal": False}], degraded="umount /x")
    result = invoke("ps")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["ID", "STATE", "PID", "EXIT", "EXECS", "AGE"]
    assert lines[1] == ["web", "running", "70", "-", "1", "2m05s"]
    assert lines[-1] == ["9", "-", "no"]
    assert result.stderr == "uvmctl: the VM is degraded: umount /x\n"


def test_ps_for_scripts_is_what_the_daemon_said(invoke: Invoke, daemon: FakeDaemon) -> None:
    serve(daemon)
    assert json.loads(invoke("ps", "--json").stdout)["containers"] == [CONTAINER]


def test_ps_can_print_ids_only(invoke: Invoke, daemon: FakeDaemon) -> None:
    serve(daemon)
    assert invoke("ps", "-q").stdout == "web\n"


def test_an_empty_vm_says_so(invoke: Invoke, daemon: FakeDaemon) -> None:
    serve(daemon, containers=[])
    assert invoke("ps").stdout == "no containers\n"


def test_stats_of_an_empty_vm_say_so(invoke: Invoke, daemon: FakeDaemon) -> None:
    serve(daemon, containers=[])
    assert invoke("stats").stdout == "no containers\n"


def test_mounts_are_a_table(invoke: Invoke, daemon: FakeDaemon) -> None:
    serve(daemon)
    assert "/run/mounts/1  scsi 0:1  read-only  no            2  -        -" in invoke("mounts").stdout


def test_stats_show_all_containers_with_units(invoke: Invoke, daemon: FakeDaemon) -> None:
    serve(daemon)
    lines = invoke("stats").stdout.splitlines()
    assert lines[1].split() == ["web", "-", "2.5", "s", "3.0", "MiB", "64.0", "MiB", "4", "0"]


def test_stats_for_scripts_are_the_daemons_figures(invoke: Invoke, daemon: FakeDaemon) -> None:
    serve(daemon)
    assert json.loads(invoke("stats", "--json", "web").stdout) == {"web": METRICS}


def test_a_share_of_cpu_needs_two_looks() -> None:
    assert "50.0" in render({"web": METRICS}, {"web": 0.5})


def test_stats_of_a_container_that_is_not_there_fail(invoke: Invoke, daemon: FakeDaemon) -> None:
    daemon.answers[Message.GET_PROPERTIES] = lambda _: refusal(0xC037010E, "not known")
    assert invoke("stats", "x").exit_code == 1


def test_stop_waits_for_the_end(invoke: Invoke, daemon: FakeDaemon) -> None:
    serve(daemon)
    daemon.answers[Message.SHUTDOWN_GRACEFUL] = lambda _: daemon.exit(70, 0)
    assert invoke("stop", "web").stdout == "web\n"


def test_kill_uses_the_message_for_the_two_usual_signals(invoke: Invoke, daemon: FakeDaemon) -> None:
    assert invoke("kill", "web").exit_code == 0
    assert daemon.bodies(Message.SHUTDOWN_FORCED)


def test_kill_finds_the_init_for_other_signals(invoke: Invoke, daemon: FakeDaemon) -> None:
    serve(daemon)
    assert invoke("kill", "-s", "HUP", "web").exit_code == 0
    (body,) = daemon.bodies(Message.SIGNAL)
    assert (body["ProcessId"], body["Options"]) == (70, {"Signal": 1})


def test_one_failure_of_many_does_not_stop_the_rest(invoke: Invoke, daemon: FakeDaemon) -> None:
    daemon.answers[Message.DELETE] = lambda body: (
        refusal(0xC037010E, "not known") if body["ContainerId"] == "a" else {}
    )
    result = invoke("rm", "a", "b", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == ["b"]
    assert "a: SYSTEM_NOT_FOUND" in result.stderr


def test_signal_reaches_a_process_of_a_container_or_of_the_vm(invoke: Invoke, daemon: FakeDaemon) -> None:
    assert invoke("signal", "web", "80", "USR1").exit_code == 0
    assert daemon.bodies(Message.SIGNAL)[0]["ContainerId"] == "web"


def test_signal_reaches_a_process_of_the_vm(invoke: Invoke, daemon: FakeDaemon) -> None:
    assert invoke("signal", "--vm", "80", "TERM").exit_code == 0
    (body,) = daemon.bodies(Message.SIGNAL)
    assert (body["ContainerId"], body["Options"]) == (NULL_ID, {"Signal": 15})


@pytest.mark.parametrize(("text", "number"), [("TERM", 15), ("sigkill", 9), ("9", 9), ("USR1", 10)])
def test_a_signal_has_a_name_or_a_number(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["", "0", "32", "NOPE", "-9"])
def test_another_signal_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        signal_number(text)


@pytest.mark.parametrize(
    "words",
    [["signal", "web", "TERM"], ["signal", "web", "x", "TERM"], ["wait", "a", "1", "2"], ["wait", "a", "b"]],
)
def test_words_that_do_not_fit_are_a_wrong_usage(
    invoke: Invoke, daemon: FakeDaemon, words: list[str]
) -> None:
    assert invoke(*words).exit_code == 2


def test_wait_ends_with_the_processs_status(invoke: Invoke, daemon: FakeDaemon) -> None:
    serve(daemon)
    daemon.exit(70, 5)
    result = invoke("wait", "web", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (5, {"pid": 70, "status": 5})


def test_wait_gives_up_with_the_daemons_words(invoke: Invoke, daemon: FakeDaemon) -> None:
    daemon.answers[Message.WAIT] = lambda _: refusal(0xC0370109, "still running")
    result = invoke("wait", "--time", "0.25", "web", "80")
    assert (result.exit_code, result.stderr) == (1, "uvmctl: TIMEOUT (0xC0370109): still running\n")
    assert daemon.bodies(Message.WAIT)[0]["TimeoutInMs"] == 250


def test_create_sends_the_spec_from_stdin(invoke: Invoke, daemon: FakeDaemon) -> None:
    result = invoke("create", "-f", "-", "c1", stdin=b'{"ociVersion": "1.0.2"}')
    assert result.stdout == "c1\n"
    document = json.loads(daemon.bodies(Message.CREATE)[0]["ContainerConfig"])
    assert document["OciSpecification"] == {"ociVersion": "1.0.2"}
    assert document["OciBundlePath"] == "/run/gcs/c/c1"


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
def test_what_is_no_spec_is_refused_before_connecting(invoke: Invoke, content: bytes) -> None:
    result = invoke("--timeout", "0", "create", "-f", "-", "c1", stdin=content)
    assert result.exit_code == 1
    assert "Error: " in result.stderr


def test_start_attaches_on_demand(
    invoke: Invoke, daemon: FakeDaemon, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.program = ends_with(2, b"out\n")
    assert invoke("start", "-a", "c1").exit_code == 2
    assert capfd.readouterr().out == "out\n"


def test_start_alone_prints_the_id(invoke: Invoke, daemon: FakeDaemon) -> None:
    assert invoke("start", "c1").stdout == "c1\n"


def test_events_are_lines(invoke: Invoke, daemon: FakeDaemon) -> None:
    daemon.notify("web", "ForcedExit")
    daemon.notify("web", type_word=0x37F00101)
    result = invoke("events", "-n", "2")
    first, second = result.stdout.splitlines()
    assert first.split()[1:] == ["ForcedExit", "web"]
    assert '"ContainerId": "web"' in second


def test_stacks_are_printed_as_they_are(invoke: Invoke, daemon: FakeDaemon) -> None:
    daemon.answers[Message.DUMP_STACKS] = lambda _: {"GuestStacks": "main:\n  poll\n"}
    assert invoke("stacks").stdout == "main:\n  poll\n"


def test_modify_sends_each_request_in_order(invoke: Invoke, daemon: FakeDaemon, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_text(
        json.dumps([{"ResourceType": "A", "Settings": {}}, {"ResourceType": "B", "RequestType": "Remove"}])
    )
    assert invoke("modify", "-f", str(file), "--id", "web").exit_code == 0
    assert [body["Request"] for body in daemon.bodies(Message.MODIFY)] == [
        {"RequestType": "Add", "ResourceType": "A", "Settings": {}},
        {"RequestType": "Remove", "ResourceType": "B"},
    ]


@pytest.mark.parametrize("content", [b"5", b"[1]", b"{}"])
def test_modify_refuses_what_is_no_request(invoke: Invoke, content: bytes) -> None:
    assert "ResourceType" in invoke("modify", "-f", "-", stdin=content).stderr


def test_modify_of_a_missing_file_is_a_plain_error(invoke: Invoke) -> None:
    assert "cannot read /nowhere" in invoke("modify", "-f", "/nowhere").stderr


def test_raw_prints_any_answer_and_judges_by_its_result(invoke: Invoke, daemon: FakeDaemon) -> None:
    daemon.answers[0x10100E01] = lambda _: refusal(0x80004001, "no handler")
    result = invoke("raw", "0x10100e01", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ErrorMessage"] == "no handler"


def test_raw_sends_a_body_as_it_is(invoke: Invoke, daemon: FakeDaemon) -> None:
    assert invoke("raw", "start", '{"ContainerId":"x"}').exit_code == 0
    assert daemon.bodies(Message.START) == [{"ContainerId": "x"}]


def test_raw_takes_one_body(invoke: Invoke) -> None:
    assert invoke("raw", "start", "{}", "-f", "-").exit_code == 2


def test_ping_sends_as_many_as_asked_for(invoke: Invoke, daemon: FakeDaemon) -> None:
    result = invoke("ping", "-c", "3", "--json")
    figures = json.loads(result.stdout)
    assert figures["count"] == len(daemon.bodies(Message.START)) == 3
    assert figures["min_us"] <= figures["p50_us"] <= figures["p99_us"] <= figures["max_us"]


def test_ping_speaks_to_people(invoke: Invoke, daemon: FakeDaemon) -> None:
    assert invoke("ping", "-c", "2").stdout.startswith("2 round trips: min ")


def test_a_quantile_is_one_of_the_values() -> None:
    assert [quantile([1, 2, 3], part) for part in (0, 0.5, 0.99, 1)] == [1, 2, 3, 3]


def test_host_lets_two_commands_work_at_once(
    invoke: Invoke, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path_factory.mktemp("b") / "b.sock")
    handlers: list[Any] = []
    monkeypatch.setattr("uvmd.cli.ctl.host.signal.signal", lambda _, handler: handlers.append(handler))
    host = threading.Thread(target=run_host, args=(path,))
    host.start()
    dialing = DialingDaemon(path)
    try:
        assert dialing.connected.wait(10)
        wait_for_control(path)
        assert invoke("--host", f"unix:{path}", "ping", "-c", "1").exit_code == 0
        assert invoke("--host", f"unix:{path}", "ping", "-c", "1").exit_code == 0
    finally:
        handlers[0](15, None)
        host.join(10)
        dialing.close()
    assert not list(Path(path).parent.iterdir())


def run_host(path: str) -> None:
    with contextlib.suppress(SystemExit):
        uvmctl.main(["--host", f"unix:{path}", "host"], prog_name="uvmctl")


def wait_for_control(path: str) -> None:
    pause = threading.Event()
    with socket.socket(socket.AF_UNIX) as sock:
        while sock.connect_ex(f"{path}.ctl"):
            pause.wait(0.001)
