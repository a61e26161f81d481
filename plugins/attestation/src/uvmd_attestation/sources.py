"""What the VM was launched for: the bytes that a policy's digest is compared with.

Core asks before it accepts a SecurityPolicy, and takes every error as a no. So everything
that is odd is an error here: a report that does not carry the random bytes of this very
question was not made for it.
"""

from __future__ import annotations

import os

from uvmd.api import Environment
from uvmd.errors import Failed
from uvmd_attestation import devices, evidence, snp_report, tdx_report


def sev(environment: Environment) -> bytes:
    """Return HOST_DATA of the SEV-SNP report: 32 bytes that the host set at launch.

    Raises:
        UvmdError, OSError: it cannot be read, or not believed.
    """
    nonce = os.urandom(devices.REPORT_DATA_BYTES)
    found = evidence.read_sev(_roots(environment), nonce)
    report = snp_report.parse_report(found.blob)
    _require_answer(nonce, report.report_data, found.source)
    return report.host_data


def tdx(environment: Environment) -> bytes:
    """Return MRCONFIGID of the TDREPORT: 48 bytes that the host set at launch.

    Never of a quote: a quote comes out of memory that the host may write, and its
    signature is for others to verify. A host could have any policy accepted with one.

    Raises:
        UvmdError, OSError: it cannot be read, or not believed.
    """
    nonce = os.urandom(devices.REPORT_DATA_BYTES)
    found = evidence.read_tdreport(_roots(environment), nonce)
    report = tdx_report.parse_tdreport(found.blob)
    _require_answer(nonce, report.report_data, found.source)
    return report.mrconfigid


def _roots(environment: Environment) -> evidence.Roots:
    return evidence.Roots(environment.platform.sys_root, environment.platform.dev_root)


def _require_answer(nonce: bytes, report_data: bytes, source: str) -> None:
    if report_data != nonce:
        raise Failed(f"{source}: the report was not made for this question")
