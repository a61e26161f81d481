"""sd_notify: heard where somebody listens, harmless elsewhere."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from uvmd.monitor import notify as notify_room
from uvmd.monitor.notify import keep_pinging, notify, ping_period_s


@pytest.mark.parametrize("abstract", [False, True])
def test_a_listening_manager_hears_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = f"uvmd-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        notify("READY=1")
        manager.settimeout(5)
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "relative", "/does/not/exist"])
def test_nobody_listening_is_no_failure(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


@pytest.mark.parametrize(
    ("environment", "period_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 10),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 10),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
        ({}, None),
    ],
)
def test_the_manager_hears_of_the_process_that_it_asked_and_often_enough(
    environment: dict[str, str], period_s: float | None
) -> None:
    assert ping_period_s(environment) == period_s


def test_each_sign_of_life_sees_to_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(notify_room, "notify", told.append)
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    due: list[tuple[float, Callable[[], None]]] = []
    keep_pinging(lambda delay_s, call: due.append((delay_s, call)))
    for _ in range(2):
        ((delay_s, call),) = due
        assert delay_s == 1
        due.clear()
        call()
    assert told == ["WATCHDOG=1"] * 3
