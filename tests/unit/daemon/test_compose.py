"""How the configuration reaches the rooms, and what refuses a start."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from uvmd.daemon import compose
from uvmd.daemon.config import Config, build
from uvmd.daemon.run_dir import RunDir
from uvmd.errors import ConfigError
from uvmd.host.context import HostSettings
from uvmd.monitor.link import MonitorState
from uvmd.plugin_manager import Plugins
from uvmd.policy.gate import Gate


def test_the_hosts_own_defaults_are_those_of_the_configuration() -> None:
    assert compose._host_settings(Config(), False) == HostSettings()


def test_requests_are_handled_one_at_a_time_on_confidential_hardware_or_by_choice() -> None:
    assert compose._host_settings(Config(), True).sequential
    assert compose._host_settings(build({"vm.sequential": "always"}), False).sequential


class Providing:
    """Plugins with network providers of these names."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def factories(self, hook: str) -> dict[str, object]:
        assert hook in ("container_network", "enforcers")
        return {name: lambda name=name: name for name in self._names}


@pytest.mark.parametrize(
    ("loaded", "wanted", "chosen"),
    [((), "", None), (("a",), "", "a"), (("a", "b"), "b", "b"), (("a",), "a", "a")],
)
def test_the_network_is_the_one_provider_or_the_wanted_one(
    loaded: tuple[str, ...], wanted: str, chosen: str | None
) -> None:
    made = compose._network(cast(Plugins, Providing(*loaded)), wanted)
    assert made._provider() == chosen


@pytest.mark.parametrize(("loaded", "wanted"), [((), "a"), (("a", "b"), ""), (("a", "b"), "c")])
def test_a_network_that_is_not_clear_refuses_the_start(loaded: tuple[str, ...], wanted: str) -> None:
    with pytest.raises(ConfigError, match=r"network\.provider"):
        compose._network(cast(Plugins, Providing(*loaded)), wanted)


def test_an_enforcer_that_nobody_provides_refuses_the_start() -> None:
    plugins = cast(Plugins, Providing("cedar"))
    assert compose._selectable(plugins, ("open_door", "rego", "cedar")) == ("open_door", "rego", "cedar")
    with pytest.raises(ConfigError, match=r"policy\.enforcers: no plugin .* provides rgo"):
        compose.require_names(build({"policy.enforcers": ("rgo",)}), plugins)
    with pytest.raises(ConfigError, match=r"network\.provider"):
        compose.require_names(build({"network.provider": "nope"}), plugins)


def test_a_state_of_the_policy_that_cannot_be_read_leaves_a_strict_vm(tmp_path: Path) -> None:
    class Taken(Exception):
        """The rest of the state is another test's."""

    class Rest:
        def resume(self, requests: object) -> None:
            raise Taken

    (tmp_path / "gate.json").write_text('{"v": 1, "settings"')
    run_dir = RunDir(str(tmp_path))
    daemon = object.__new__(compose.Daemon)
    daemon.gate = Gate(save=run_dir.save_gate)
    vars(daemon).update(_services=None, _run_dir=run_dir, _modifier=Rest())
    with pytest.raises(Taken):
        daemon.take_up(MonitorState(1, (), 2))
    assert (daemon.gate.strict, daemon.gate.logging_allowed) == (True, False)
    kept = run_dir.load_gate()
    run_dir.close()
    assert kept is not None
    later = Gate()
    later.resume(kept)
    assert (later.strict, later.door_closed) == (True, daemon.gate.door_closed)
