"""Intel's evidence: the TDREPORT that the TDX module makes, and quotes made from one.

Layouts: Intel TDX Module ABI (TDREPORT_STRUCT), Intel TDX DCAP Quoting Library API (quote
versions 4 and 5). Both hold the same measurements of the guest. A TDREPORT carries a MAC
of the processor's and never leaves the machine; a quote carries a signature of the quoting
enclave, which runs on the *host*. Neither is verified here, which is why only the one that
the host cannot write is believed (``sources``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from uvmd.errors import Failed

REPORT_SIZE: Final = 1024
#: What a TDREPORT begins with, and what a quote says of its origin.
TDX: Final = 0x81

_TD_BODY: Final = struct.Struct("<QQ48s48s48s48s192s")
_QUOTE_HEAD: Final = struct.Struct("<HHI4x16s20s")
#: Of a quote's body: versions of the module, its measurements, attributes; then _TD_BODY, report data.
_MODULE: Final = struct.Struct("<16s48s48s8s")
_BODY_SIZES: Final = {2: 584, 3: 648}
_KEY_KINDS: Final = {2: "ECDSA P-256", 3: "ECDSA P-384"}


@dataclass(frozen=True, slots=True)
class TdxReport:
    """The measurements in one piece of evidence.

    ``form`` is ``TDREPORT`` or ``quote``; ``version`` the quote's, or the TDREPORT's.
    """

    form: str
    version: int
    signed_with: str
    tee_tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    attributes: int
    xfam: int
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmrs: tuple[bytes, ...]
    report_data: bytes

    @property
    def debug_allowed(self) -> bool:
        """Whether the host may look into the guest; such a guest proves nothing."""
        return bool(self.attributes & 1)


def parse_tdreport(blob: bytes) -> TdxReport:
    """Parse a TDREPORT.

    Raises:
        Failed: another size, or another kind of report: SGX's, or a buffer nobody filled.
    """
    if len(blob) != REPORT_SIZE:
        raise Failed(f"a TDREPORT has {REPORT_SIZE} bytes, not {len(blob)}")
    kind, _, version = blob[:3]
    if kind != TDX:
        raise Failed(f"a report of type {kind:#x} is no TDREPORT")
    # REPORTMACSTRUCT is 256 bytes, TEE_TCB_INFO begins at 256 with eight bytes of "what is valid".
    svn, mrseam, mrsignerseam, _ = _MODULE.unpack_from(blob, 264)
    return _report("TDREPORT", version, "MAC", (svn, mrseam, mrsignerseam), blob, 512, blob[128:192])


def parse_quote(blob: bytes) -> TdxReport:
    """Parse a quote of version 4 or 5.

    Raises:
        Failed: it is truncated, of another version, or not of TDX.
    """
    if len(blob) < _QUOTE_HEAD.size:
        raise Failed(f"a quote of {len(blob)} bytes is truncated")
    version, key_kind, tee, _, _ = _QUOTE_HEAD.unpack_from(blob)
    if version not in (4, 5) or tee != TDX:
        raise Failed(f"a quote of version {version} for TEE type {tee:#x} is none of TDX in version 4 or 5")
    body, size = (48, 584) if version == 4 else _described(blob)
    if len(blob) < body + size:
        raise Failed(f"a quote of {len(blob)} bytes is truncated, its body ends at {body + size}")
    module = _MODULE.unpack_from(blob, body)[:3]
    signed_with = _KEY_KINDS.get(key_kind, f"key type {key_kind}")
    return _report("quote", version, signed_with, module, blob, body + 120, blob[body + 520 : body + 584])


def _described(blob: bytes) -> tuple[int, int]:
    """Where the body of a version 5 quote begins, and its size: it has a descriptor before it."""
    if len(blob) < 54:
        raise Failed(f"a quote of {len(blob)} bytes is truncated")
    kind, size = struct.unpack_from("<HI", blob, 48)
    if _BODY_SIZES.get(kind) != size:
        raise Failed(f"a quote whose body is of type {kind} with {size} bytes is none of TDX")
    return 54, size


def _report(
    form: str,
    version: int,
    signed_with: str,
    module: tuple[bytes, ...],
    blob: bytes,
    at: int,
    report_data: bytes,
) -> TdxReport:
    attributes, xfam, mrtd, mrconfigid, mrowner, mrownerconfig, rtmrs = _TD_BODY.unpack_from(blob, at)
    svn, mrseam, mrsignerseam = module
    return TdxReport(
        form, version, signed_with, svn, mrseam, mrsignerseam, attributes, xfam, mrtd, mrconfigid,
        mrowner, mrownerconfig, tuple(rtmrs[n : n + 48] for n in range(0, 192, 48)), report_data,
    )  # fmt: skip
