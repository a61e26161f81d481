"""What the processors write, byte by byte, from AMD's and Intel's documents.

Shares no structure with the implementation: a field is an offset and its bytes. AMD: SEV
Secure Nested Paging Firmware ABI, ATTESTATION_REPORT. Intel: TDX Module ABI, TDREPORT_STRUCT
(REPORTMACSTRUCT, TEE_TCB_INFO, TDINFO_STRUCT); TDX DCAP Quoting Library API, quote layout.
"""

from __future__ import annotations

from dataclasses import dataclass, field


def put(page: bytearray, offset: int, content: bytes) -> None:
    """Write over a part of the page."""
    assert offset + len(content) <= len(page)
    page[offset : offset + len(content)] = content


def number(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


@dataclass
class Amd:
    """A guest on an SEV-SNP processor. ``changes`` are bytes at offsets of the report."""

    host_data: bytes = bytes(32)
    version: int = 2
    changes: dict[int, bytes] = field(default_factory=dict)

    def report(self, data: bytes, level: int = 0) -> bytes:
        page = bytearray(0x4A0)
        put(page, 0x000, number(self.version, 4))
        put(page, 0x008, number(0x3001F, 8))
        put(page, 0x030, number(level, 4))
        put(page, 0x034, number(1, 4))
        put(page, 0x038, bytes((3, 0, 0, 0, 0, 0, 8, 115)))
        put(page, 0x050, data)
        put(page, 0x090, b"M" * 48)
        put(page, 0x0C0, self.host_data)
        put(page, 0x180, bytes((3, 0, 0, 0, 0, 0, 8, 115)))
        put(page, 0x1A0, b"C" * 64)
        for offset, content in self.changes.items():
            put(page, offset, content)
        return bytes(page)


@dataclass
class Intel:
    """A trust domain. ``changes`` are bytes at offsets of the TDREPORT, ``quoted`` the host's lies."""

    config_id: bytes = bytes(48)
    changes: dict[int, bytes] = field(default_factory=dict)
    quoted: bytes | None = None

    def report(self, data: bytes) -> bytes:
        page = bytearray(0x400)
        put(page, 0x000, b"\x81")
        put(page, 0x080, data)
        put(page, 0x108, b"V" * 16)  # TEE_TCB_SVN
        put(page, 0x118, b"S" * 48)  # MRSEAM
        put(page, 0x148, b"s" * 48)  # MRSIGNERSEAM
        put(page, 0x200, number(1 << 28, 8))
        put(page, 0x208, number(0xE7, 8))
        put(page, 0x210, b"D" * 48)  # MRTD
        put(page, 0x240, self.config_id)
        put(page, 0x270, b"O" * 48)
        put(page, 0x2A0, b"o" * 48)
        for register in range(4):
            put(page, 0x2D0 + 48 * register, bytes([register + 1]) * 48)
        for offset, content in self.changes.items():
            put(page, offset, content)
        return bytes(page)

    def quote(self, data: bytes, version: int = 4) -> bytes:
        """A quote as the host's quoting enclave would make it, or as a host makes one up."""
        head = number(version, 2) + number(2, 2) + number(0x81, 4) + bytes(4) + b"Q" * 16 + b"u" * 20
        report = self.report(data)
        body = report[0x108:0x178] + bytes(8) + report[0x200:0x210] + report[0x210:0x240]
        body += (self.config_id if self.quoted is None else self.quoted) + report[0x270:0x390] + data
        assert len(body) == 584
        if version == 5:
            head += number(3, 2) + number(648, 4)
            body += b"2" * 16 + b"T" * 48
        signature = b"x" * 100
        return head + body + number(len(signature), 4) + signature


def certificate_table(*rows: tuple[str, bytes], little_endian: bool = False) -> bytes:
    """The host's table: GUID, offset and length in each row, then a row of zeros, then the content."""
    at = 24 * (len(rows) + 1)
    table, content = b"", b""
    for guid, certificate in rows:
        digits = bytes.fromhex(guid.replace("-", ""))
        if little_endian:
            digits = digits[3::-1] + digits[5:3:-1] + digits[7:5:-1] + digits[8:]
        table += digits + number(at + len(content), 4) + number(len(certificate), 4)
        content += certificate
    return table + bytes(24) + content
