"""Evidence of this machine, from whichever of the kernel's interfaces it has.

For SEV-SNP all of them give the same report, which the processor encrypts for the guest.
For TDX they differ: a TDREPORT is made by the TDX module in the guest's own memory, while
a quote (all that configfs-tsm gives) comes out of a buffer that the host fills.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from uvmd.errors import Failed, NotFound
from uvmd_attestation import devices, tsm

#: No evidence is larger.
MAX_BYTES: Final = tsm.MAX_BYTES

SEV: Final = "sev"
TDX: Final = "tdx"

_SEV_PROVIDER: Final = "sev_guest"
_TDX_PROVIDER: Final = "tdx_guest"


class Roots(NamedTuple):
    """Where sysfs and the device nodes are."""

    sys: str = "/sys"
    dev: str = "/dev"

    @property
    def tsm(self) -> str:
        """The folder of configfs-tsm's requests."""
        return f"{self.sys}/{tsm.FOLDER}"


class Evidence(NamedTuple):
    """``kind`` is the hardware, ``source`` who was asked, ``blob`` what it said.

    ``certificates`` and ``manifest`` are the host's words, for whoever verifies; ``note`` says
    what could not be had.
    """

    kind: str
    source: str
    blob: bytes
    certificates: bytes = b""
    manifest: bytes = b""
    note: str = ""


def read_sev(roots: Roots, report_data: bytes) -> Evidence:
    """Have a report made that carries ``report_data`` (64 bytes).

    Raises:
        NotFound: no interface of SEV-SNP is there.
        Failed, OSError: it is there and does not answer.
    """
    answer = tsm.read(roots.tsm, _SEV_PROVIDER, report_data)
    if answer is not None:
        return Evidence(SEV, roots.tsm, answer.evidence, answer.certificates, answer.manifest)
    for name in (devices.SEV, devices.SEV_GUEST):
        path = f"{roots.dev}/{name}"
        if os.path.exists(path):
            return Evidence(SEV, path, devices.read_snp_report(path, report_data))
    raise NotFound("SEV device is not found")


def read_tdreport(roots: Roots, report_data: bytes) -> Evidence:
    """Have a TDREPORT made that carries ``report_data`` (64 bytes).

    Raises:
        NotFound: the device is not there.
        OSError: it is there and does not answer.
    """
    path = f"{roots.dev}/{devices.TDX_GUEST}"
    if not os.path.exists(path):
        raise NotFound("TDX device is not found")
    return Evidence(TDX, path, devices.read_tdreport(path, report_data))


def read_quote(roots: Roots, report_data: bytes) -> Evidence:
    """Have a quote made: a TDREPORT signed for others by the host's quoting enclave.

    Raises:
        NotFound: the kernel does not ask for quotes.
        Failed, OSError: the host makes none.
    """
    answer = tsm.read(roots.tsm, _TDX_PROVIDER, report_data)
    if answer is None:
        raise NotFound("the kernel has no configfs-tsm of TDX")
    return Evidence(TDX, roots.tsm, answer.evidence, answer.certificates, answer.manifest)


def read_here(roots: Roots, report_data: bytes) -> Evidence:
    """Return what this machine can show to others: a report, a quote, else a TDREPORT.

    Raises:
        NotFound: there is no confidential hardware.
        Failed, OSError: there is, and it does not answer.
    """
    if os.path.exists(f"{roots.dev}/{devices.TDX_GUEST}"):
        try:
            return read_quote(roots, report_data)
        except (NotFound, Failed, OSError) as error:
            # Many hosts run no quoting service; the TDREPORT says the same of the guest.
            return read_tdreport(roots, report_data)._replace(note=f"no quote: {error}")
    try:
        return read_sev(roots, report_data)
    except NotFound:
        nodes = (devices.SEV_GUEST, devices.SEV, devices.TDX_GUEST)
        names = ", ".join(f"{roots.dev}/{name}" for name in nodes)
        raise NotFound(
            f"no confidential hardware here: there is none of {names}, "
            f"and no security module that answers in {roots.tsm}"
        ) from None
