"""How the configuration reaches the rooms, and what refuses a start."""

from __future__ import annotations

from typing import cast

import pytest

from uvmd.daemon import compose
from uvmd.daemon.config import Config, build
from uvmd.errors import ConfigError
from uvmd.host.context import HostSettings
from uvmd.plugin_manager import Plugins


class Declaring:
    """Plugins that declare one name under one hook."""

    def __init__(self, hook: str) -> None:
        self._hook = hook

    def names(self, hook: str) -> tuple[str, ...]:
        return ("x",) if hook == self._hook else ()


def test_the_hosts_own_defaults_are_those_of_the_configuration() -> None:
    assert compose._host_settings(Config(), False) == HostSettings()


def test_requests_are_handled_one_at_a_time_on_confidential_hardware_or_by_choice() -> None:
    assert compose._host_settings(Config(), True).sequential
    assert compose._host_settings(build({"vm.sequential": "always"}), False).sequential


@pytest.mark.parametrize("hook", ["services"])
def test_a_plugin_that_relies_on_what_is_not_served_refuses_the_start(hook: str) -> None:
    with pytest.raises(ConfigError, match=hook):
        compose._refuse_unserved(cast(Plugins, Declaring(hook)))


def test_hooks_that_are_served_refuse_nothing() -> None:
    compose._refuse_unserved(cast(Plugins, Declaring("enforcers")))
