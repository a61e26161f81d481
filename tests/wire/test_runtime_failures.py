"""A runtime that is missing, fails or hangs: the request is answered, nothing is left."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import specs
from support.containers import new_id, run
from support.daemon import Daemon, running
from support.host import CREATE, DELETE, EXECUTE, SHUTDOWN_FORCED, ZERO_GUID, Connection, code
from support.leaks import Snapshot, assert_nothing_left
from support.matrix import row
from support.misbehaving import HANG, Misbehaving

TIMEOUT_S = 1.5


class Broken:
    """A daemon whose runtime can be told to misbehave."""

    def __init__(self, daemon: Daemon, bridge: Connection, runtime: Misbehaving) -> None:
        self.daemon, self.bridge, self.program = daemon, bridge, runtime.program
        self.at, self.mend = runtime.at, runtime.mend

    def body(self, container_id: str, **fields: object) -> dict[str, object]:
        return {"ContainerId": container_id, "ActivityId": ZERO_GUID, **fields}

    def create(self, container_id: str) -> dict:
        config = self.bridge.host.container_config(container_id, specs.container("/bin/sleep", "60"))
        return self.bridge.ask(CREATE, self.body(container_id, ContainerConfig=config), timeout_s=30)

    def execute(self, container_id: str, process: dict | None = None) -> dict:
        asked = {} if process is None else {"OciProcess": process}
        settings = {"ProcessParameters": json.dumps(asked)}
        return self.bridge.ask(EXECUTE, self.body(container_id, Settings=settings), timeout_s=30)


@pytest.fixture
def broken(runtime: str, tmp_path: Path) -> Iterator[Broken]:
    program = Misbehaving(tmp_path, runtime)
    options = {"runtime-timeout-s": str(TIMEOUT_S)}
    with running(runtime=str(program.program), options=options) as daemon:
        bridge = daemon.connect()
        yield Broken(daemon, bridge, program)
        bridge.close()


def assert_usable(broken: Broken, before: Snapshot) -> None:
    broken.mend()
    assert run(broken.bridge, "/bin/true").exit_code == 0
    assert_nothing_left(broken.daemon, before)


def first_life(broken: Broken) -> Snapshot:
    run(broken.bridge, "/bin/true")
    return Snapshot.take(broken.daemon)


@row("runtime.missing")
def test_a_runtime_that_vanished_is_an_error_of_the_request(broken: Broken) -> None:
    before = first_life(broken)
    aside = broken.program.with_suffix(".aside")
    broken.program.rename(aside)
    answer = broken.create(new_id())
    assert code(answer) == "E_FAIL"
    assert str(broken.program) in answer["ErrorMessage"] or "No such file" in answer["ErrorMessage"]
    aside.rename(broken.program)
    assert_usable(broken, before)


def test_a_runtime_that_never_was_there_is_an_error(tmp_path: Path) -> None:
    with running(runtime=str(tmp_path / "nothing")) as daemon:
        try:
            bridge = daemon.connect(timeout_s=3)
        except AssertionError:
            # Refusing to start is as good, if it says why.
            assert daemon.wait(5) != 0
            assert "nothing" in daemon.log_text()
            return
        config = bridge.host.container_config("c", specs.container("/bin/true"))
        body = {"ContainerId": "c", "ActivityId": ZERO_GUID, "ContainerConfig": config}
        assert code(bridge.ask(CREATE, body)) == "E_FAIL"
        bridge.close()


@row("runtime.fails")
@pytest.mark.parametrize("how", ["fail", "late"])
def test_a_create_that_fails_carries_the_runtimes_last_words(broken: Broken, how: str) -> None:
    before = first_life(broken)
    broken.at("create", how)
    container_id = new_id()
    answer = broken.create(container_id)
    assert code(answer) == "E_FAIL"
    assert ("broken on purpose" if how == "fail" else "after the deed") in answer["ErrorMessage"]
    assert code(broken.bridge.ask(DELETE, broken.body(container_id))) == "SYSTEM_NOT_FOUND"
    assert_usable(broken, before)


@row("runtime.hangs")
def test_words_said_before_there_is_a_log_reach_the_host(broken: Broken) -> None:
    broken.at("create", "early")
    answer = broken.create(new_id())
    assert code(answer) == "E_FAIL"
    assert "too early for a log" in answer["ErrorMessage"]


def test_a_create_that_hangs_is_killed_at_its_deadline(broken: Broken) -> None:
    before = first_life(broken)
    broken.at("create", "hang")
    started = time.monotonic()
    answer = broken.create(new_id())
    assert code(answer) == "E_FAIL"
    assert TIMEOUT_S <= time.monotonic() - started < TIMEOUT_S + 5
    assert_usable(broken, before)


@pytest.mark.parametrize("how", ["fail", "hang"])
def test_a_start_that_fails_leaves_a_container_that_can_be_deleted(broken: Broken, how: str) -> None:
    before = first_life(broken)
    container_id = new_id()
    assert code(broken.create(container_id)) == "S_OK"
    broken.at("start", how)
    assert code(broken.execute(container_id)) == "E_FAIL"
    broken.mend()
    broken.bridge.delete(container_id)
    assert_usable(broken, before)


@pytest.mark.parametrize("how", ["fail", "hang"])
def test_an_exec_that_fails_leaves_its_container_running(broken: Broken, how: str) -> None:
    before = first_life(broken)
    container_id = new_id()
    broken.create(container_id)
    pid = broken.execute(container_id)["ProcessId"]
    broken.at("exec", how)
    answer = broken.execute(container_id, specs.process("/bin/true"))
    assert code(answer) == "E_FAIL"
    broken.mend()
    good = broken.execute(container_id, specs.process("/bin/true"))
    assert broken.bridge.wait(container_id, good["ProcessId"]) == 0
    broken.bridge.signal(container_id, pid, 9)
    assert broken.bridge.wait(container_id, pid) == 137
    broken.bridge.delete(container_id)
    assert_usable(broken, before)


@row("delete.runtime-fails")
@pytest.mark.parametrize("how", ["fail", "hang"])
def test_a_delete_that_fails_forgets_the_container_and_says_why(broken: Broken, how: str) -> None:
    container_id = new_id()
    broken.create(container_id)
    pid = broken.execute(container_id)["ProcessId"]
    broken.bridge.signal(container_id, pid, 9)
    broken.bridge.wait(container_id, pid)
    broken.at("delete", how)
    answer = broken.bridge.ask(DELETE, broken.body(container_id), timeout_s=30)
    assert code(answer) == "E_FAIL"
    broken.mend()
    # Spec containers.md 11.9 step 10: whatever happened, the record is gone.
    assert code(broken.bridge.ask(DELETE, broken.body(container_id))) == "SYSTEM_NOT_FOUND"


def test_a_hanging_runtime_holds_up_nobody_else(broken: Broken) -> None:
    container_id = new_id()
    broken.create(container_id)
    pid = broken.execute(container_id)["ProcessId"]
    broken.at("exec", "hang")
    settings = {"ProcessParameters": json.dumps({"OciProcess": specs.process("/bin/true")})}
    stuck = broken.bridge.send(EXECUTE, broken.body(container_id, Settings=settings))
    started = time.monotonic()
    assert "LCOWMetrics" in broken.bridge.properties(container_id, "Statistics")
    assert time.monotonic() - started < 1
    assert code(broken.bridge.answer(stuck)) == "E_FAIL"
    broken.mend()
    assert code(broken.bridge.ask(SHUTDOWN_FORCED, broken.body(container_id))) == "S_OK"
    assert broken.bridge.wait(container_id, pid) == 137
    broken.bridge.delete(container_id)


def test_nothing_of_a_hung_runtime_survives(broken: Broken) -> None:
    broken.at("create", "hang")
    answer = broken.create(new_id())
    assert code(answer) == "E_FAIL"
    assert [
        entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and _arguments(entry) == HANG
    ] == []


def _arguments(entry: Path) -> tuple[str, ...]:
    try:
        return tuple((entry / "cmdline").read_text(errors="replace").split("\0")[:-1])
    except OSError:
        return ()
