"""The two enforcers that core brings: everything, or nothing.

An open door is what a VM without a policy has; a closed door is what it has while it
waits for one, and for ever after its policy can no longer be trusted. The texts of the
closed door are those of spec policy.md 3.5: hosts show them to people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from uvmd.api.envelopes import Fragment, TrustList
from uvmd.api.policy import Decision, Enforcer
from uvmd.errors import PolicyDenied, Refused

OPEN_DOOR = "open_door"
ALLOW = "allow"
DENY = "deny"

#: What the closed door says, by enforcement point (spec policy.md 3.5).
CLOSED = {
    "mount_device": "mounting is denied by policy",
    "rw_mount_device": "Read-write device mounting is denied by policy",
    "mount_blockdev": "block-device mounting is denied by policy",
    "unmount_device": "unmounting is denied by policy",
    "rw_unmount_device": "Read-write device unmounting is denied by policy",
    "unmount_blockdev": "block-device unmounting is denied by policy",
    "mount_overlay": "creating an overlay fs is denied by policy",
    "unmount_overlay": "removing an overlay fs is denied by policy",
    "create_container": "running commands is denied by policy",
    "exec_in_container": "starting additional processes in a container is denied by policy",
    "exec_external": "starting additional processes in uvm is denied by policy",
    "shutdown_container": "shutting down containers is denied by policy",
    "signal_container_process": "signalling container processes is denied by policy",
    "plan9_mount": "mounting is denied by policy",
    "plan9_unmount": "unmounting is denied by policy",
    "get_properties": "getting container properties is denied by policy",
    "dump_stacks": "getting stack dumps is denied by policy",
    "load_fragment": "loading fragments is denied by policy",
    "load_transparency_trust_list": "loading transparency trust lists is denied by policy",
    "runtime_logging": "runtime logging is denied by policy",
    "host_network": "host network is denied by policy",
    "scratch_mount": "mounting scratch is denied by the policy",
    "scratch_unmount": "unmounting scratch is denied by the policy",
    # Ours; the reference has no such point.
    "modify_resource": "changing resources is denied by policy",
}


class OpenDoor(Enforcer):
    """Allows everything and narrows nothing. Fragments are accepted and forgotten."""

    _YES = Decision(True)

    def decide(self, point: str, input: Mapping[str, Any]) -> Decision:
        return self._YES

    def load_fragment(self, fragment: Fragment) -> None:
        """Accept silently: hosts send fragments without asking what the policy is (3.5)."""

    def load_trust_list(self, trust_list: TrustList) -> None:
        """Accept silently, as fragments."""


class ClosedDoor(Enforcer):
    """Denies everything, points that it has never heard of included."""

    def decide(self, point: str, input: Mapping[str, Any]) -> Decision:
        return Decision(False, reason=CLOSED.get(point, f"{point} is denied by policy"))

    def load_fragment(self, fragment: Fragment) -> None:
        raise PolicyDenied(CLOSED["load_fragment"])

    def load_trust_list(self, trust_list: TrustList) -> None:
        raise PolicyDenied(CLOSED["load_transparency_trust_list"])


def open_door(text: str) -> Enforcer:
    """Make the open door; the enforcer that a host selects by ``open_door``.

    Raises:
        Refused: there is a policy. The host chooses the enforcer and the choice is not
            measured, so an open door must not swallow a policy that is.
    """
    if text:
        raise Refused("Invalid policy for open-door enforcer")
    return OpenDoor()


def initial(stance: str, confidential: bool) -> Enforcer:
    """Make the enforcer that answers until a policy is set.

    On confidential hardware that is the closed door, whatever an operator or a host
    wrote on the command line: the line is not measured, the hardware is.
    """
    return OpenDoor() if stance == ALLOW and not confidential else ClosedDoor()
