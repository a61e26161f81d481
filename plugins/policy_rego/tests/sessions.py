"""A session with what came before already done, and what was said of a denial."""

from __future__ import annotations

import json
from typing import Any

import policies

from uvmd_policy_rego.session import Answer, Session


def opened(text: str | None = None) -> Session:
    return Session(policies.policy() if text is None else text)


def mounted(text: str | None = None, id: str = policies.ID) -> Session:
    """The layers and the overlay of a container are there."""
    session = opened(text)
    for number, layer in enumerate(("base", "top")):
        allow(session, "mount_device", policies.device(layer, number))
    allow(session, "mount_overlay", policies.overlay(1, 0, id=id))
    return session


def started(text: str | None = None, **changes: Any) -> Session:
    """The container was created."""
    session = mounted(text)
    allow(session, "create_container", policies.create(**changes))
    return session


def allow(session: Session, point: str, input: dict[str, Any]) -> dict[str, Any]:
    answer = session.enforce(point, input, json.dumps(input))
    assert answer.allowed, answer.decision
    return dict(answer.result)


def deny(session: Session, point: str, input: dict[str, Any]) -> list[str]:
    """The errors of a question that must be denied."""
    answer = session.enforce(point, input, json.dumps(input))
    assert not answer.allowed
    assert answer.decision["decision"] == "deny"
    return errors(answer)


def errors(answer: Answer) -> list[str]:
    reason = answer.decision["reason"]
    assert isinstance(reason, dict), answer.decision
    found: list[str] = reason["errors"]
    return found
