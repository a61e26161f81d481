"""Evidence for people and for programs: rows of a table, and plain JSON.

Nothing here judges: whether a value is the right one is for who relies on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from uvmd.errors import Failed
from uvmd_attestation import certificates, evidence, snp_report, tdx_report
from uvmd_attestation.snp_report import SnpReport
from uvmd_attestation.tdx_report import TdxReport

_GUEST_POLICY: Final = {
    16: "SMT allowed",
    18: "migration agent allowed",
    19: "DEBUGGING ALLOWED",
    20: "one socket only",
    21: "CXL allowed",
    22: "AES-256-XTS required",
    23: "RAPL must be off",
    24: "ciphertext hiding required",
    25: "page swapping off",
}
_PLATFORM: Final = {
    0: "SMT",
    1: "TSME",
    2: "ECC memory",
    3: "RAPL off",
    4: "ciphertext hiding",
    5: "memory aliases checked",
    7: "trusted I/O",
}
_TD_ATTRIBUTES: Final = {
    0: "DEBUGGING ALLOWED",
    28: "no #VE for pending pages",
    29: "migratable",
    30: "protection keys",
    31: "key locker",
    63: "performance counters",
}

UNVERIFIED: Final = "The signature is not verified here: that is for who relies on the evidence."
DEBUGGED: Final = "Debugging is allowed: the host can read this guest, and the evidence proves nothing."


def parse(found: evidence.Evidence) -> SnpReport | TdxReport:
    """Parse what was found.

    Raises:
        Failed: it is none of the structures.
    """
    if found.kind == evidence.SEV:
        return snp_report.parse_report(found.blob)
    if len(found.blob) == tdx_report.REPORT_SIZE and found.blob[0] == tdx_report.TDX:
        return tdx_report.parse_tdreport(found.blob)
    return tdx_report.parse_quote(found.blob)


def recognise(blob: bytes, source: str) -> evidence.Evidence:
    """Tell what a file holds: by its size, or as a quote. Hex text is taken for its bytes.

    Raises:
        Failed: none of it.
    """
    try:
        blob = bytes.fromhex(blob.decode("ascii"))
    except ValueError:  # UnicodeDecodeError is one
        pass
    if len(blob) == snp_report.SIZE and not _is_quote(blob):
        return evidence.Evidence(evidence.SEV, source, blob)
    if len(blob) == tdx_report.REPORT_SIZE or _is_quote(blob):
        return evidence.Evidence(evidence.TDX, source, blob)
    raise Failed(
        f"{source}: {len(blob)} bytes are no SEV-SNP report ({snp_report.SIZE}), "
        f"no TDREPORT ({tdx_report.REPORT_SIZE}) and no TDX quote"
    )


def _is_quote(blob: bytes) -> bool:
    return blob[:2] in (b"\4\0", b"\5\0") and blob[4:8] == b"\x81\0\0\0"


def host_data_of(report: SnpReport | TdxReport) -> bytes:
    """What the host set at launch: a policy's SHA-256, on TDX with zeros behind it."""
    return report.host_data if isinstance(report, SnpReport) else report.mrconfigid


def matches(report: SnpReport | TdxReport, digest: bytes) -> bool:
    """Tell whether the VM was launched for the policy of this SHA-256, as core compares."""
    launched = host_data_of(report)
    return launched == digest.ljust(len(launched), b"\0")


def title_of(found: evidence.Evidence, report: SnpReport | TdxReport) -> str:
    """One line that says what this is."""
    if isinstance(report, SnpReport):
        return f"SEV-SNP report, version {report.version}, from {found.source}"
    if report.form == "quote":
        return f"TDX quote, version {report.version} ({report.signed_with}), from {found.source}"
    return f"TDREPORT, version {report.version}, from {found.source}"


def rows_of(report: SnpReport | TdxReport) -> list[tuple[str, str]]:
    """Name and value, the ones that matter most first."""
    return _snp_rows(report) if isinstance(report, SnpReport) else _tdx_rows(report)


def _snp_rows(report: SnpReport) -> list[tuple[str, str]]:
    rows = [
        ("host data", report.host_data.hex()),
        ("measurement", report.measurement.hex()),
        ("report data", report.report_data.hex()),
        ("guest policy", _bits(report.policy, _GUEST_POLICY, f"ABI {_abi(report.policy)}")),
        ("guest SVN", str(report.guest_svn)),
        ("VMPL", str(report.vmpl)),
        ("family id", report.family_id.hex()),
        ("image id", report.image_id.hex()),
        ("id key", report.id_key_digest.hex()),
        ("author key", report.author_key_digest.hex()),
        ("report id", report.report_id.hex()),
        ("its agent's", report.report_id_ma.hex()),
        ("chip id", report.chip_id.hex()),
        ("processor", "not named in this version" if report.processor is None else str(report.processor)),
        ("platform", _bits(report.platform_info, _PLATFORM)),
        ("firmware", f"{report.current_firmware}, committed {report.committed_firmware}"),
        ("TCB reported", str(report.reported_tcb)),
        ("TCB current", str(report.current_tcb)),
        ("TCB committed", str(report.committed_tcb)),
        ("TCB at launch", str(report.launch_tcb)),
    ]
    if report.launch_mitigations is not None:
        now = f"{report.current_mitigations:#x}, at launch {report.launch_mitigations:#x}"
        rows.append(("mitigations", now))
    return [*rows, ("signed with", f"{report.signing_key}, algorithm {report.signature_algorithm}")]


def _tdx_rows(report: TdxReport) -> list[tuple[str, str]]:
    registers = [(f"RTMR {number}", value.hex()) for number, value in enumerate(report.rtmrs)]
    return [
        ("MRCONFIGID", report.mrconfigid.hex()),
        ("MRTD", report.mrtd.hex()),
        ("report data", report.report_data.hex()),
        ("MROWNER", report.mrowner.hex()),
        ("MROWNERCONFIG", report.mrownerconfig.hex()),
        *registers,
        ("attributes", _bits(report.attributes, _TD_ATTRIBUTES)),
        ("XFAM", f"{report.xfam:#x}"),
        ("TDX module", report.mrseam.hex()),
        ("its signer", report.mrsignerseam.hex()),
        ("TCB SVN", report.tee_tcb_svn.hex()),
    ]


def _abi(policy: int) -> str:
    return f"{policy >> 8 & 0xFF}.{policy & 0xFF} or later"


def _bits(value: int, names: Mapping[int, str], first: str = "") -> str:
    """A number, and the names of its bits."""
    said = [first] if first else []
    said += [name for bit, name in names.items() if value >> bit & 1]
    return f"{value:#x}" + (f" ({', '.join(said)})" if said else "")


def notes_of(found: evidence.Evidence, report: SnpReport | TdxReport) -> list[str]:
    """What a reader should know beside the values."""
    notes = [found.note] if found.note else []
    if found.certificates and found.kind == evidence.SEV:
        table = certificates.parse_table(found.certificates)
        listed = ", ".join(f"{one.name} ({len(one.content)} bytes)" for one in table) or "a table without any"
        notes.append(f"The host hands certificates along: {listed}.")
    if found.manifest:
        notes.append(f"The host hands a manifest along: {len(found.manifest)} bytes.")
    if report.debug_allowed:
        notes.append(DEBUGGED)
    return [*notes, UNVERIFIED]


def document_of(found: evidence.Evidence, report: SnpReport | TdxReport) -> dict[str, Any]:
    """Everything as JSON: bytes in hex, the evidence itself under ``raw``."""
    return {
        "kind": found.kind,
        "form": report.form if isinstance(report, TdxReport) else "report",
        "source": found.source,
        "host_data": host_data_of(report).hex(),
        "debug_allowed": report.debug_allowed,
        "report": _plain(report),
        "certificates": [
            {"name": one.name, "content": one.content.hex()}
            for one in (certificates.parse_table(found.certificates) if found.kind == evidence.SEV else ())
        ],
        "manifest": found.manifest.hex(),
        "notes": notes_of(found, report),
        "raw": found.blob.hex(),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value
