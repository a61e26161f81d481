"""What the plugin declares. Thin, because it is imported at every start of the daemon."""

from __future__ import annotations

from collections.abc import Iterable

from uvmd.api import Named, Requirement, hookimpl


@hookimpl
def config_model() -> str:
    """Whether questions are recorded, for people who look into a policy."""
    return "uvmd_policy_rego.config:PolicyRegoConfig"


@hookimpl
def enforcers() -> Iterable[Named]:
    """The enforcer that a host gets when it sends a policy and names nobody."""
    return [Named("rego", "uvmd_policy_rego.enforcer:make")]


@hookimpl
def envelope_readers() -> Iterable[Named]:
    """What hosts send signed: fragments, trust lists, reference info."""
    # 20 MiB that most VMs never need: imported when the first artefact comes.
    return [Named("cose-x509", "uvmd_policy_rego.envelopes.reader:Reader")]


@hookimpl
def cli_commands() -> Iterable[Named]:
    """``uvmctl policy``: tools for policies; they need no daemon."""
    return [Named("policy", "uvmd_policy_rego.cli:policy")]


@hookimpl
def requirements() -> Iterable[Requirement]:
    """policyd runs under a filter, or not at all."""
    return [Requirement("feature", "seccomp", "policies of a host: policyd is confined")]
