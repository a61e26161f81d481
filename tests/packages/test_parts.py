"""The parts of the build by themselves."""

from __future__ import annotations

import email.message
import subprocess
import zipfile
from pathlib import Path

import pytest
from building.tools import BuildError
from making.debian import installed_kib
from making.environment import make_environment
from making.sbom import bill_of_materials
from making.wheel import Wheel, licence_of, read_wheel
from making.whole import epoch_of, make_packages


def wheel_file(folder: Path, name: str = "alpha", *headers: str, scripts: str = "") -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *headers]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "")
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n\nA text.\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        if scripts:
            archive.writestr(f"{info}/entry_points.txt", f"[console_scripts]\n{scripts}\n")
        archive.writestr(f"{info}/RECORD", f"{name}/__init__.py,,\n")
    return path


def wheel(folder: Path, name: str, *needs: str, ours: bool = False) -> Wheel:
    headers = [f"Requires-Dist: {need}" for need in needs]
    return read_wheel(wheel_file(folder, name, "License-Expression: MIT", *headers), ours=ours)


def test_a_wheel_needs_nothing_that_only_an_extra_or_another_platform_wants(tmp_path: Path) -> None:
    found = wheel(tmp_path, "alpha", "Beta_Gamma>=1", "delta; extra == 'x'", "old; python_version < '3'")
    assert found.needs == ("beta-gamma",)


@pytest.mark.parametrize(
    ("headers", "licence"),
    [
        ({"License-Expression": "PSF-2.0", "License": "something else"}, "PSF-2.0"),
        ({"License": "MIT"}, "MIT"),
        ({"License": "A whole\ntext", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
    ],
)
def test_a_licence_is_an_spdx_expression_where_the_wheel_has_one(
    headers: dict[str, str], licence: str
) -> None:
    metadata = email.message.Message()
    for name, text in headers.items():
        metadata[name] = text
    assert licence_of(metadata, "a wheel") == licence


def test_a_wheel_without_a_licence_is_not_packed(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="does not say under which licence"):
        read_wheel(wheel_file(tmp_path), ours=False)


def test_a_file_that_is_no_wheel_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"no archive")
    with pytest.raises(BuildError, match=r"x\.whl is no wheel"):
        read_wheel(tmp_path / "x.whl", ours=False)


def test_a_bill_with_a_gap_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"alpha.* needs beta, which no wheel here brings"):
        bill_of_materials([wheel(tmp_path, "alpha", "beta")], "1-1", 0)


def test_a_bill_has_another_serial_number_when_a_wheel_is_another(tmp_path: Path) -> None:
    alpha, beta = wheel(tmp_path, "alpha", ours=True), wheel(tmp_path, "beta")
    bills = [bill_of_materials(wheels, "1-1", 0) for wheels in ([alpha], [alpha], [alpha, beta])]
    numbers = [next(line for line in bill.splitlines() if "serialNumber" in line) for bill in bills]
    assert numbers[0] == numbers[1] != numbers[2]


def test_commands_come_from_our_own_wheels_alone_and_start_the_environments_python(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        wheel_file(tmp_path, name, "License: MIT", scripts=f"{name} = {name}:main")
    wheels = [
        read_wheel(tmp_path / f"{n}-1.0-py3-none-any.whl", ours=n == "ours") for n in ("ours", "theirs")
    ]
    make_environment(tmp_path / "root", wheels)
    binaries = tmp_path / "root" / "opt" / "uvmd" / "bin"
    assert sorted(path.name for path in binaries.iterdir()) == ["ours", "python", "python3"]
    assert (binaries / "ours").read_text().startswith("#!/opt/uvmd/bin/python\n")
    (site,) = (tmp_path / "root").glob("opt/uvmd/lib/python3.11/site-packages")
    assert "bin/theirs" not in (site / "theirs-1.0.dist-info" / "RECORD").read_text()
    assert "bin/ours" in (site / "ours-1.0.dist-info" / "RECORD").read_text()


def test_files_are_counted_in_whole_kibibytes_and_a_link_as_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1025)
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "empty").write_bytes(b"")
    assert installed_kib(tmp_path) == 3


def test_the_time_of_the_files_is_the_variables_or_the_last_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "17")
    assert epoch_of(tmp_path) == 17
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(BuildError, match="yesterday is no number"):
        epoch_of(tmp_path)
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(BuildError, match="the files need a time"):
        epoch_of(tmp_path)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    commit = ["git", "-C", tmp_path, *who, "commit", "-q", "--allow-empty", "-m", "x"]
    subprocess.run(commit, check=True, env={"GIT_COMMITTER_DATE": "@1234 +0000", "PATH": "/usr/bin:/bin"})
    assert epoch_of(tmp_path) == 1234


def test_a_folder_of_somebody_elses_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(BuildError, match="holds other things than packages"):
        make_packages(tmp_path / "cache", tmp_path)
    assert (tmp_path / "letter").exists()
