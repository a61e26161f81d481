"""What `make packages` makes: the same bytes everywhere, and nothing that it does not list."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from support.machine import ROOT
from support.packages import EPOCH, Made

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def bill(made: Made) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made.folder / "uvmd.cdx.json").read_text())
    return found


@pytest.fixture(scope="session")
def contents(made: Made) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """The files of the Debian package."""
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", made.deb], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(data)) as archive:
        members = [(one, archive.extractfile(one) if one.isfile() else None) for one in archive]
        return {one.name: (one, file.read() if file else b"") for one, file in members}


def test_the_same_source_gives_the_same_bytes_in_another_place(made: Made, made_elsewhere: Made) -> None:
    names = sorted(path.name for path in made.folder.iterdir())
    assert names == sorted(path.name for path in made_elsewhere.folder.iterdir())
    others = [
        name for name in names
        if (made.folder / name).read_bytes() != (made_elsewhere.folder / name).read_bytes()
    ]  # fmt: skip
    assert not others


def test_there_is_a_wheel_for_core_and_each_plugin(made: Made) -> None:
    folders = [made.source / "core", *(path.parent for path in made.source.glob("plugins/*/setup.cfg"))]
    names = {re.findall(r"(?m)^name = (.*)$", (folder / "setup.cfg").read_text())[0] for folder in folders}
    wheels = {path.name.partition("-")[0].replace("_", "-") for path in made.folder.glob("*.whl")}
    assert wheels == names


def test_wheels_hold_no_tests_and_no_byte_code(made: Made) -> None:
    for path in made.folder.glob("*.whl"):
        with zipfile.ZipFile(path) as wheel:
            assert not [name for name in wheel.namelist() if "/tests/" in name or name.endswith(".pyc")]


def test_every_wheel_brings_the_text_of_its_licence(made: Made) -> None:
    text = (made.source / "LICENSE").read_bytes()
    for path in made.folder.glob("*.whl"):
        with zipfile.ZipFile(path) as wheel:
            (name,) = (one for one in wheel.namelist() if one.endswith("/LICENSE"))
            assert wheel.read(name) == text, path.name


def test_the_sums_are_those_of_the_files(made: Made) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=made.folder, check=True)
    listed = {line.split()[1] for line in (made.folder / "SHA256SUMS").read_text().splitlines()}
    assert listed == {path.name for path in made.folder.iterdir()} - {"SHA256SUMS"}


# -- the bill of materials


def test_the_bill_lists_our_wheels_with_the_hashes_of_the_files(made: Made, bill: dict[str, Any]) -> None:
    listed = {one["properties"][0]["value"]: one["hashes"] for one in bill["components"]}
    for path in made.folder.glob("*.whl"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert listed[path.name] == [{"alg": "SHA-256", "content": digest}]


def test_the_bill_lists_others_with_hashes_that_the_workshop_pins(made: Made, bill: dict[str, Any]) -> None:
    pins = (made.source / ".ci" / "constraints.txt").read_text()
    theirs = [one for one in bill["components"] if not one["name"].startswith("uvmd")]
    assert {"pydantic", "pydantic-core", "cryptography", "pyroute2"} <= {
        one["name"].lower().replace("_", "-") for one in theirs
    }
    for one in theirs:
        assert f"sha256:{one['hashes'][0]['content']}" in pins, one["name"]
        assert one["licenses"], one["name"]


def test_the_bill_says_who_needs_whom_and_nothing_needs_what_is_not_there(bill: dict[str, Any]) -> None:
    needs = {one["ref"]: set(one.get("dependsOn", [])) for one in bill["dependencies"]}
    refs = {one["bom-ref"] for one in bill["components"]}
    assert set().union(*needs.values()) == refs  # each component is there because another needs it
    rego = next(ref for ref in refs if ref.startswith("uvmd-policy-rego@"))
    assert {ref.partition("@")[0] for ref in needs[rego]} == {"uvmd", "gordon-to-regorus", "cryptography"}


# -- the Debian package


def test_the_package_has_every_file_of_the_wheels_as_the_wheels_have_it(
    made: Made, contents: dict[str, tuple[tarfile.TarInfo, bytes]]
) -> None:
    site = "./opt/uvmd/lib/python3.11/site-packages/"
    for path in made.folder.glob("*.whl"):
        with zipfile.ZipFile(path) as wheel:
            for name in wheel.namelist():
                if not name.endswith("/RECORD"):
                    assert contents[site + name][1] == wheel.read(name), name


def test_the_records_of_the_environment_list_what_is_there(
    contents: dict[str, tuple[tarfile.TarInfo, bytes]],
) -> None:
    site = "./opt/uvmd/lib/python3.11/site-packages/"
    listed = set()
    for record in [name for name in contents if name.endswith(".dist-info/RECORD")]:
        for line in contents[record][1].decode().splitlines():
            name, _, rest = line.partition(",")
            path = os.path.normpath(site + name)
            listed.add(path)
            if rest.startswith("sha256="):
                data = contents[f"./{path}"][1]
                digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                assert rest.startswith(f"sha256={digest},"), name
    there = {name[2:] for name, (one, _) in contents.items() if one.isfile() and "/site-packages/" in name}
    assert there <= listed


def test_the_files_of_the_package_have_one_time_and_belong_to_root(
    contents: dict[str, tuple[tarfile.TarInfo, bytes]],
) -> None:
    members = [one for one, _ in contents.values()]
    assert {(one.mtime, one.uid, one.gid) for one in members} == {(EPOCH, 0, 0)}
    assert {one.mode for one in members if not one.issym()} == {0o644, 0o755}


def test_only_our_own_commands_are_in_the_environment(
    contents: dict[str, tuple[tarfile.TarInfo, bytes]],
) -> None:
    binaries = {
        Path(name).name for name, (one, _) in contents.items() if "/uvmd/bin/" in name and not one.isdir()
    }
    assert binaries == {"python", "python3", "uvmd", "uvmctl", "gcs"}


def test_the_package_wants_the_c_library_that_its_libraries_want(
    made: Made, contents: dict[str, tuple[tarfile.TarInfo, bytes]]
) -> None:
    libraries = [data for name, (_, data) in contents.items() if name.endswith(".so")]
    wanted = {int(minor) for data in libraries for minor in re.findall(rb"GLIBC_2\.(\d+)\0", data)}
    depends = subprocess.run(
        ["dpkg-deb", "--field", made.deb, "Depends"], check=True, capture_output=True, text=True
    ).stdout
    assert f"libc6 (>= 2.{max(wanted)})" in depends


def test_lintian_has_nothing_to_say(made: Made) -> None:
    lintian = shutil.which("lintian")
    assert lintian, "lintian is not installed: .ci/system-packages packages"
    options = ("--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0")
    done = subprocess.run([lintian, *options, made.deb], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.findall(r"(?m)^[EW]: .*", done.stdout)


def test_the_settings_that_come_along_name_what_exists_and_change_nothing() -> None:
    import tomllib

    from uvmd.daemon.config import Config

    text = (ROOT / "packaging" / "debian" / "uvmd.toml").read_text()
    assert not any(section for section in tomllib.loads(text).values())
    shown = tomllib.loads(re.sub(r"(?m)^# (?=[a-z_]+ = )", "", text))
    for section, settings in shown.items():
        known = getattr(Config(), section)
        for name, value in settings.items() if isinstance(settings, dict) else ():
            default = getattr(known, name)
            assert value == (list(default) if isinstance(default, tuple) else default), f"{section}.{name}"
