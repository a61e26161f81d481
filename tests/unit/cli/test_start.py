"""The first process: it becomes the monitor, and takes nothing along but what it was given."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from uvmd.cli import gcs, start

Executed = tuple[str, list[str], dict[str, str]]


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[Executed]:
    seen: list[Executed] = []

    def execve(path: str, arguments: list[str], environment: dict[str, str]) -> None:
        seen.append((path, arguments, environment))
        raise SystemExit(0)

    monkeypatch.setattr(os, "execve", execve)
    return seen


@pytest.mark.parametrize(
    ("main", "words", "module", "arguments"),
    [
        (start.main, ["uvmd", "serve", "--log-level", "debug"], "uvmd.daemon", ["--log-level", "debug"]),
        (gcs.main, ["gcs", "-v4"], "uvmd.daemon.gcs", ["-log-format=text", "-v4"]),
    ],
)
def test_the_command_becomes_an_isolated_monitor_with_an_isolated_daemon(
    monkeypatch: pytest.MonkeyPatch,
    executed: list[Executed],
    main: Callable[[], None],
    words: list[str],
    module: str,
    arguments: list[str],
) -> None:
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.delenv("UVMD_MONITOR_SOCKET", raising=False)
    with pytest.raises(SystemExit):
        main()
    ((path, argv, environment),) = executed
    assert path == sys.executable
    assert argv[1:3] == ["-I", "-S"]
    assert argv[3].endswith("/uvmd/monitor/__main__.py")
    assert argv[4:] == ["--", sys.executable, "-I", "-m", module, *arguments]
    assert environment["PYDANTIC_DISABLE_PLUGINS"] == "__all__"
    assert environment["UVMD_STARTED_IN"] == os.getcwd()


@pytest.mark.parametrize(
    ("words", "end"),
    [
        (["monitor"], ["--listen", "/run/uvmd/monitor.sock"]),
        (["monitor", "--listen", "/x"], ["--listen", "/x"]),
        (["serve", "--log-level=debug"], ["-m", "uvmd.daemon", "--log-level=debug"]),
    ],
)
def test_monitor_and_daemon_can_be_two_commands(
    monkeypatch: pytest.MonkeyPatch, executed: list[Executed], words: list[str], end: list[str]
) -> None:
    monkeypatch.setenv("UVMD_MONITOR_SOCKET", "/x")
    monkeypatch.setattr(sys, "argv", ["uvmd", *words])
    with pytest.raises(SystemExit):
        start.main()
    ((path, argv, environment),) = executed
    assert path == argv[0] == sys.executable
    assert argv[1] == "-I"
    assert argv[-len(end) :] == end
    assert ("--" in argv) is False
    assert environment["MALLOC_ARENA_MAX"] == "2"
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.tcache_count=0"


def test_monitor_takes_no_other_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], executed: list[Executed]
) -> None:
    monkeypatch.setattr(sys, "argv", ["uvmd", "monitor", "--lisen", "/x"])
    with pytest.raises(SystemExit) as ended:
        start.main()
    assert ended.value.code == os.EX_USAGE
    assert "--listen PATH" in capsys.readouterr().err
    assert not executed


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (start.main, ["uvmd", "serve", "--help"]),
        (start.main, ["uvmd", "monitor", "--help"]),
        (gcs.main, ["gcs", "-help"]),
    ],
)
def test_help_is_printed_without_starting_anything(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    executed: list[Executed],
    main: Callable[[], None],
    words: list[str],
) -> None:
    monkeypatch.setattr(sys, "argv", words)
    main()
    assert "Usage" in capsys.readouterr().out
    assert not executed
