"""The fakes themselves: a plugin's tests are worth what these are worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.things import NAME, SETTINGS, THING, Thing
from uvmd.api import Decision, Environment
from uvmd.api.testing import fakes, fixtures, scripted
from uvmd.api.testing.workbench import Workbench
from uvmd.daemon.config import Policy
from uvmd.errors import ContainerNotFound, InvalidState, PolicyDenied, Refused

environment, workbench = fixtures.environment, fixtures.workbench


def test_no_configuration_that_is_shipped_lets_a_host_pick_the_script() -> None:
    assert "scripted" not in Policy().enforcers


def test_a_scripted_policy_is_not_empty() -> None:
    with pytest.raises(Refused):
        scripted.ScriptedEnforcer("")
    assert scripted.ScriptedEnforcer("any text").text == "any text"


def test_a_script_answers_raises_or_computes_and_remembers() -> None:
    script: dict[str, Any] = {
        "no": False,
        "own": Decision(True, env=["A"]),
        "raise": OSError("boom"),
        "compute": lambda input: Decision(input["n"] > 1),
    }
    enforcer = scripted.ScriptedEnforcer(script=script)
    assert enforcer.decide("anything", {}).allowed
    assert enforcer.decide("no", {}).reason == "the script denies no"
    assert enforcer.decide("own", {}).env == ["A"]
    assert enforcer.decide("compute", {"n": 2}).allowed
    with pytest.raises(OSError, match="boom"):
        enforcer.decide("raise", {})
    assert enforcer.points == ["anything", "no", "own", "compute", "raise"]
    assert enforcer.asked[3] == ("compute", {"n": 2})


def test_the_fake_environment_remembers_commands_and_keeps_state() -> None:
    run = fakes.FakeRun(lambda argv: fakes.Finished(1, b"mkfs: no"))
    made = fakes.fake_environment({"a": 1}, run=run)
    assert made.config == {"a": 1}
    assert made.run(["mkfs.ext4", "/dev/sda"], deadline=1.0).output == b"mkfs: no"
    assert run.calls == [("mkfs.ext4", "/dev/sda")]
    made.state.save({"v": 1})
    assert made.state.load() == {"v": 1}
    assert made.platform.name == "virtio"
    with pytest.raises(ConnectionRefusedError):
        made.dial(564, 1.0)
    with pytest.raises(TypeError):
        made.state.save({"v": {1}})


def test_fake_containers_behave_like_the_registry() -> None:
    host = fakes.FakeContainers({"a": "running", "b": "creating"}, {"a": "/a/rootfs"})
    host.require_created("a")
    with pytest.raises(InvalidState):
        host.require_created("b")
    with pytest.raises(ContainerNotFound):
        host.require_created("c")
    assert (host.status("a"), host.status("c")) == ("running", None)
    assert list(host.using_root("/a/rootfs")) == ["a"]


def test_a_workbench_runs_requests_loose_and_strict() -> None:
    bench = Workbench([THING], handlers={NAME: Thing()})
    bench.add(NAME, SETTINGS)
    assert bench.mounted() == ["/run/thing"]
    enforcer = bench.be_strict({"modify_resource": False})
    with pytest.raises(PolicyDenied):
        bench.remove(NAME, SETTINGS)
    enforcer.script.clear()
    bench.remove(NAME, SETTINGS)
    assert bench.record(NAME, "path:/run/thing") is None


def test_the_fixtures_make_both(environment: Environment, workbench: Callable[..., Any]) -> None:
    bench = workbench([THING])
    assert bench.environment is environment
    assert NAME in bench.types
