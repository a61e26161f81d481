"""The SEV-SNP attestation report: bytes in, values out.

Layout: AMD's SEV Secure Nested Paging Firmware ABI, structure ATTESTATION_REPORT; spec
attestation.md 6.3. All numbers are little endian. Later versions only gave names to what
was reserved before, so every version is read alike, and what a version does not have yet
is None.

The signature is not verified: in the guest the report comes from the processor over a
channel that the host cannot write to, and who receives it elsewhere verifies it there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from uvmd.errors import Failed

SIZE: Final = 1184

_LAYOUT: Final = struct.Struct(
    "<II Q 16s16s II 8sQ I4x 64s48s32s 48s48s 32s32s 8s 3B21x 64s 8s 3Bx3Bx 8s QQ152x 512s".replace(" ", "")
)
#: The version that first names the processor, and the one that first names mitigations.
_NAMES_PROCESSOR: Final = 3
_NAMES_MITIGATIONS: Final = 5
#: From this family on (Zen 5) the bytes of a TCB version have another order.
_ZEN5: Final = 0x1A


@dataclass(frozen=True, slots=True)
class Tcb:
    """Security versions of the processor's firmware. ``fmc`` exists from Zen 5 on."""

    boot_loader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None

    def __str__(self) -> str:
        text = f"boot loader {self.boot_loader}, TEE {self.tee}, SNP {self.snp}, microcode {self.microcode}"
        return text if self.fmc is None else f"FMC {self.fmc}, {text}"


@dataclass(frozen=True, slots=True)
class Processor:
    """The processor as CPUID names it."""

    family: int
    model: int
    stepping: int

    def __str__(self) -> str:
        return f"family {self.family:#x}, model {self.model:#x}, stepping {self.stepping}"


@dataclass(frozen=True, slots=True)
class SnpReport:
    """One report. ``family_id`` and ``image_id`` are turned round, as the reference shows them."""

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algorithm: int
    current_tcb: Tcb
    platform_info: int
    key_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: Tcb
    processor: Processor | None
    chip_id: bytes
    committed_tcb: Tcb
    current_firmware: str
    committed_firmware: str
    launch_tcb: Tcb
    launch_mitigations: int | None
    current_mitigations: int | None
    signature: bytes

    @property
    def debug_allowed(self) -> bool:
        """Whether the host may decrypt the guest's memory."""
        return bool(self.policy & 1 << 19)

    @property
    def signing_key(self) -> str:
        """Which key of AMD's has signed."""
        return {0: "VCEK", 1: "VLEK", 7: "none"}.get(self.key_info >> 2 & 7, "unknown")


def parse_report(blob: bytes) -> SnpReport:
    """Parse a report.

    Raises:
        Failed: it is of another size, or without a version, as a buffer is that nobody filled.
    """
    if len(blob) != SIZE:
        raise Failed(f"an SEV-SNP report has {SIZE} bytes, not {len(blob)}")
    (
        version, guest_svn, policy, family_id, image_id, vmpl, algorithm, current_tcb, platform_info,
        key_info, report_data, measurement, host_data, id_key_digest, author_key_digest, report_id,
        report_id_ma, reported_tcb, family, model, stepping, chip_id, committed_tcb,
        current_build, current_minor, current_major, committed_build, committed_minor, committed_major,
        launch_tcb, launch_mitigations, current_mitigations, signature,
    ) = _LAYOUT.unpack(blob)  # fmt: skip
    if version == 0:
        raise Failed("an SEV-SNP report of version 0 is none")
    processor = Processor(family, model, stepping) if version >= _NAMES_PROCESSOR else None
    mitigated = version >= _NAMES_MITIGATIONS

    def tcb(raw: bytes) -> Tcb:
        return _tcb(raw, processor)

    return SnpReport(
        version=version,
        guest_svn=guest_svn,
        policy=policy,
        family_id=family_id[::-1],
        image_id=image_id[::-1],
        vmpl=vmpl,
        signature_algorithm=algorithm,
        current_tcb=tcb(current_tcb),
        platform_info=platform_info,
        key_info=key_info,
        report_data=report_data,
        measurement=measurement,
        host_data=host_data,
        id_key_digest=id_key_digest,
        author_key_digest=author_key_digest,
        report_id=report_id,
        report_id_ma=report_id_ma,
        reported_tcb=tcb(reported_tcb),
        processor=processor,
        chip_id=chip_id,
        committed_tcb=tcb(committed_tcb),
        current_firmware=f"{current_major}.{current_minor}.{current_build}",
        committed_firmware=f"{committed_major}.{committed_minor}.{committed_build}",
        launch_tcb=tcb(launch_tcb),
        launch_mitigations=launch_mitigations if mitigated else None,
        current_mitigations=current_mitigations if mitigated else None,
        signature=signature,
    )


def _tcb(raw: bytes, processor: Processor | None) -> Tcb:
    if processor is not None and processor.family >= _ZEN5:
        return Tcb(fmc=raw[0], boot_loader=raw[1], tee=raw[2], snp=raw[3], microcode=raw[7])
    return Tcb(boot_loader=raw[0], tee=raw[1], snp=raw[6], microcode=raw[7])
