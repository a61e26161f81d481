"""Enforcers as a daemon makes them; their policyd is a thread of the test."""

from __future__ import annotations

from uvmd.api import Environment
from uvmd.api.testing import FakeServices, MemoryState, fake_environment
from uvmd_policy_rego.enforcer import RegoEnforcer, encode, make
from uvmd_policy_rego.policyd.serving import serve

_MADE: list[RegoEnforcer] = []


def environment(
    state: MemoryState | None = None, services: FakeServices | None = None, config: object = None
) -> Environment:
    """The environment of one daemon: another one with the same state and services is its successor."""
    return fake_environment(config, state=state or MemoryState(), service=services or FakeServices(serve))


def enforcer(
    text: str, state: MemoryState | None = None, services: FakeServices | None = None, config: object = None
) -> RegoEnforcer:
    made = make(environment(state, services, config), encode(text))
    _MADE.append(made)
    return made


def close_all() -> None:
    while _MADE:
        _MADE.pop().close()
