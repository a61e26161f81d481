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
