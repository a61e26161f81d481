"""What the VM was launched for: the bytes that a policy's digest is compared with.

Core asks before it accepts a SecurityPolicy, and takes every error as a no. So everything
that is odd is an error here: a report that does not carry the random bytes of this very
question was not made for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol, TypeVar

from uvmd.api import Environment
from uvmd.errors import Failed
from uvmd_attestation import devices, evidence, snp_report, tdx_report


def sev(environment: Environment) -> bytes:
    """Return HOST_DATA of the SEV-SNP report: 32 bytes that the host set at launch.

    Raises:
        UvmdError, OSError: it cannot be read, or not believed.
    """
    return _asked(environment, evidence.read_sev, snp_report.parse_report).host_data


def tdx(environment: Environment) -> bytes:
    """Return MRCONFIGID of the TDREPORT: 48 bytes that the host set at launch.

    Never of a quote: a quote comes out of memory that the host may write, and its
    signature is for others to verify. A host could have any policy accepted with one.

    Raises:
        UvmdError, OSError: it cannot be read, or not believed.
    """
    return _asked(environment, evidence.read_tdreport, tdx_report.parse_tdreport).mrconfigid


class _Report(Protocol):
    @property
    def report_data(self) -> bytes: ...


R = TypeVar("R", bound=_Report)


def _asked(
    environment: Environment,
    read: Callable[[evidence.Roots, bytes], evidence.Evidence],
    parse: Callable[[bytes], R],
) -> R:
    """Return a report that answers this very question."""
    nonce = os.urandom(devices.REPORT_DATA_BYTES)
    found = read(evidence.Roots(environment.platform.sys_root, environment.platform.dev_root), nonce)
    report = parse(found.blob)
    if report.report_data != nonce:
        raise Failed(f"{found.source}: the report was not made for this question")
    return report
