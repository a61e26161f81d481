"""The part of a start that happens before the monitor hears a word: refusals."""

from __future__ import annotations

import os

import pytest

from uvmd.daemon.serve import MONITOR_FD, MONITOR_SOCKET, run


def test_without_a_monitor_the_daemon_says_how_it_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (MONITOR_FD, MONITOR_SOCKET):
        monkeypatch.delenv(name, raising=False)
    assert run([]) == os.EX_USAGE
    assert "uvmd serve" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [["--no-such-flag"], ["--transport=carrier-pigeon"], ["--log-file=/no/where/log"]]
)
def test_a_wrong_configuration_refuses_the_start_before_the_monitor_is_greeted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    # No such descriptor: a word to the monitor would be an error of another kind.
    monkeypatch.setenv(MONITOR_FD, "9999")
    assert run(flags) == os.EX_CONFIG
    assert capsys.readouterr().err.startswith("uvmd: ")
