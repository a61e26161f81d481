"""Metrics over a real socket and traces to a real collector, with every bad peer that comes to mind."""

from __future__ import annotations

import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from uvmd.api import Span
from uvmd.api.testing import fake_environment
from uvmd.errors import Failed, PolicyDenied
from uvmd_telemetry import listening, otlp
from uvmd_telemetry.config import TelemetryConfig
from uvmd_telemetry.seen import Seen
from uvmd_telemetry.service import Telemetry

WAIT_S = 5.0


class View:
    """A VM with no containers."""

    failure: Exception | None = None
    logging = True

    def properties(self, kinds: object) -> dict[str, object]:
        if self.failure is not None:
            raise self.failure
        return {"uvmd.usage": []}

    def logging_allowed(self) -> bool:
        return self.logging

    def events_dropped(self) -> dict[str, int]:
        return {}


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
def ask(tmp_path: Path, view: View) -> Iterator[Callable[..., str]]:
    """Send bytes to a service that serves metrics; return what comes back."""
    path = str(tmp_path / "metrics")
    service = Telemetry(fake_environment(TelemetryConfig(metrics=f"unix:{path}")), Seen())
    thread = threading.Thread(target=service.start, args=(view,))
    thread.start()

    def asking(request: bytes = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", *, finish: bool = False) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(WAIT_S)
            connection.connect(path)
            connection.sendall(request)
            if finish:
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            while more := connection.recv(65536):
                answer += more
        return answer.decode()

    yield asking
    service.stop()
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_a_scrape_is_answered_and_the_socket_is_its_owner_s(ask: Callable[..., str], tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "metrics").stat().st_mode) == 0o600
    head, body = ask().split("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK")
    assert f"Content-Length: {len(body)}" in head
    assert "uvmd_build_info" in body
    assert ask(b"GET /metrics?x=1 HTTP/1.0\n\n").startswith("HTTP/1.1 200")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"GET / HTTP/1.1\r\n\r\n", "404"),
        (b"hello\r\n\r\n", "400"),
        (b"GET /metrics\r\n\r\n", "400"),
        (b"\xff\xfe \r\n\r\n", "400"),
    ],
)
def test_anything_else_is_told_what_is_wrong(
    ask: Callable[..., str], request_bytes: bytes, status: str
) -> None:
    assert ask(request_bytes).split(" ", 2)[1] == status


def test_a_peer_that_sends_nothing_or_too_much_is_left_and_the_next_is_served(
    ask: Callable[..., str],
) -> None:
    assert ask(b"", finish=True) == ""
    assert ask(b"GET", finish=True) == ""
    try:
        assert ask(b"x" * 20000, finish=True) == ""
    except ConnectionError:
        pass  # it was left before it had sent all
    assert ask().startswith("HTTP/1.1 200")


def test_a_peer_that_says_nothing_does_not_keep_others_out_for_long(
    ask: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "CONNECTION_S", 0.05)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(tmp_path / "metrics"))
        assert ask().startswith("HTTP/1.1 200")


def test_what_the_policy_denies_is_not_told(ask: Callable[..., str], view: View) -> None:
    view.failure = PolicyDenied("no")
    assert ask().startswith("HTTP/1.1 403")
    view.failure = Failed("usage of web: cpu.stat: Input/output error")
    assert "503" in ask().splitlines()[0]


def test_the_socket_of_a_dead_daemon_is_replaced_and_a_living_one_s_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "metrics")
    first = listening.listen(f"unix:{path}")
    with first, pytest.raises(OSError, match="in use"):
        listening.listen(f"unix:{path}")
    listening.listen(f"unix:{path}").close()


def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OSError, match="in use"):
        listening.listen(f"unix:{tmp_path / 'file'}")
    assert (tmp_path / "file").read_text() == "kept"


def test_without_settings_there_is_nothing_to_serve() -> None:
    seen = Seen()
    Telemetry(fake_environment(TelemetryConfig()), seen).start(View())
    assert not seen.keep_spans


def test_stopping_before_starting_ends_it(tmp_path: Path, view: View) -> None:
    service = Telemetry(fake_environment(TelemetryConfig(metrics=f"unix:{tmp_path / 'm'}")), Seen())
    service.stop()
    service.start(view)


# Traces


class Collector:
    """Takes one request a connection and answers it with the next of its answers."""

    def __init__(self, *answers: bytes) -> None:
        self.bodies: list[bytes] = []
        self._answers = list(answers)
        self._threads: list[threading.Thread] = []

    def dial(self, port: int, deadline: float) -> int:
        assert port == 4318
        if not self._answers:
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=self._serve, args=(theirs, self._answers.pop(0)))
        thread.start()
        self._threads.append(thread)
        return ours.detach()

    def _serve(self, connection: socket.socket, answer: bytes) -> None:
        with connection:
            connection.settimeout(WAIT_S)
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            head, body = head.split(b"\r\n\r\n", 1)
            length = next(
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")
            )
            while len(body) < length:
                body += connection.recv(65536)
            self.bodies.append(body)
            connection.sendall(answer)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(WAIT_S)


def sent_to(collector: Collector, view: View, spans: int = 3) -> Seen:
    """Run a service that has some spans to send, once."""
    seen = Seen()
    environment = fake_environment(TelemetryConfig(otlp_port=4318), dial=collector.dial)
    service = Telemetry(environment, seen)
    seen.keep_spans = True
    for number in range(spans):
        seen.span(Span(f"Create{number}", "ab" * 16, "cd" * 8, "", 1, 2))
    service.stop()
    service.start(view)
    collector.join()
    return seen


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def test_spans_are_sent_and_what_is_left_at_the_end_too(view: View) -> None:
    collector = Collector(OK)
    seen = sent_to(collector, view)
    assert (seen.snapshot().spans_sent, seen.snapshot().spans_lost) == (3, 0)
    assert b"Create2" in collector.bodies[0]


def test_many_spans_go_in_batches(view: View) -> None:
    collector = Collector(OK, OK)
    seen = sent_to(collector, view, otlp.BATCH + 1)
    assert len(collector.bodies) == 2
    assert seen.snapshot().spans_sent == otlp.BATCH + 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"HTTP/1.1 503 Later\r\n\r\n",
        b"",
        b"SSH-2.0-x\r\n",
        b"x" * 9000,
        b"HTTP/1.1 x\r\n",
    ],
)
def test_a_collector_that_does_not_take_them_costs_them_and_nothing_else(view: View, answer: bytes) -> None:
    seen = sent_to(Collector(answer), view)
    assert (seen.snapshot().spans_sent, seen.snapshot().spans_lost) == (0, 3)


def test_nobody_listens_is_no_failure_of_the_service(view: View) -> None:
    assert sent_to(Collector(), view).snapshot().spans_lost == 3


def test_nothing_is_sent_until_the_policy_allows_logging(view: View) -> None:
    view.logging = False
    collector = Collector(OK)
    seen = sent_to(collector, view)
    assert (collector.bodies, seen.snapshot().spans_lost) == ([], 3)
