"""What a kernel can do, told from its own lists."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from uvmd.linux import abilities, devmapper, syscalls


@pytest.fixture
def modules(tmp_path: Path) -> str:
    needs = "kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz"
    (tmp_path / "modules.dep").write_text(f"{needs}\nkernel/dm-crypt.ko:\n")
    (tmp_path / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    return str(tmp_path)


@pytest.mark.parametrize("name", ["9p", "ext4", "dm-crypt", "dm_crypt"])
def test_a_module_is_found_built_in_or_as_a_file(modules: str, name: str) -> None:
    assert abilities.has_module(name, modules)


@pytest.mark.parametrize("name", ["9pnet", "4", "ext", "dm-verity"])
def test_a_module_that_another_needs_or_resembles_is_not_it(modules: str, name: str) -> None:
    assert not abilities.has_module(name, modules)


def test_without_lists_there_are_no_modules(tmp_path: Path) -> None:
    assert not abilities.has_module("9p", str(tmp_path))


def test_a_filesystem_of_the_kernel_needs_no_module(tmp_path: Path) -> None:
    (tmp_path / "filesystems").write_text("nodev\tsysfs\n\text4\n")
    assert abilities.has_filesystem("ext4", str(tmp_path))
    assert not abilities.has_filesystem("no-such-filesystem", str(tmp_path))


def test_this_kernel_has_the_calls_that_the_tests_use_and_not_one_that_nobody_has() -> None:
    assert abilities.missing_calls() == []
    assert not syscalls.exists(4095)


def test_a_call_that_is_not_there_is_named_with_the_kernel_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(abilities.SYSTEM_CALLS, "teleport", (4095, "9.9"))
    assert abilities.missing_calls() == ["teleport (Linux 9.9)"]


def test_targets_are_asked_of_the_kernel_where_no_file_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abilities, "has_module", lambda name: False)
    monkeypatch.setattr(devmapper, "target_types", lambda: frozenset({"linear"}))
    assert abilities.has_dm_target("linear")
    assert not abilities.has_dm_target("verity")

    def refuse() -> frozenset[str]:
        raise PermissionError(1, os.strerror(1))

    monkeypatch.setattr(devmapper, "target_types", refuse)
    assert not abilities.has_dm_target("linear")


def test_features_are_known_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert abilities.has_feature("pid")
    assert not abilities.has_feature("no-such-feature")
    (tmp_path / "pid").touch()
    assert abilities.missing_namespaces(str(tmp_path)) == ["mnt", "net", "ipc", "uts", "cgroup"]
    assert abilities.has_feature("seccomp")
    monkeypatch.setattr(syscalls, "has_filters", lambda: False)
    assert not abilities.has_feature("seccomp")
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="riscv64"))
    monkeypatch.setattr(syscalls, "has_filters", lambda: True)
    assert not abilities.has_feature("seccomp")
