"""Handlers of core's own resource types (spec bridge.md 6.10). Imports pydantic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvmd.api.resources import Answers, Found, Handler, Plan, Record, View
from uvmd.api.transaction import Undo
from uvmd.api.wire import Field, WireModel
from uvmd.errors import Refused
from uvmd.host.doing import doing
from uvmd.oci.fields import RESOURCES, read_object
from uvmd.policy.gate import Gate
from uvmd.policy.selection import PolicySettings

if TYPE_CHECKING:
    from uvmd.host.core_types import Limits

#: What a host may change of a running container in a strict VM. Anything else (devices
#: above all) was the policy's to decide when the container was created.
STRICT_CONSTRAINTS = frozenset({"memory", "cpu", "pids"})


class ConstraintsSettings(WireModel):
    """``Linux`` is OCI's LinuxResources; ``Windows`` is none of our business."""

    linux: dict[str, Any] | None = Field(None, alias="Linux")


class PolicyMessage(WireModel):
    """The policy and what vouches for the VM's image; all base64, all optional."""

    enforcer: str = Field("", alias="EnforcerType")
    policy: str = Field("", alias="EncodedSecurityPolicy", repr=False)
    uvm_reference: str = Field("", alias="EncodedUVMReference", repr=False)
    hash_envelope_reference: str = Field("", alias="EncodedUVMHashEnvelopeReference", repr=False)


class FragmentSettings(WireModel):
    """One signed artefact in base64."""

    fragment: str = Field("", alias="Fragment", repr=False)
    media_type: str = Field("", alias="MediaType")


class Constraints(Handler):
    """New limits for a running container."""

    settings = ConstraintsSettings

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def identity(self, settings: ConstraintsSettings) -> str:
        return "constraints"

    def update(self, settings: ConstraintsSettings, found: Found, view: View, record: Record | None) -> Plan:
        asked = {key: value for key, value in (settings.linux or {}).items() if value is not None}
        if view.strict:
            for key in asked:
                if key.lower() not in STRICT_CONSTRAINTS:
                    raise Refused(f"ContainerConstraints: a security policy does not let {key!r:.64} change")
        resources = read_object(asked, RESOURCES, what="body.Request.Settings.Linux", strict=view.strict)
        limits = {key: value for key, value in resources.items() if value not in ({}, [])}

        def apply(undo: Undo, answers: Answers) -> None:
            self._limits.update_constraints(view.target, limits)

        return Plan((), apply)


class PodLimit(Handler):
    """The memory limit of all pods, after the host has changed the VM's memory."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def identity(self, settings: None) -> str:
        return "cgroup:pods"

    def update(self, settings: None, found: Found, view: View, record: Record | None) -> Plan:
        def apply(undo: Undo, answers: Answers) -> None:
            self._limits.refresh_pod_limit()

        return Plan((), apply)


class Policy(Handler):
    """The security policy, once."""

    settings = PolicyMessage

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def identity(self, settings: PolicyMessage) -> str:
        return "policy"

    def update(self, settings: PolicyMessage, found: Found, view: View, record: Record | None) -> Plan:
        message = PolicySettings(
            settings.enforcer, settings.policy, settings.uvm_reference, settings.hash_envelope_reference
        )

        if doing().again and self._gate.holds(message):
            return Plan.nothing()  # only the answer was missing

        def apply(undo: Undo, answers: Answers) -> None:
            self._gate.set_policy(message)
            undo.point_of_no_return("a policy in force stays in force")

        return Plan((), apply)


class Fragment(Handler):
    """A signed fragment, trust list or reference info, for the enforcer in force."""

    settings = FragmentSettings

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def identity(self, settings: FragmentSettings) -> str:
        return "policy"

    def update(self, settings: FragmentSettings, found: Found, view: View, record: Record | None) -> Plan:
        def apply(undo: Undo, answers: Answers) -> None:
            self._gate.load_fragment(settings.fragment, settings.media_type)
            undo.point_of_no_return("a fragment that is loaded stays loaded")

        return Plan((), apply)
