"""What an author's guest is given: the plugin, as it is installed or linked; and what it needs outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from uvmd.api.testing.guest import guest, image
from uvmd.api.testing.guest.accelerator import find_accelerator
from uvmd.api.testing.guest.brought import find_files
from uvmd.api.testing.guest.errors import GuestError


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed distributions."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def install(site: Path, *, files: dict[str, str], record: list[str], entry_points: str = "") -> None:
    info = site / "uvmd_far_lamp-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: uvmd-far-lamp\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(entry_points)
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in record))
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)


METADATA = "uvmd_far_lamp-1.2.dist-info/METADATA"


def test_an_installed_distribution_comes_with_all_its_modules_and_metadata(site: Path) -> None:
    files = {"far_lamp/__init__.py": "", "far_lamp/deep/table.json": "{}", "far_single.py": "X = 1\n"}
    install(site, files=files, record=["far_lamp/__init__.py", "far_single.py", "../../../bin/far.py"])
    found = find_files(["uvmd-far-lamp"])
    assert {name: text.decode() for name, text in found.items() if "dist-info" not in name} == files
    assert b"Version: 1.2" in found[METADATA]


def test_a_linked_distribution_is_found_through_its_entry_points(site: Path, tmp_path: Path) -> None:
    source = tmp_path / "src" / "nearer_lamp"
    (source / "__pycache__").mkdir(parents=True)
    (source / "__pycache__" / "x.pyc").write_bytes(b"")
    (source / "__init__.py").write_text("")
    (source / "plugin.py").write_text("A = 1\n")
    (site / "nearer_lamp").symlink_to(source)
    entry_points = "[uvmd.plugins.v1]\nlamp = nearer_lamp.plugin\n"
    install(site, files={}, record=["__editable___far_lamp_finder.py"], entry_points=entry_points)
    found = find_files(["uvmd-far-lamp"])
    assert set(found) == {
        "nearer_lamp/__init__.py", "nearer_lamp/plugin.py", METADATA,
        METADATA.replace("METADATA", "entry_points.txt"),
    }  # fmt: skip
    assert found["uvmd_far_lamp-1.2.dist-info/entry_points.txt"].decode() == entry_points


def test_what_is_not_installed_or_has_no_package_is_said(site: Path) -> None:
    with pytest.raises(GuestError, match=r"uvmd-no-lamp is not installed here: pip install -e \."):
        find_files(["uvmd-no-lamp"])
    install(site, files={}, record=[])
    with pytest.raises(GuestError, match="uvmd-far-lamp has no package"):
        find_files(["uvmd-far-lamp"])


def test_a_folder_without_an_image_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(b"")
    with pytest.raises(GuestError, match=r"initramfs\.cpio, root\.erofs not found"):
        image.find_image(str(tmp_path))


def test_a_machine_without_qemu_says_which_package_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "PATH", str(tmp_path))
    with pytest.raises(GuestError, match="apt-get install qemu-system-x86"):
        find_accelerator(tmp_path / "vmlinux", tmp_path / "initramfs.cpio")
    with pytest.raises(GuestError, match="apt-get install qemu-system-x86"):
        guest.Guest(image.Image(tmp_path))
