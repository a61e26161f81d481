"""What the plugin declares. Thin, because it is imported at every start of the daemon."""

from __future__ import annotations

from collections.abc import Iterable

from uvmd.api import Named, hookimpl


@hookimpl
def host_data_sources() -> Iterable[Named]:
    """What the VM was launched for, by the kind of hardware that vouches for it."""
    return [
        Named("sev", "uvmd_attestation.sources:sev"),
        Named("tdx", "uvmd_attestation.sources:tdx"),
    ]


@hookimpl
def cli_commands() -> Iterable[Named]:
    """``uvmctl policy report``: the evidence of the machine where it runs, or of a file."""
    return [Named("policy report", "uvmd_attestation.cli_report:report")]
