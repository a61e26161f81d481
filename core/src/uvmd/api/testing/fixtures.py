"""pytest fixtures for plugin authors: ``pytest_plugins = ["uvmd.api.testing.fixtures"]``."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from uvmd.api.environment import Environment
from uvmd.api.resources import ResourceType
from uvmd.api.testing.fakes import fake_environment
from uvmd.api.testing.workbench import Workbench


@pytest.fixture
def environment() -> Environment:
    """An environment of fakes."""
    return fake_environment()


@pytest.fixture
def workbench(environment: Environment) -> Callable[[Iterable[ResourceType]], Workbench]:
    """Make a workbench for some resource types: ``workbench(plugin.resource_types())``."""
    return lambda types: Workbench(types, environment)
