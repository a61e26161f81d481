"""Records of the kernel's log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.linux import kmsg

numbers = st.integers(0, 2**63)
#: What the kernel prints as it is: neither a control character nor a backslash.
plain = st.text(st.characters(min_codepoint=32, exclude_characters="\\\x7f", exclude_categories=["Cs", "Cc"]))


def escaped(text: str) -> bytes:
    """As the kernel writes it: what is not printable ASCII, and the backslash, in hexadecimal."""
    return b"".join(
        bytes([byte]) if 32 <= byte < 127 and byte != 0x5C else b"\\x%02x" % byte
        for byte in text.encode("utf-8", "surrogatepass")
    )


@given(
    st.integers(0, 7), st.integers(0, 1000), numbers, numbers, st.sampled_from("-c+"), plain, st.booleans()
)
def test_a_record_is_read_back_as_it_was_written(
    priority: int, facility: int, sequence: int, boot_us: int, flags: str, text: str, more: bool
) -> None:
    head = f"{facility << 3 | priority},{sequence},{boot_us},{flags}{',caller=T1' if more else ''};".encode()
    tail = b"\n SUBSYSTEM=net\n DEVICE=n1" if more else b""
    record = kmsg.parse_record(head + escaped(text) + tail + b"\n")
    assert record == (priority, facility, sequence, boot_us, flags, text.strip())
    assert record.priority_name == kmsg.PRIORITIES[priority]


@given(st.binary(max_size=60) | st.from_regex(rb"[0-9,;-]{0,20}.*"))
def test_any_bytes_are_a_record_or_a_value_error(data: bytes) -> None:
    try:
        record = kmsg.parse_record(data)
    except ValueError:
        return
    assert 0 <= record.priority <= 7
    assert b";" in data
    assert "\n" not in record.flags


def test_a_log_is_read_from_its_start_or_from_now_on(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    path.write_bytes(b"6,1,2,-;old\n")
    for from_start, expected in ((True, b"6,1,2,-;old\n"), (False, b"")):
        source = kmsg.KernelLog(from_start=from_start, path=str(path))
        assert source.next_record() == expected
        source.close()


def test_a_log_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        kmsg.KernelLog(from_start=True, path=str(tmp_path / "none"))


def test_overwritten_records_have_an_error_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kmsg").write_bytes(b"")
    source = kmsg.KernelLog(from_start=True, path=str(tmp_path / "kmsg"))

    def overwritten(fd: int, size: int) -> bytes:
        raise BrokenPipeError(32, "Broken pipe")

    with monkeypatch.context() as patched:
        patched.setattr(os, "read", overwritten)
        with pytest.raises(kmsg.Overwritten):
            source.next_record()
    source.close()


def test_only_the_kernels_log_is_the_log(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w") as file, open(kmsg.DEVICE) as log, open(os.devnull) as null:
        assert [kmsg.is_the_log(opened.fileno()) for opened in (file, log, null)] == [False, True, False]
    assert kmsg.is_the_log(-1) is False
