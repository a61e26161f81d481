"""The section ``[plugin.policy_rego]``."""

from __future__ import annotations

from uvmd.api import ConfigModel, Field


class PolicyRegoConfig(ConfigModel):
    """Everything has a default: the enforcer works as installed."""

    record: str = Field(
        "",
        pattern=r"^(/.+)?$",
        description="a file in which every question to the policy is kept, environments included; "
        "empty: none is (docs/policy-replay.md)",
    )
    decision_timeout_s: float = Field(
        5.0, ge=0.01, le=60, description="a question that policyd has not answered after this is denied"
    )
    load_timeout_s: float = Field(
        60.0, ge=0.1, le=200, description="a policy or fragment that is not loaded after this is refused"
    )
    memory_mib: int = Field(
        512, ge=64, le=65536, description="the private memory that policyd may have (docs/policyd.md)"
    )
