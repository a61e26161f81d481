"""Gates with a scripted policy, and what is sent to them."""

from __future__ import annotations

import base64
from typing import Any

from uvmd.api.policy import Enforcer
from uvmd.api.testing import POLICY, PlainReader, ScriptedEnforcer
from uvmd.policy.gate import Gate
from uvmd.policy.selection import PolicySettings

READERS = {"cose-x509": PlainReader}
HELLO, BROKEN = (base64.b64encode(blob).decode() for blob in (b"hello", b"!hello"))


def gate_with(answer: object = True, **more: Any) -> tuple[Gate, ScriptedEnforcer]:
    """A gate with a policy that gives one answer to everything, and its enforcer."""
    made: list[ScriptedEnforcer] = []

    def make(text: str) -> Enforcer:
        made.append(ScriptedEnforcer(text, otherwise=answer))
        return made[-1]

    more.setdefault("selectable", ("open_door", "scripted"))
    gate = Gate(enforcers={"scripted": make}, **more)
    gate.set_policy(PolicySettings("scripted", POLICY))
    return gate, made[-1]


class Panic(BaseException):
    """As the binding of a native engine raises it."""
