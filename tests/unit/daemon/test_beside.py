"""Services of plugins: started, started again, stopped; none can hold the daemon up."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from uvmd.api.services import VmView
from uvmd.daemon.beside import Beside, View

WAIT_S = 5.0


class Lamp:
    """Serves until it is stopped; fails as often as the test says."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.started: list[VmView] = []
        self.serving = threading.Event()
        self.ending = threading.Event()

    def __call__(self) -> Lamp:
        return self

    def start(self, view: VmView) -> None:
        self.started.append(view)
        if self.failures:
            self.failures -= 1
            raise OSError("no bulb")
        self.serving.set()
        self.ending.wait(WAIT_S)

    def stop(self) -> None:
        self.ending.set()


def view() -> View:
    return View(lambda kinds: dict.fromkeys(kinds), lambda: True, dict)


def running(*lamps: Callable[[], Lamp]) -> Beside:
    beside = Beside({f"lamp-{at}": lamp for at, lamp in enumerate(lamps)}, view(), first_pause_s=0.001)
    beside.start()
    return beside


def test_each_service_is_started_with_the_view_and_stopped() -> None:
    lamps = Lamp(), Lamp()
    beside = running(*lamps)
    for lamp in lamps:
        assert lamp.serving.wait(WAIT_S)
        assert lamp.started[0].properties(["uvmd.ps"]) == {"uvmd.ps": None}
        assert lamp.started[0].logging_allowed()
        assert lamp.started[0].events_dropped() == {}
    beside.stop()
    assert not any(thread.is_alive() for thread in beside._threads)


def test_a_service_that_fails_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    lamp = Lamp(failures=3)
    beside = running(lamp)
    assert lamp.serving.wait(WAIT_S)
    assert len(lamp.started) == 4
    beside.stop()
    pauses = [record.pause_s for record in caplog.records]  # type: ignore[attr-defined]
    assert pauses == [0.001, 0.002, 0.004]
    assert "no bulb" not in caplog.text


def test_one_that_cannot_be_made_does_not_keep_the_others_from_serving() -> None:
    def broken() -> Lamp:
        raise ImportError("no such thing")

    lamp = Lamp()
    beside = running(broken, lamp)
    assert lamp.serving.wait(WAIT_S)
    beside.stop()


def test_one_that_returns_has_nothing_to_serve() -> None:
    lamp = Lamp()
    lamp.ending.set()
    beside = running(lamp)
    beside._threads[0].join(WAIT_S)
    assert len(lamp.started) == 1
    beside.stop()


def test_one_that_does_not_stop_is_left_behind() -> None:
    class Deaf(Lamp):
        def stop(self) -> None:
            raise RuntimeError("not now")

    deaf = Deaf()
    now = [0.0]
    beside = Beside({"deaf": deaf}, view(), clock=lambda: now[0])
    beside.start()
    assert deaf.serving.wait(WAIT_S)
    now[0] = 100.0
    stopping = threading.Thread(target=beside.stop)
    stopping.start()
    stopping.join(WAIT_S)
    assert not stopping.is_alive()
    deaf.ending.set()
