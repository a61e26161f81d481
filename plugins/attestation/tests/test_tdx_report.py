"""TDREPORTs and quotes, made here by Intel's offsets, and what is none."""

from __future__ import annotations

import pytest
from emulated_processors import Intel, number
from hypothesis import given
from hypothesis import strategies as st

from uvmd.errors import Failed
from uvmd_attestation.tdx_report import REPORT_SIZE, TdxReport, parse_quote, parse_tdreport

DATA = bytes(range(64))
TD = Intel(config_id=b"P" * 32 + bytes(16))


def assert_measurements(report: TdxReport) -> None:
    assert (report.mrconfigid, report.mrtd) == (b"P" * 32 + bytes(16), b"D" * 48)
    assert (report.mrowner, report.mrownerconfig) == (b"O" * 48, b"o" * 48)
    assert report.rtmrs == (b"\1" * 48, b"\2" * 48, b"\3" * 48, b"\4" * 48)
    assert (report.mrseam, report.mrsignerseam, report.tee_tcb_svn) == (b"S" * 48, b"s" * 48, b"V" * 16)
    assert (report.attributes, report.xfam, report.debug_allowed) == (1 << 28, 0xE7, False)
    assert report.report_data == DATA


def test_a_tdreport_has_its_fields_where_intel_has_them() -> None:
    report = parse_tdreport(TD.report(DATA))
    assert (report.form, report.version, report.signed_with) == ("TDREPORT", 0, "MAC")
    assert_measurements(report)


@pytest.mark.parametrize("version", [4, 5])
def test_a_quote_says_the_same_of_the_guest(version: int) -> None:
    report = parse_quote(TD.quote(DATA, version))
    assert (report.form, report.version, report.signed_with) == ("quote", version, "ECDSA P-256")
    assert_measurements(report)


def test_the_older_body_in_a_version_5_quote_is_read_too() -> None:
    newer = TD.quote(DATA, 5)
    older = newer[:48] + number(2, 2) + number(584, 4) + newer[54 : 54 + 584] + newer[54 + 648 :]
    assert_measurements(parse_quote(older))


def test_a_guest_that_may_be_debugged_says_so() -> None:
    assert parse_tdreport(Intel(changes={0x200: b"\1"}).report(DATA)).debug_allowed
    assert parse_quote(Intel(changes={0x200: b"\1"}).quote(DATA)).debug_allowed


@given(st.binary(min_size=REPORT_SIZE, max_size=REPORT_SIZE))
def test_any_bytes_are_a_tdreport_if_they_say_so(blob: bytes) -> None:
    report = parse_tdreport(b"\x81" + blob[1:])
    assert report.mrconfigid == blob[0x240:0x270]
    if blob[0] != 0x81:
        with pytest.raises(Failed, match="is no TDREPORT"):
            parse_tdreport(blob)


@pytest.mark.parametrize("size", [0, 64, 1023, 1025, 1088])
def test_a_tdreport_has_one_size(size: int) -> None:
    with pytest.raises(Failed, match="1024 bytes"):
        parse_tdreport(b"\x81" * size)


@pytest.mark.parametrize("version", [4, 5])
@given(cut=st.integers(0, 631))
def test_a_truncated_quote_is_none(version: int, cut: int) -> None:
    with pytest.raises(Failed, match="truncated"):
        parse_quote(TD.quote(DATA, version)[:cut])


@given(st.binary(max_size=1500))
def test_any_bytes_are_a_quote_or_refused_with_a_reason(blob: bytes) -> None:
    for content in (blob, b"\4\0\2\0\x81\0\0\0" + blob, b"\5\0\2\0\x81\0\0\0" + blob):
        try:
            report = parse_quote(content)
        except Failed:
            continue
        assert report.mrconfigid in content


@pytest.mark.parametrize(
    ("at", "content", "text"),
    [
        (0, b"\3", "version 3"),
        (4, b"\0", "TEE type 0x0"),
        (48, b"\1", "body is of type 1"),
        (50, number(584, 4), "body is of type 3 with 584 bytes"),
    ],
)
def test_what_is_not_of_tdx_is_none(at: int, content: bytes, text: str) -> None:
    quote = bytearray(TD.quote(DATA, 5))
    quote[at : at + len(content)] = content
    with pytest.raises(Failed, match=text):
        parse_quote(bytes(quote))
