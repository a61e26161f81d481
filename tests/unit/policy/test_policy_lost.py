"""An enforcer that can never say yes again closes the door, whatever it was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from uvmd.api.envelopes import Fragment
from uvmd.api.policy import Decision, Enforcer
from uvmd.api.testing import PlainReader
from uvmd.errors import PolicyDenied, PolicyLost
from uvmd.policy.gate import Gate
from uvmd.policy.selection import PolicySettings

TEXT = "cGFja2FnZSBwb2xpY3k="


class Forgetful(Enforcer):
    """Answers one question, then does not know any more what it had answered."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked = 0

    def decide(self, point: str, input: Mapping[str, Any]) -> Decision:
        self.asked += 1
        return Decision(True) if self.asked == 1 else self._lose()

    def extend_default_mounts(self, mounts: Sequence[Mapping[str, Any]]) -> None:
        self._lose()

    def load_fragment(self, fragment: Fragment) -> None:
        self._lose()

    def _lose(self) -> Decision:
        raise PolicyLost("what is mounted is not on record")


@pytest.mark.parametrize(
    "act",
    [
        lambda gate: gate.ask("mount_device", {}),
        lambda gate: gate.extend_default_mounts([{"destination": "/x"}]),
        lambda gate: gate.load_fragment("YQ==", ""),
    ],
)
def test_a_lost_policy_closes_the_door_for_good(act: Callable[[Gate], object]) -> None:
    saved: list[Mapping[str, Any]] = []
    gate = Gate(enforcers={"rego": Forgetful}, envelope_readers={"cose-x509": PlainReader}, save=saved.append)
    gate.set_policy(PolicySettings(policy=TEXT))
    assert gate.strict
    with pytest.raises(PolicyDenied, match="not on record"):
        act(gate)
    assert gate.door_closed == "what is mounted is not on record"
    assert saved[-1]["door_closed"] == gate.door_closed
    for _ in range(2):
        with pytest.raises(PolicyDenied, match="not on record"):
            gate.ask("get_properties", {})
    assert gate.strict, "a VM whose policy is lost is as strict as it was"
