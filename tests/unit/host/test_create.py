"""Creating a container: checks and the question come first, a failure leaves nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from unit.host.fakes import Bench, Finished, container_spec
from uvmd.api.policy import Decision
from uvmd.errors import (
    ContainerExists,
    ContainerNotFound,
    DeadlineExceeded,
    Failed,
    Inconsistent,
    InvalidContainerId,
    InvalidMessage,
    PolicyDenied,
    Refused,
    RuntimeFailed,
    UvmdError,
)
from uvmd.host.containers import State
from uvmd.host.operations import bundle, create, places, runtime_undo
from uvmd.host.requests import NULL_ID

__all__ = ["bundle", "create", "places", "runtime_undo"]

STRICT_ID = "ab" * 32


def test_a_created_container_has_a_record_a_journal_entry_and_a_config(bench: Bench) -> None:
    bench.create()
    container = bench.ctx.registry.get("c1")
    assert container.state is State.CREATED
    assert container.init is not None
    assert container.init.pid == bench.monitor.last_pid
    assert os.listdir(bench.run_dir / "journal") == ["c1.json"]
    assert stat.S_IMODE(os.stat(bench.run_dir / "journal" / "c1.json").st_mode) == 0o600
    assert stat.S_IMODE(os.stat(bench.bundle("c1")).st_mode) == 0o755
    config = bench.config()
    assert config["linux"]["cgroupsPath"] == "/pods/c1"
    assert "windows" not in config
    assert os.listdir(bench.run_dir / "containers" / "c1") == []


def test_the_runtime_is_asked_to_create_with_a_log_of_its_own(bench: Bench) -> None:
    bench.create()
    (call,) = bench.monitor.arguments("runtime create")
    work = f"{bench.run_dir}/containers/c1"
    assert call["argv"] == [
        str(bench.program), "--log", f"{work}/{os.getpid()}-0.log", "--log-format", "json", "create",
        "-b", str(bench.bundle("c1")), "--pid-file", f"{work}/1.pid", "c1",
    ]  # fmt: skip
    assert call["slot"] == 1
    assert call["pid_file"] == f"{work}/1.pid"


def test_a_terminal_gets_a_console_socket(bench: Bench) -> None:
    spec = container_spec()
    spec["process"]["terminal"] = True
    bench.create(spec=spec)
    socket = f"{bench.run_dir}/console/1"
    assert bench.monitor.arguments("open_slot") == [(1, True, socket)]
    assert socket in bench.monitor.arguments("runtime create")[0]["argv"]


STEPS = [
    ("open_slot", OSError(24, "Too many open files"), Failed),
    ("runtime create", OSError(2, "No such file or directory"), RuntimeFailed),
]


@pytest.mark.parametrize(("step", "error", "expected"), STEPS)
def test_a_step_that_fails_leaves_nothing(
    bench: Bench, step: str, error: BaseException, expected: type[UvmdError]
) -> None:
    bench.monitor.failures[step] = error
    with bench.nothing_changes(), pytest.raises(expected):
        bench.create()
    bench.monitor.failures.clear()
    bench.create()  # the id is free


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(
    ("finished", "log", "expected"),
    [
        (Finished(1), '{"level":"error","msg":"boom"}\n', RuntimeFailed),
        (Finished(-9, timed_out=True), "", DeadlineExceeded),
        (Finished(1), '{"level":"error","msg":"container `c1` already exists"}\n', ContainerExists),
        (Finished(1), "", RuntimeFailed),
    ],
)
def test_a_runtime_that_fails_leaves_nothing(
    bench: Bench, finished: Finished, log: str, expected: type[UvmdError], existing: bool
) -> None:
    if existing:
        bench.bundle("c1").mkdir()
        (bench.bundle("c1") / "rootfs").mkdir()
        (bench.bundle("c1") / "config.json").write_text("theirs")
    bench.monitor.outcomes["runtime create"] = (finished, log)
    with bench.nothing_changes(), pytest.raises(expected) as caught:
        bench.create()
    if log:
        assert "boom" in str(caught.value) or "exists" in str(caught.value)
    if existing:
        assert (bench.bundle("c1") / "config.json").read_text() == "theirs"


def test_a_failure_after_the_runtime_has_created_kills_and_deletes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saved = bench.ctx.journal.save, []

    def failing(container: Any, **options: Any) -> None:
        saved.append(container.state)
        if len(saved) == 2:
            raise OSError(28, "No space left on device")
        save(container, **options)

    monkeypatch.setattr(type(bench.ctx.journal), "save", staticmethod(failing))
    with bench.nothing_changes(), pytest.raises(Failed):
        bench.create()
    assert "--force" in bench.monitor.arguments("runtime delete")[0]["argv"]
    assert bench.monitor.arguments("kill") == [(1, 9)]
    assert bench.told == []  # the host never heard of this container


def test_a_failed_create_removes_its_cgroup(bench: Bench) -> None:
    group = bench.cgroup_top / "pods" / "c1" / "inner"
    group.mkdir(parents=True)
    bench.monitor.outcomes["runtime create"] = (Finished(1), "")
    with pytest.raises(RuntimeFailed):
        bench.create()
    assert os.listdir(bench.cgroup_top / "pods") == []


def test_an_undo_that_fails_is_marked_and_the_first_error_is_raised(bench: Bench) -> None:
    bench.monitor.outcomes["runtime create"] = (Finished(1), '{"level":"error","msg":"boom"}\n')
    bench.monitor.outcomes["runtime delete"] = (Finished(1), '{"level":"error","msg":"no way"}\n')
    with pytest.raises(RuntimeFailed, match="boom"):
        bench.create()
    assert bench.gate.degraded is not None
    assert "no way" in bench.gate.degraded
    with pytest.raises(ContainerNotFound):
        bench.ctx.registry.get("c1")


def test_a_missing_runtime_is_said_and_leaves_nothing(bench: Bench) -> None:
    bench.program.unlink()
    with bench.nothing_changes(), pytest.raises(RuntimeFailed, match="no OCI runtime"):
        bench.create()


def test_a_denial_comes_before_anything_is_made(bench: Bench) -> None:
    bench.gate.denied.add("create_container")
    with (
        bench.nothing_changes(),
        pytest.raises(PolicyDenied, match="container creation denied due to policy: no"),
    ):
        bench.create()
    assert bench.monitor.calls == []


def test_an_id_in_use_is_refused(bench: Bench) -> None:
    bench.create()
    with bench.nothing_changes(), pytest.raises(ContainerExists):
        bench.create()


@pytest.mark.parametrize(
    "bad", ["", ".", "..", "a/b", "-a", ".a", "a..b", "a b", "a\n", "x" * 129, NULL_ID, "ä"]
)
def test_an_id_that_is_no_safe_name_is_refused(bench: Bench, bad: str) -> None:
    with bench.nothing_changes(), pytest.raises(InvalidContainerId):
        create.create(
            bench.ctx, bad, bundle_path=f"{bench.roots}/b", scratch="", spec=container_spec(), activity_id=""
        )


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "relative",
        "/etc",
        "ROOT",
        "ROOT/",
        "ROOT/../x",
        "ROOT/a/./b",
        "ROOT//a",
        "ROOTx/a",
        "ROOT/a\0",
    ],
)
@pytest.mark.parametrize("which", ["bundle_path", "scratch"])
def test_a_path_outside_of_the_roots_is_refused(bench: Bench, path: str, which: str) -> None:
    if which == "scratch" and not path:
        return  # no scratch directory is fine
    arguments = {
        "bundle_path": f"{bench.roots}/c1",
        "scratch": "",
        which: path.replace("ROOT", str(bench.roots)),
    }
    with bench.nothing_changes(), pytest.raises(Refused):
        create.create(bench.ctx, "c1", spec=container_spec(), activity_id="", **arguments)


@pytest.mark.parametrize("which", ["bundle", "scratch"])
def test_a_symlink_on_the_way_is_refused(bench: Bench, tmp_path: Path, which: str) -> None:
    (tmp_path / "elsewhere" / "x").mkdir(parents=True)
    (bench.roots / "link").symlink_to(tmp_path / "elsewhere")
    through = f"{bench.roots}/link/x"
    with bench.nothing_changes(), pytest.raises(Failed):
        create.create(
            bench.ctx,
            "c1",
            bundle_path=through if which == "bundle" else f"{bench.roots}/c1",
            scratch=through if which == "scratch" else "",
            spec=container_spec(),
            activity_id="",
        )
    assert os.listdir(tmp_path / "elsewhere" / "x") == []


def test_a_config_that_is_a_symlink_is_not_written_through(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep")
    bench.bundle("c1").mkdir()
    (bench.bundle("c1") / "config.json").symlink_to(tmp_path / "precious")
    bench.create()
    assert (tmp_path / "precious").read_text() == "keep"
    assert bench.config()["ociVersion"] == "1.0.2"


@pytest.mark.parametrize("part", ["process", "root", "linux"])
@pytest.mark.parametrize("how", ["missing", "null", "wrong"])
def test_a_part_that_is_missing_or_wrong_is_named(bench: Bench, part: str, how: str) -> None:
    spec = container_spec()
    if how == "missing":
        del spec[part]
    else:
        spec[part] = None if how == "null" else 7
    with bench.nothing_changes(), pytest.raises(InvalidMessage, match=f"OciSpecification.{part}"):
        bench.create(spec=spec)


@pytest.mark.parametrize("spec", [None, 5, [], "x"])
def test_a_specification_that_is_none_is_refused(bench: Bench, spec: Any) -> None:
    with bench.nothing_changes(), pytest.raises(InvalidMessage, match="OciSpecification"):
        create.create(bench.ctx, "c1", bundle_path=f"{bench.roots}/c1", scratch="", spec=spec, activity_id="")


def test_what_the_policy_keeps_is_what_runs(bench: Bench) -> None:
    bench.gate.answers["create_container"] = Decision(
        True, env=["K=1"], capabilities={"bounding": ["CAP_KILL"]}
    )
    bench.create()
    process = bench.config()["process"]
    assert process["env"] == ["K=1"]
    assert process["capabilities"] == {"bounding": ["CAP_KILL"]}


def test_denied_stdio_discards_the_streams(bench: Bench) -> None:
    bench.gate.answers["create_container"] = Decision(True, stdio=False)
    bench.running()
    assert bench.monitor.arguments("connect")[0][-1] is True


def test_denied_stdio_refuses_a_tee(bench: Bench) -> None:
    bench.gate.answers["create_container"] = Decision(True, stdio=False)
    spec = container_spec(annotations={"io.microsoft.container.lcow.tee-log-path": "x.log"})
    with bench.nothing_changes(), pytest.raises(Refused, match="teeing"):
        bench.create(spec=spec)


def test_the_policy_sees_the_host_s_devices_and_not_those_that_are_added(bench: Bench) -> None:
    spec = container_spec(annotations={"io.microsoft.virtualmachine.lcow.privileged": "true"})
    spec["linux"]["devices"] = [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}]
    bench.create(spec=spec)
    ((_, asked),) = bench.gate.asked
    assert asked["privileged"] is True
    assert [device["path"] for device in asked["devices"]] == ["/dev/x"]
    assert len(bench.config()["linux"]["devices"]) > 1


def strict_spec(container_id: str) -> dict[str, Any]:
    kinds = ("pid", "ipc", "uts", "mount", "network")
    linux = {"namespaces": [{"type": kind} for kind in kinds]}
    return container_spec(root={"path": f"/run/gcs/c/{container_id}/rootfs"}, linux=linux)


def create_strict(bench: Bench, container_id: str = STRICT_ID, **changes: Any) -> None:
    bench.gate.strict = True
    arguments = {
        "bundle_path": f"/run/gcs/c/{container_id}",
        "scratch": f"/run/gcs/c/{container_id}/scratch/{container_id}",
        "spec": strict_spec(container_id),
        "activity_id": "",
        **changes,
    }
    create.create(bench.ctx, container_id, **arguments)


@pytest.fixture
def strict_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(tmp_path)
    # Stops right behind the checks: a strict VM's paths are not the test's to make.
    bench.gate.denied.add("create_container")
    settings = bench.ctx.settings
    object.__setattr__(settings, "bundle_roots", ("/run/gcs",))
    return bench


def test_a_strict_vm_asks_about_exactly_the_expected_paths(strict_bench: Bench) -> None:
    with pytest.raises(PolicyDenied):
        create_strict(strict_bench)
    assert [point for point, _ in strict_bench.gate.asked] == ["create_container"]


@pytest.mark.parametrize(
    "changes",
    [
        {"bundle_path": f"/run/gcs/c/{STRICT_ID}/x"},
        {"scratch": f"/run/gcs/c/{STRICT_ID}/scratch"},
        {"scratch": ""},
        {"spec": container_spec()},
        {"spec": {**strict_spec(STRICT_ID), "hooks": {}}},
    ],
)
def test_a_strict_vm_refuses_other_paths_and_hooks(strict_bench: Bench, changes: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        create_strict(strict_bench, **changes)
    assert not isinstance(caught.value, PolicyDenied)
    assert strict_bench.gate.asked == []


@pytest.mark.parametrize(
    "mount",
    [
        {"source": "/run/gcs/c/x/sandboxMounts/tmp/../../../../../../etc", "type": "bind"},
        {"source": "/run//gcs", "type": "bind"},
        {"source": "/dev/./sda", "type": "ext4"},
        {"source": "//dev/sda"},
        {"source": "etc", "type": "bind"},
        {"source": "sandbox://a", "options": ["rbind"]},
        {"type": "none", "options": ["bind"]},
    ],
)
def test_a_strict_vm_refuses_a_source_that_is_not_where_it_seems(
    strict_bench: Bench, mount: dict[str, Any]
) -> None:
    spec = {**strict_spec(STRICT_ID), "mounts": [{"destination": "/x", **mount}]}
    with pytest.raises(Refused, match=r"mounts\[0\].source"):
        create_strict(strict_bench, spec=spec)
    assert strict_bench.gate.asked == []


@pytest.mark.parametrize("bad", ["c1", "g" * 64, STRICT_ID + "0", STRICT_ID + "\n"])
def test_a_strict_vm_refuses_ids_that_are_not_64_hex_digits(strict_bench: Bench, bad: str) -> None:
    with pytest.raises(Refused, match="invalid container id"):
        create_strict(strict_bench, bad)


def test_a_strict_vm_drops_what_no_policy_sees(bench: Bench) -> None:
    spec = container_spec(
        annotations={"run.oci.handler": "krun", "org.systemd.property.X": "1", "kept": "1"}, solaris={"x": 1}
    )
    spec["linux"]["surprise"] = {"y": 1}
    bench.gate.strict = True
    from uvmd.oci.spec import read_spec

    read = read_spec(spec, strict=True)
    assert read["annotations"] == {"kept": "1"}
    assert "solaris" not in read
    assert "surprise" not in read["linux"]
    assert read_spec(spec, strict=False)["linux"]["surprise"] == {"y": 1}


def test_an_inconsistent_vm_creates_nothing(bench: Bench) -> None:
    bench.gate.inconsistent = "an unmount failed"
    with bench.nothing_changes(), pytest.raises(Inconsistent):
        bench.create()


def test_init_that_dies_while_it_is_created_is_told_once_afterwards(bench: Bench) -> None:
    run = bench.monitor.run

    def dying(argv: Any, **options: Any) -> Any:
        finished = run(argv, **options)
        if argv[5] == "create":
            bench.monitor.end(options["slot"], 3)
            assert bench.told == []
        return finished

    bench.monitor.run = dying  # type: ignore[method-assign]
    bench.create()
    assert bench.told == []
    bench.ctx.timers.run_due()
    assert [event.container_id for event in bench.told] == ["c1"]
    assert bench.ctx.registry.get("c1").state is State.TERMINATED


def test_log_directories_are_made_for_a_tee_and_for_its_mount(bench: Bench) -> None:
    spec = container_spec(annotations={"io.microsoft.container.lcow.tee-log-dir-mount": "/logs"})
    bench.create(spec=spec)
    logs = bench.bundle("c1") / "logs"
    assert logs.is_dir()
    assert stat.S_IMODE(logs.stat().st_mode) == 0o755
    assert {
        "destination": "/logs",
        "type": "bind",
        "source": str(logs),
        "options": ["bind"],
    } in bench.config()["mounts"]
