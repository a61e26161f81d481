"""Modules in an order to load them, and the ELF in a kernel image."""

from __future__ import annotations

import gzip
import lzma
import struct

import pytest
from guestimage.kernel import closure, extract_elf, module_name, parse_dependencies

ELF = b"\x7fELF" + bytes(100)


def bzimage(payload: bytes) -> bytes:
    head = bytearray(0x300)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 0x40, len(payload))
    image = bytes(head) + bytes(1024)
    start = 2 * 512 + 0x40
    return image[:start] + payload + b"behind"


@pytest.mark.parametrize("compress", [lzma.compress, gzip.compress])
def test_the_elf_is_found_behind_its_compression(compress: object) -> None:
    assert callable(compress)
    # The kernel's build appends the size, four bytes that belong to no stream.
    assert extract_elf(bzimage(compress(ELF) + struct.pack("<I", len(ELF)))) == ELF


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (bytes(4096), "not a bzImage"),
        (bzimage(b"pigeon"), "unknown way"),
        (bzimage(lzma.compress(b"text") + bytes(4)), "no ELF"),
    ],
)
def test_what_is_no_kernel_is_refused(image: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        extract_elf(image)


def test_needs_come_before_what_needs_them() -> None:
    text = "kernel/a.ko: kernel/b-x.ko kernel/c.ko\nkernel/b-x.ko: kernel/c.ko\nkernel/c.ko:\nkernel/d.ko:\n"
    found = closure(parse_dependencies(text), ["d", "a"])
    assert found == ["kernel/d.ko", "kernel/c.ko", "kernel/b-x.ko", "kernel/a.ko"]


def test_hyphens_and_suffixes_do_not_count_in_a_name() -> None:
    assert module_name("kernel/drivers/md/dm-verity.ko.xz") == "dm_verity"
