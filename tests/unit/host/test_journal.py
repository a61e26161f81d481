"""The journal of the containers: whole at every moment, and of use when there is no room."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from unit.host.fakes import Bench
from uvmd.errors import Failed
from uvmd.host.containers import State
from uvmd.host.journal import Journal


def states(bench: Bench) -> list[str]:
    """What the next daemon would read."""
    return [entry["state"] for entry in Journal(str(bench.run_dir)).containers()]


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def write(fd: int, data: Any) -> int:
        if "/journal/" in os.readlink(f"/proc/self/fd/{fd}"):
            real(fd, bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)


def names(bench: Bench) -> list[str]:
    return sorted(os.listdir(bench.run_dir / "journal"))


def test_an_entry_that_finds_no_room_leaves_the_one_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.create()
    container = bench.ctx.registry.get("c1")
    with monkeypatch.context() as patch:
        fill_disk(patch)
        with pytest.raises(OSError, match=r"No space left on device: '.*/journal/c1.new'"):
            bench.ctx.journal.save(container, state=State.RUNNING)
    assert (names(bench), states(bench)) == (["c1.json"], ["created"])


def test_a_start_that_cannot_be_recorded_does_not_begin(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.create()
    with monkeypatch.context() as patch:
        fill_disk(patch)
        with bench.nothing_changes(), pytest.raises(Failed, match=r"start c1: .*c1.new: No space left"):
            bench.start(stdout=9)
        assert bench.monitor.arguments("connect") == []
    assert bench.start(stdout=9)
    assert (names(bench), states(bench)) == (["c1.json"], ["running"])


def test_once_init_runs_its_record_needs_no_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.create()
    run = bench.monitor.run

    def run_and_fill(argv: Any, **options: Any) -> Any:
        fill_disk(monkeypatch)
        return run(argv, **options)

    bench.monitor.run = run_and_fill  # type: ignore[method-assign]
    assert bench.start()
    assert (names(bench), states(bench)) == (["c1.json"], ["running"])


def test_a_start_in_which_the_daemon_dies_was_not_recorded(bench: Bench) -> None:
    bench.create()
    bench.ctx.journal.prepare(bench.ctx.registry.get("c1"), State.RUNNING)
    assert (states(bench), names(bench)) == (["created"], ["c1.json"])


def test_what_was_saved_meanwhile_counts(bench: Bench) -> None:
    bench.create()
    container, journal = bench.ctx.registry.get("c1"), bench.ctx.journal
    journal.prepare(container, State.RUNNING)
    journal.save(container, state=State.TERMINATED)
    journal.commit("c1")
    assert (names(bench), states(bench)) == (["c1.json"], ["terminated"])
    journal.prepare(container, State.RUNNING)
    journal.drop("c1")
    journal.commit("c1")
    assert (names(bench), states(bench)) == (["c1.json"], ["terminated"])


def test_an_entry_of_a_later_release_is_moved_aside_and_said(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.create()
    path: Path = bench.run_dir / "journal" / "c1.json"
    entry = json.loads(path.read_text())
    path.write_text(json.dumps({**entry, "version": entry["version"] + 1}))
    assert states(bench) == []
    assert names(bench) == ["c1.unreadable"]
    said = f"version {entry['version'] + 1}, known is {entry['version']}"
    assert [line.__dict__["error"] for line in caplog.records] == [said]
