"""The runtime driver: command lines, last words, what they mean, and what is left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.errors import (
    ContainerExists,
    ContainerNotFound,
    ContainerStopped,
    DeadlineExceeded,
    InvalidContainerId,
    InvalidState,
    RuntimeFailed,
    UvmdError,
)
from uvmd.oci.runtime import OciRuntime, find_program
from uvmd.oci.runtime_log import last_error, runtime_error


@dataclass(frozen=True)
class Finished:
    status: int = 0
    timed_out: bool = False
    output: bytes = b""
    pid: int = 77


@dataclass
class Runner:
    finished: Finished = Finished()
    log: str = ""
    error: OSError | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)

    def run(self, argv: Sequence[str], **options: Any) -> Finished:
        self.calls.append({"argv": list(argv), **options})
        Path(argv[2]).write_text(self.log)
        if options.get("pid_file"):
            Path(options["pid_file"]).write_text("77")
        if self.error is not None:
            raise self.error
        return self.finished


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
def runtime(tmp_path: Path, runner: Runner) -> OciRuntime:
    return make(tmp_path, runner)


def make(tmp_path: Path, runner: Runner, *, no_pivot: bool = False, name: str = "") -> OciRuntime:
    (tmp_path / "bin").mkdir(exist_ok=True)
    program = tmp_path / "bin" / "crun"
    program.write_text("")
    program.chmod(0o755)
    (tmp_path / "c1").mkdir(exist_ok=True)
    return OciRuntime(
        runner, name=name, work=str(tmp_path), no_pivot=no_pivot, timeout_s=3, path=f"{tmp_path}/bin"
    )


def words(runner: Runner) -> list[str]:
    """The last call's command line from the command on."""
    found: list[str] = runner.calls[-1]["argv"][5:]
    return found


def test_commands_are_those_of_both_runtimes(tmp_path: Path, runtime: OciRuntime, runner: Runner) -> None:
    assert runtime.create("c1", "/b", slot=4, console_socket="") == 77
    assert words(runner) == ["create", "-b", "/b", "--pid-file", f"{tmp_path}/c1/4.pid", "c1"]
    runtime.exec("c1", "/p.json", slot=5, console_socket="/s")
    assert words(runner) == [
        "exec", "-d", "--process", "/p.json", "--pid-file", f"{tmp_path}/c1/5.pid", "--console-socket", "/s",
        "c1",
    ]  # fmt: skip
    runtime.start("c1")
    assert words(runner) == ["start", "c1"]
    runtime.delete("c1")
    assert words(runner) == ["delete", "c1"]
    runtime.delete("c1", force=True)
    assert words(runner) == ["delete", "--force", "c1"]
    runtime.update("c1", b"{}")
    assert words(runner) == ["update", "--resources", "-", "c1"]
    assert runner.calls[-1]["stdin"] == b"{}"
    assert sorted(os.listdir(tmp_path / "c1")) == ["4.pid", "5.pid"]


def test_on_an_initial_ramfs_the_root_cannot_be_pivoted(tmp_path: Path, runner: Runner) -> None:
    make(tmp_path, runner, no_pivot=True).create("c1", "/b", slot=4, console_socket="")
    assert "--no-pivot" in words(runner)


def test_each_call_has_a_log_of_its_own_and_a_clean_environment(runtime: OciRuntime, runner: Runner) -> None:
    runtime.start("c1")
    runtime.start("c1")
    logs = {call["argv"][2] for call in runner.calls}
    assert len(logs) == 2
    assert all(set(call["env"]) == {"PATH"} for call in runner.calls)
    assert all(call["deadline_s"] == 3 for call in runner.calls)


def test_a_failed_call_tells_the_runtime_s_last_words(
    tmp_path: Path, runtime: OciRuntime, runner: Runner
) -> None:
    runner.finished = Finished(1, output=b"noise\nlast line\n")
    with pytest.raises(RuntimeFailed, match="last line"):
        runtime.start("c1")
    runner.log = (
        '{"level":"error","msg":"first"}\n{"level":"error","msg":"second"}\n{"level":"info","msg":"x"}\n'
    )
    with pytest.raises(RuntimeFailed, match="second"):
        runtime.start("c1")
    runner.finished, runner.log = Finished(3), ""
    with pytest.raises(RuntimeFailed, match="exit status 3"):
        runtime.start("c1")
    runner.finished = Finished(-11)
    with pytest.raises(RuntimeFailed, match="signal 11"):
        runtime.start("c1")
    assert os.listdir(tmp_path / "c1") == []


def test_a_call_that_hangs_is_killed_and_said(runtime: OciRuntime, runner: Runner) -> None:
    runner.finished = Finished(-9, timed_out=True)
    with pytest.raises(DeadlineExceeded, match="killed after 3 s"):
        runtime.start("c1")


def test_a_program_that_cannot_be_run_is_said(tmp_path: Path, runtime: OciRuntime, runner: Runner) -> None:
    runner.error = OSError(13, "Permission denied")
    with pytest.raises(RuntimeFailed, match="Permission denied"):
        runtime.create("c1", "/b", slot=1, console_socket="")
    assert os.listdir(tmp_path / "c1") == ["1.pid"]


def test_a_missing_runtime_is_looked_for_again(tmp_path: Path, runtime: OciRuntime, runner: Runner) -> None:
    os.rename(tmp_path / "bin" / "crun", tmp_path / "bin" / "x")
    with pytest.raises(RuntimeFailed, match="tried crun and runc"):
        runtime.start("c1")
    os.rename(tmp_path / "bin" / "x", tmp_path / "bin" / "runc")
    runtime.start("c1")
    assert runtime.program == f"{tmp_path}/bin/runc"


def test_the_status_is_read_and_none_for_the_unknown(runtime: OciRuntime, runner: Runner) -> None:
    runner.finished = Finished(output=b'{"status": "running"}')
    assert runtime.status("c1") == "running"
    runner.finished = Finished(output=b"nonsense")
    with pytest.raises(RuntimeFailed, match="cannot be read"):
        runtime.status("c1")
    runner.finished = Finished(1, output=b"container does not exist")
    assert runtime.status("c1") is None


def test_programs_are_found_by_name_or_path(tmp_path: Path, runtime: OciRuntime) -> None:
    path = f"{tmp_path}/nowhere:relative::{tmp_path}/bin"
    assert find_program("crun", path) == f"{tmp_path}/bin/crun"
    assert find_program("bin", str(tmp_path)) is None
    assert find_program("nope", path) is None
    assert find_program(f"{tmp_path}/bin/crun", "") == f"{tmp_path}/bin/crun"
    assert find_program("/nope", "") is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("container does not exist", ContainerNotFound),
        ("exec failed: container does not exist", ContainerNotFound),
        ('container "x" does not exist', ContainerNotFound),
        ("error opening file `/run/crun/x/status`: No such file or directory", ContainerNotFound),
        ("runc create failed: container with given ID already exists", ContainerExists),
        ("container with id exists: x", ContainerExists),
        ("container `x` already exists", ContainerExists),
        ("runc create failed: invalid container ID format", InvalidContainerId),
        ("invalid id format: x", InvalidContainerId),
        ("cannot delete container x that is not stopped: running", InvalidState),
        ("container still running", InvalidState),
        ("the container `x` is not in `created` or `stopped` state", InvalidState),
        ("container not running", ContainerStopped),
        ("the container `x` is not running", ContainerStopped),
        ("executable file `/x` not found in $PATH: No such file or directory", RuntimeFailed),
        ("namespace does not exist", RuntimeFailed),
        ("", RuntimeFailed),
    ],
)
def test_last_words_have_a_meaning(text: str, kind: type[UvmdError]) -> None:
    error = runtime_error("crun start x", text)
    assert type(error) is kind
    assert str(error) == f"crun start x: {text}"


@pytest.mark.parametrize(
    ("log", "found"),
    [
        ("", ""),
        ('{"level":"warning","msg":"w"}', ""),
        ('{"level":"error","msg":"m","error":"why"}', "m: why"),
        ('{"level":"fatal","msg":"f"}\nnot json\n{"level":"panic","msg":"p"}\n{', "p"),
        ('time="x" level=error msg="a \\"b\\" c"', 'a "b" c'),
        ("time=x level=error msg=short", "short"),
        ('{"level":"error","msg":5}', "5"),
        ('{"level":"error"}', ""),
        ("[]\n5\nnull", ""),
    ],
)
def test_logs_of_every_make_are_read(log: str, found: str) -> None:
    assert last_error(log) == found


@given(st.text(max_size=300), st.text(max_size=100))
def test_any_text_is_taken_for_a_log(log: str, output: str) -> None:
    assert len(last_error(log, output)) <= 2048
