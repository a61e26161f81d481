"""Telemetry in the real daemon: a scrape while containers run, traces to a collector on the host (root)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.containers import created, shell
from support.daemon import Daemon, running, wait_until
from support.host import DELETE, NULL_ID, ZERO_GUID, Connection, Refused
from support.strict import strict_vm

pytestmark = [pytest.mark.root, pytest.mark.system]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "uvmd.toml"
    metrics = f'metrics = "unix:{tmp_path / "m"}"'
    file.write_text(f"[plugin.telemetry]\n{metrics}\notlp_port = 4318\notlp_interval_s = 0.1\n")
    return file


@pytest.fixture
def daemon(settings: Path) -> Iterator[Daemon]:
    with running(options={"config": str(settings)}) as started:
        yield started


@pytest.fixture
def bridge(daemon: Daemon) -> Iterator[Connection]:
    connection = daemon.connect()
    yield connection
    connection.close()


def scrape(path: Path) -> tuple[int, str]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        answer = b""
        while more := connection.recv(65536):
            answer += more
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split(" ")[1]), body


def first_scrape(path: Path) -> tuple[int, str]:
    """The socket's file is there before anybody listens, and may be that of a daemon that is gone."""

    def answer() -> tuple[int, str] | None:
        with contextlib.suppress(OSError, IndexError):  # IndexError: ended without an answer
            return scrape(path)
        return None

    told: tuple[int, str] = wait_until(answer, 20, "metrics")
    return told


def values(page: str, name: str) -> dict[str, float]:
    """The samples of a metric by their container, or request."""
    return {
        one.labels.get("container") or one.labels.get("request", ""): one.value
        for family in text_string_to_metric_families(page)
        for one in family.samples
        if one.name == name
    }


def test_a_scrape_shows_what_runs_and_what_was_asked(bridge: Connection, tmp_path: Path) -> None:
    assert first_scrape(tmp_path / "m")[0] == 200
    with created(bridge, *shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 60")) as container:
        container.init()

        def has_worked() -> bool:
            used = values(scrape(tmp_path / "m")[1], "uvmd_container_cpu_seconds_total")
            return used.get(container.id, 0) > 0.001

        wait_until(has_worked, what="CPU time")
        status, page = scrape(tmp_path / "m")
        assert status == 200
        assert values(page, "uvmd_container_processes")[container.id] >= 1
        assert values(page, "uvmd_container_memory_bytes")[container.id] > 4096
        assert values(page, "uvmd_request_duration_seconds_count")
        # The host's own view by the property says the same.
        (row,) = bridge.properties(NULL_ID, "uvmd.usage")["uvmd.usage"]
        assert (row["id"], row["state"]) == (container.id, "running")
    assert values(scrape(tmp_path / "m")[1], "uvmd_container_processes") == {}


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_files_that_a_look_has_opened_go_with_the_container(runtime: str) -> None:
    def opened(daemon: Daemon) -> list[str]:
        folder = Path(f"/proc/{daemon.daemon_pid}/fd")
        links = [os.readlink(one) for one in folder.iterdir() if one.is_symlink()]
        return [link for link in links if daemon.pods in link]

    with running(runtime=runtime) as daemon:
        bridge = daemon.connect()
        with created(bridge, "/bin/sleep", "60") as container:
            container.init()
            assert bridge.properties(NULL_ID, "uvmd.usage")["uvmd.usage"][0]["processes"] == 1
            assert len(opened(daemon)) >= 5  # six, where every controller is there
            groups = {os.path.dirname(path) for path in opened(daemon)}
            assert all(os.path.isdir(group) for group in groups)
        assert opened(daemon) == []
        assert not any(os.path.exists(group) for group in groups)
        bridge.close()


def test_a_killed_daemon_s_successor_serves_metrics_again(
    daemon: Daemon, bridge: Connection, tmp_path: Path
) -> None:
    assert first_scrape(tmp_path / "m")[0] == 200
    daemon.kill_daemon()
    again = daemon.connect()
    assert first_scrape(tmp_path / "m")[0] == 200
    again.close()


def test_where_the_time_of_a_container_went_can_be_asked_for(bridge: Connection) -> None:
    activity = "6f1c2a90-5d1b-4f0e-8a63-0d9a4b9f2c11"

    def traces(of: str = "") -> dict[str, Any]:
        kind = f"uvmd.traces:{of}" if of else "uvmd.traces"
        told: dict[str, Any] = bridge.properties(NULL_ID, kind)[kind]
        return told

    with created(bridge, *shell("exit 3 # s3cr3t")) as container:
        container.init()
        bridge.wait_for_notification(container.id, timeout_s=10)
    bridge.ask(DELETE, {"ContainerId": "nobody", "ActivityId": activity})
    wait_until(lambda: traces(activity)["requests"], what="the newest request")
    listed = [(one["name"], one["container"], bool(one["error"])) for one in traces()["requests"]]
    assert listed[-1] == ("delete", "nobody", True)
    assert ("create", container.id, False) in listed
    (create,) = [one for one in traces()["requests"] if one["name"] == "create"]
    (told,) = traces(create["id"][:12])["requests"]
    steps = {name: (depth, begin, took) for name, depth, begin, took, _ in told["steps"]}
    assert steps.keys() >= {"queue", "plan", "policy create_container", "bundle", "monitor run", "answer"}
    assert steps["policy create_container"][0] == steps["plan"][0] + 1
    _, begin, took = steps["runtime create"]
    assert 0 < begin < begin + took < told["duration_ns"]
    assert "s3cr3t" not in json.dumps(traces(create["id"]))
    assert traces("f" * 32)["requests"] == []


def test_a_closed_door_keeps_traces_too(settings: Path) -> None:
    with running(options={"config": str(settings), "vm-stance": "deny"}) as daemon:
        bridge = daemon.connect()
        with pytest.raises(Refused, match="denied"):
            bridge.properties(NULL_ID, "uvmd.traces")
        bridge.close()


def test_a_closed_door_keeps_metrics_too(settings: Path, tmp_path: Path) -> None:
    with running(options={"config": str(settings), "vm-stance": "deny"}) as daemon:
        bridge = daemon.connect()
        assert first_scrape(tmp_path / "m")[0] == 403
        bridge.close()


def test_requests_become_spans_of_the_hosts_trace(daemon: Daemon, bridge: Connection) -> None:
    bodies: list[bytes] = []
    ending = threading.Event()

    def collect() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{daemon.host.path}_4318")
            listener.listen()
            listener.settimeout(0.1)
            while not ending.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(5)
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += connection.recv(65536)
                    head, _, body = head.partition(b"\r\n\r\n")
                    length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
                    while len(body) < length:
                        body += connection.recv(65536)
                    bodies.append(body)
                    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    collector = threading.Thread(target=collect)
    collector.start()

    def spans() -> list[dict[str, object]]:
        if not bodies:
            ask()
        told = [json.loads(body)["resourceSpans"][0]["scopeSpans"][0]["spans"] for body in bodies]
        return [one for batch in told for one in batch if one["traceId"] == TRACE]

    def ask() -> None:
        carrier = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        assert bridge.ask(DELETE, {"ContainerId": "nobody", "ActivityId": ZERO_GUID, "otsc": carrier})[
            "Result"
        ]

    try:
        (first, *_) = wait_until(spans, what="a span of the host's trace")
    finally:
        ending.set()
        collector.join(10)
    assert first["parentSpanId"] == PARENT
    # Its steps come with it: the policy was asked, and each is below the request or below another step.
    ours = spans()
    ids = {one["spanId"] for one in ours}
    assert {one["name"] for one in ours} >= {"delete", "queue", "decode body", "answer"}
    assert {one["parentSpanId"] for one in ours} <= ids | {PARENT}
    assert first["status"]["code"] == 2  # type: ignore[index]
    assert {"key": "uvmd.container", "value": {"stringValue": "nobody"}} in first["attributes"]  # type: ignore[operator]


@pytest.mark.parametrize("point", ["get_properties", "runtime_logging"])
def test_a_policy_that_allows_no_properties_or_no_logging_allows_no_traces(point: str) -> None:
    with strict_vm("crun", {}) as (_, bridge):
        assert bridge.properties(NULL_ID, "uvmd.traces")["uvmd.traces"]["kept_requests"]
    with strict_vm("crun", {point: {"allowed": False, "reason": "because of this"}}) as (_, bridge):
        with pytest.raises(Refused, match=r"because of this|allows no logging"):
            bridge.properties(NULL_ID, "uvmd.traces")
