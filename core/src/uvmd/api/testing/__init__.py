"""Fakes for tests, ours and those of plugin authors. Nothing outside tests imports it.

:class:`Workbench` runs a handler through core's own pipeline, with a policy that the test
scripts; :func:`fake_environment` is an environment whose parts remember what was asked.
``uvmd.api.testing.fixtures`` is a pytest plugin with both.
"""

from uvmd.api.testing.fakes import (
    FakeContainers,
    FakePlatform,
    FakeRun,
    FakeServices,
    Finished,
    MemoryState,
    fake_environment,
)
from uvmd.api.testing.scripted import POLICY, PlainReader, ScriptedEnforcer
from uvmd.api.testing.workbench import Workbench

__all__ = [
    "POLICY",
    "FakeContainers",
    "FakePlatform",
    "FakeRun",
    "FakeServices",
    "Finished",
    "MemoryState",
    "PlainReader",
    "ScriptedEnforcer",
    "Workbench",
    "fake_environment",
]
