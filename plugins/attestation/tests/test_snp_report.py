"""SEV-SNP reports: those that a processor made, those made here by offsets, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from emulated_processors import Amd, certificate_table, number
from hypothesis import given
from hypothesis import strategies as st

from uvmd.errors import Failed
from uvmd_attestation.certificates import MAX_ROWS, parse_table
from uvmd_attestation.snp_report import SIZE, Processor, Tcb, parse_report

REAL = Path(__file__).parent / "vectors" / "snp-report-v3-genoa.bin"


def test_a_report_of_a_real_processor_is_read() -> None:
    report = parse_report(REAL.read_bytes())
    assert (report.version, report.vmpl, report.signature_algorithm, report.signing_key) == (3, 0, 1, "VCEK")
    # What the package that the report comes from says of it (vectors/README.md).
    measurement = (
        "2dedaee13b84dc618efc73f685b16de46826380a2dd45df15da3dd8badbc9822cadf7bfc7595912c4517ba6fab1b52c0"
    )
    assert report.measurement.hex() == measurement
    assert report.report_data[:32].hex() == "10ca85437a8e7353494bd4fce763b0aad25107cd8ab5e4a051c28b454f01063e"
    assert report.report_data[32:].hex() == "be5a9c84f5b53a4ed9abcf7cf7fd533718ca132c9fb5873b02a97d2e2081f80d"
    assert report.host_data == bytes(32)
    # Family 19h, model 11h is EPYC 9004 ("Genoa"); its firmware at that time was 1.55.
    assert report.processor == Processor(0x19, 0x11, 1)
    assert report.current_firmware == report.committed_firmware == "1.55.40"
    assert report.reported_tcb == report.launch_tcb == Tcb(boot_loader=10, tee=0, snp=23, microcode=84)
    assert not report.debug_allowed
    assert (report.launch_mitigations, report.current_mitigations) == (None, None)


#: Offset, bytes, and what they are called, from AMD's table.
FIELDS = [
    (0x004, number(7, 4), "guest_svn", 7),
    (0x008, number(1 << 19, 8), "debug_allowed", True),
    (0x010, bytes(range(16)), "family_id", bytes(range(16))[::-1]),
    (0x020, bytes(range(16, 32)), "image_id", bytes(range(16, 32))[::-1]),
    (0x030, number(2, 4), "vmpl", 2),
    (0x034, number(9, 4), "signature_algorithm", 9),
    (0x040, number(0x27, 8), "platform_info", 0x27),
    (0x048, number(1 << 2, 4), "signing_key", "VLEK"),
    (0x050, b"r" * 64, "report_data", b"r" * 64),
    (0x090, b"m" * 48, "measurement", b"m" * 48),
    (0x0C0, b"h" * 32, "host_data", b"h" * 32),
    (0x0E0, b"i" * 48, "id_key_digest", b"i" * 48),
    (0x110, b"a" * 48, "author_key_digest", b"a" * 48),
    (0x140, b"R" * 32, "report_id", b"R" * 32),
    (0x160, b"A" * 32, "report_id_ma", b"A" * 32),
    (0x180, bytes((1, 2, 0, 0, 0, 0, 3, 4)), "reported_tcb", Tcb(1, 2, 3, 4)),
    (0x038, bytes((1, 2, 9, 9, 9, 9, 3, 4)), "current_tcb", Tcb(1, 2, 3, 4)),
    (0x1A0, b"c" * 64, "chip_id", b"c" * 64),
    (0x1E0, bytes((4, 3, 0, 0, 0, 0, 2, 1)), "committed_tcb", Tcb(4, 3, 2, 1)),
    (0x1E8, bytes((40, 55, 1)), "current_firmware", "1.55.40"),
    (0x1EC, bytes((10, 51, 1)), "committed_firmware", "1.51.10"),
    (0x1F0, bytes((5, 6, 0, 0, 0, 0, 7, 8)), "launch_tcb", Tcb(5, 6, 7, 8)),
    (0x2A0, b"s" * 512, "signature", b"s" * 512),
]


@pytest.mark.parametrize(("offset", "content", "name", "value"), FIELDS, ids=[field[2] for field in FIELDS])
def test_every_field_is_where_amd_has_it(offset: int, content: bytes, name: str, value: object) -> None:
    blob = Amd(changes={offset: content}).report(b"")
    assert len(blob) == SIZE
    assert getattr(parse_report(blob), name) == value


def test_the_processor_is_named_from_version_3_on_and_mitigations_from_version_5_on() -> None:
    changes = {0x188: bytes((0x19, 0x01, 2)), 0x1F8: number(5, 8), 0x200: number(6, 8)}
    seen = {
        version: parse_report(Amd(version=version, changes=changes).report(b""))
        for version in (1, 2, 3, 5, 99)
    }
    assert [report.processor is None for report in seen.values()] == [True, True, False, False, False]
    assert [report.launch_mitigations for report in seen.values()] == [None, None, None, 5, 5]
    assert seen[5].current_mitigations == 6


def test_the_bytes_of_a_tcb_have_another_order_since_zen_5() -> None:
    tcb = bytes((1, 2, 3, 4, 0, 0, 0, 5))
    for family, expected in ((0x19, Tcb(1, 2, 0, 5)), (0x1A, Tcb(2, 3, 4, 5, fmc=1))):
        blob = Amd(version=3, changes={0x180: tcb, 0x188: bytes((family, 2, 1))}).report(b"")
        assert parse_report(blob).reported_tcb == expected
    # Version 2 does not say what processor it is; none of Zen 5 makes it.
    assert parse_report(Amd(changes={0x180: tcb, 0x188: b"\x1a"}).report(b"")).reported_tcb == Tcb(1, 2, 0, 5)


@given(st.binary(min_size=SIZE, max_size=SIZE))
def test_any_bytes_of_the_right_size_are_a_report_unless_nobody_filled_them(blob: bytes) -> None:
    if blob[:4] == bytes(4):
        with pytest.raises(Failed, match="version 0"):
            parse_report(blob)
    else:
        report = parse_report(blob)
        assert (report.host_data, report.report_data) == (blob[0xC0:0xE0], blob[0x50:0x90])


@pytest.mark.parametrize(
    "blob", [b"", bytes(SIZE), bytes(4000), Amd().report(b"")[:-1], Amd().report(b"") + b"\0"]
)
def test_a_truncated_a_longer_and_an_empty_report_are_none(blob: bytes) -> None:
    with pytest.raises(Failed, match="report"):
        parse_report(blob)


# What the host hands along

VCEK = "63da758d-e664-4564-adc5-f4b93be8accd"
OTHER = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize("little_endian", [False, True])
def test_certificates_are_listed_by_their_names(little_endian: bool) -> None:
    table = certificate_table((VCEK, b"leaf"), (OTHER, b"?"), little_endian=little_endian)
    found = parse_table(table)
    assert found[0] == ("VCEK", b"leaf")
    assert found[1].content == b"?"
    assert len(found[1].name) == 36


def test_a_row_that_points_outside_of_the_table_is_left_out() -> None:
    table = bytearray(certificate_table((VCEK, b"leaf"), (OTHER, b"?")))
    table[20:24] = number(0xFFFFFFFF, 4)
    assert [one.content for one in parse_table(bytes(table))] == [b"?"]


@given(st.binary(max_size=4096))
def test_whatever_a_host_hands_along_is_a_bounded_list_of_parts_of_it(table: bytes) -> None:
    found = parse_table(table)
    assert len(found) <= MAX_ROWS
    assert all(one.content and one.content in table for one in found)
