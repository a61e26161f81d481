"""Enforcers as a daemon makes them; their policyd is a thread of the test."""

from __future__ import annotations

import base64

from uvmd.api import Environment
from uvmd.api.testing import FakeServices, MemoryState, fake_environment
from uvmd.policy.gate import Gate
from uvmd.policy.selection import PolicySettings
from uvmd_policy_rego.enforcer import RegoEnforcer, encode, make
from uvmd_policy_rego.envelopes.reader import Reader
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


def inject(enforcer: RegoEnforcer, blob: bytes, media_type: str = "") -> None:
    """Send a signed artefact as a host does: to the gate, which reads it before it asks."""
    gate = Gate(envelope_readers={"cose-x509": Reader})
    gate.adopt(PolicySettings(policy=enforcer.text), enforcer)
    gate.load_fragment(base64.b64encode(blob).decode(), media_type)


def close_all() -> None:
    while _MADE:
        _MADE.pop().close()
