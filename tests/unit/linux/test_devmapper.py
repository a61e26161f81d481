"""Device-mapper: the bytes of its ioctls, and devices on the fake kernel."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.api.testing.kernel import FakeKernel
from uvmd.linux import devmapper
from uvmd.linux.devmapper import Target

TARGETS = st.builds(
    Target,
    st.integers(0, 2**63),
    st.integers(0, 2**63),
    st.sampled_from(["linear", "verity", "crypt"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60),
)


def test_the_header_is_the_kernel_s() -> None:
    header = devmapper.pack_header(312, "name")
    assert len(header) == 312
    assert struct.unpack_from("=6I", header) == (4, 0, 0, 312, 0, 0)
    assert header[48:53] == b"name\0"
    loading = devmapper.pack_header(312 + 56, "name", 1, 1)
    assert struct.unpack_from("=6IiI", loading) == (4, 0, 0, 368, 312, 1, 0, 1)
    assert devmapper._IOCTL == 0xC138FD00


def test_a_record_is_padded_to_eight_bytes() -> None:
    record = devmapper.pack_target(Target(0, 16, "linear", "/dev/pmem0 8192"))
    assert len(record) == 56
    assert struct.unpack_from("=QQiI16s", record) == (0, 16, 0, 56, b"linear".ljust(16, b"\0"))
    assert record[40:] == b"/dev/pmem0 8192\0"


def answer(targets: list[Target]) -> bytes:
    """As the kernel answers: each ``next`` is counted from the first record."""
    data = b""
    for target in targets:
        record = bytearray(devmapper.pack_target(target))
        struct.pack_into("=I", record, 20, len(data) + len(record))
        data += record
    return data


@given(st.lists(TARGETS, max_size=4))
def test_a_table_is_read_back(targets: list[Target]) -> None:
    assert list(devmapper.parse_targets(answer(targets), len(targets))) == targets


@given(st.binary(max_size=200), st.integers(0, 5))
def test_any_answer_is_a_table_or_a_value_error(data: bytes, count: int) -> None:
    try:
        assert len(list(devmapper.parse_targets(data, count))) == count
    except ValueError:
        pass


@given(st.binary(max_size=60).map(lambda data: data + bytes(16)))
def test_any_answer_is_names_or_a_value_error(data: bytes) -> None:
    try:
        list(devmapper.parse_names(data))
    except ValueError:
        pass


def test_target_types_are_read_one_after_the_other() -> None:
    def entry(name: bytes, last: bool = False) -> bytes:
        text = name.ljust(16, b"\0")
        return struct.pack("=4I", 0 if last else 32, 1, 9, 0) + text

    data = entry(b"linear") + entry(b"verity", last=True)
    assert list(devmapper.parse_types(data)) == ["linear", "verity"]


@given(st.binary(max_size=60).map(lambda data: data + bytes(16)))
def test_any_answer_is_target_types_or_a_value_error(data: bytes) -> None:
    try:
        list(devmapper.parse_types(data))
    except ValueError:
        pass


@given(st.integers(0, 0xFFF), st.integers(0, 0xFFFFF))
def test_a_device_number_is_taken_apart_as_it_was_put_together(major: int, minor: int) -> None:
    number = (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
    assert devmapper.parse_device(number) == (major, minor)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", "control", "x" * 128, "a\0b"])
def test_what_is_no_name_is_refused_before_the_kernel_sees_it(name: str) -> None:
    for function in (lambda: devmapper.create(name, []), lambda: devmapper.remove(name)):
        with pytest.raises(ValueError, match="name"):
            function()


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    made = FakeKernel(tmp_path)
    made.install(monkeypatch)
    made.add_device("sda")
    return made


def target(kernel: FakeKernel, device: str = "sda", offset: int = 0) -> Target:
    return devmapper.linear(str(kernel.dev / device), offset, 4096)


def test_a_device_is_created_loaded_and_resumed_and_has_a_node(kernel: FakeKernel) -> None:
    before = kernel.state()
    path = devmapper.create("one", [target(kernel)])
    assert path == str(kernel.mapper / "one")
    assert kernel.log == ["dm 3 one", "dm 9 one", "dm 6 one"]
    assert kernel.dm.devices["one"].read_only
    assert devmapper.table("one") == [Target(0, 8, "linear", "8:0 0")]
    status = devmapper.status("one")
    assert status is not None
    assert (status.open_count, status.read_only, status.has_table) == (0, True, True)
    assert status.device == kernel.numbers[path]
    assert devmapper.names() == ["one"]
    assert devmapper.remove("one")
    assert kernel.state() == before
    assert (devmapper.status("one"), devmapper.exists("one"), devmapper.names()) == (None, False, [])


def test_a_name_that_is_taken_is_no_reason_to_wait(kernel: FakeKernel) -> None:
    devmapper.create("one", [target(kernel)])
    time = Time()
    with pytest.raises(FileExistsError, match="device-mapper device create: one exists"):
        devmapper.create("one", [target(kernel)], deadline=9, pause=time.pause, clock=time.clock)
    assert time.slept == []


@pytest.mark.parametrize("code", [errno.EBUSY, errno.ENOENT, errno.ENXIO, errno.ENODEV])
def test_what_may_pass_is_tried_again_and_leaves_nothing_in_between(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    load, left = kernel.dm._load, [2]

    def failing(*args: object) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(code, os.strerror(code))
        load(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(kernel.dm, "_load", failing)
    time = Time()
    devmapper.create("one", [target(kernel)], deadline=9, pause=time.pause, clock=time.clock)
    assert time.slept == [0.1, 0.1]
    assert kernel.log.count("dm 4 one") == 2, "each failure removes what it had made"


def test_a_backing_device_that_never_comes_is_an_error_at_the_deadline(kernel: FakeKernel) -> None:
    before, time = kernel.state(), Time()
    with pytest.raises(OSError, match="device-mapper table load: no such device") as caught:
        devmapper.create("one", [target(kernel, "sdq")], deadline=1, pause=time.pause, clock=time.clock)
    assert caught.value.errno == errno.ENODEV
    assert 0.8 <= time.now <= 1
    assert kernel.state() == before


def test_what_cannot_pass_is_an_error_at_once(kernel: FakeKernel) -> None:
    before, time = kernel.state(), Time()
    bad = Target(0, 8, "verity", "1 a  b")
    with pytest.raises(OSError, match="device-mapper table load: invalid argument"):
        devmapper.create("one", [bad], deadline=9, pause=time.pause, clock=time.clock)
    assert time.slept == []
    assert kernel.state() == before


def test_a_node_that_cannot_be_made_takes_the_device_with_it(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    before = kernel.state()
    monkeypatch.setattr(os, "mknod", full)
    with pytest.raises(OSError, match="no space"):
        devmapper.create("one", [target(kernel)])
    assert kernel.state() == before


def test_a_link_in_the_place_of_the_node_is_replaced_by_a_node(kernel: FakeKernel) -> None:
    (kernel.mapper / "one").symlink_to("../dm-0")
    path = devmapper.create("one", [target(kernel)])
    assert not os.path.islink(path)


def test_the_same_device_is_used_again_and_another_one_replaced_unless_it_is_in_use(
    kernel: FakeKernel,
) -> None:
    path, made = devmapper.ensure("one", [target(kernel)])
    assert made
    os.unlink(path)
    assert devmapper.ensure("one", [target(kernel)]) == (path, False)
    assert os.path.exists(path), "the node is there again"
    assert devmapper.ensure("one", [target(kernel, offset=4096)])[1]
    assert devmapper.table("one") == [Target(0, 8, "linear", "8:0 8")]
    devmapper.create("above", [devmapper.linear(path, 0, 512)])
    with pytest.raises(OSError, match="one is in use with another table") as caught:
        devmapper.ensure("one", [target(kernel)])
    assert caught.value.errno == errno.EBUSY


def test_a_device_that_somebody_left_without_a_table_is_replaced(kernel: FakeKernel) -> None:
    with devmapper._Control() as control:
        control(devmapper._CREATE, "one")
    assert devmapper.ensure("one", [target(kernel)])[1]
    assert devmapper.table("one")


def test_a_device_in_use_is_waited_for_and_then_an_error_or_the_kernel_s(kernel: FakeKernel) -> None:
    path = devmapper.create("one", [target(kernel)])
    devmapper.create("above", [devmapper.linear(path, 0, 512)])
    time = Time()
    with pytest.raises(OSError, match="device-mapper device remove: device or resource busy"):
        devmapper.remove("one", 0.05, pause=time.pause, clock=time.clock)
    assert time.slept == [0.01] * 5
    assert not devmapper.remove("one", 0, later=True, pause=time.pause, clock=time.clock)
    assert kernel.dm.devices["one"].doomed
    devmapper.remove("above")


def test_removing_what_is_not_there_is_fine(kernel: FakeKernel) -> None:
    assert devmapper.remove("nothing")


def test_a_kernel_without_device_mapper_is_an_error_and_leaves_no_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mapper"
    monkeypatch.setattr(devmapper, "DIRECTORY", str(folder))
    monkeypatch.setattr(os, "mknod", lambda path, mode, device: os.symlink("nowhere", path))
    with pytest.raises(FileNotFoundError, match="device-mapper"):
        devmapper.names()
    assert list(folder.iterdir()) == []
