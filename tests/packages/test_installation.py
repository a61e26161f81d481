"""The package in a Debian of its own: installed, tried, upgraded, removed. Never on this machine's root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.packages import Made, vary

# `make guest-test` has built the Debian that the image of a utility VM begins with.
pytestmark = [pytest.mark.guest, pytest.mark.root, pytest.mark.slow]


class Debian:
    """A root file system; what is done in it is thrown away."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        clean = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive")
        done = subprocess.run(["chroot", self.root, *clean, *command], capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def install(self, deb: Path) -> None:
        shutil.copy(deb, self.root / "tmp" / "uvmd.deb")
        self.run("dpkg", "--install", "/tmp/uvmd.deb")

    def play_systemd(self) -> None:
        """Have the maintainer scripts find a systemd that runs, in which every unit is active."""
        (self.root / "run" / "systemd" / "system").mkdir(parents=True)
        for name in ("systemctl", "deb-systemd-invoke"):
            fake = self.root / "usr" / "bin" / name
            fake.unlink()
            fake.write_text(f'#!/bin/sh\necho "{name} $*" >>/tmp/asked\n')
            fake.chmod(0o755)

    def asked(self) -> list[str]:
        """Which units they have had started or stopped since the last time."""
        asked = self.root / "tmp" / "asked"
        lines = asked.read_text().splitlines()
        asked.write_text("")
        return [line.split(" ", 1)[1] for line in lines if line.startswith("deb-systemd-invoke ")]

    def files(self) -> set[str]:
        """Every path outside of dpkg's own records."""
        skipped = {self.root / path for path in ("proc", "tmp", "var/lib/dpkg", "var/log")}
        found = set()
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if Path(folder, name) not in skipped]
            found |= {str(Path(folder, name).relative_to(self.root)) for name in (*folders, *files)}
        return found


@pytest.fixture
def debian(tmp_path: Path) -> Iterator[Debian]:
    """The Debian of the image's recipe under a layer of this test."""
    from guest.harness import image

    lower = image.builder().debian() / "tree"
    with contextlib.ExitStack() as stack:

        def mount(*words: str | Path) -> None:
            subprocess.run(["mount", *words], check=True)
            stack.callback(subprocess.run, ["umount", words[-1]], check=True)

        layer, root = tmp_path / "layer", tmp_path / "root"
        for folder in (layer, root):
            folder.mkdir()
        mount("-t", "tmpfs", "layer", layer)
        (layer / "upper").mkdir()
        (layer / "work").mkdir()
        options = f"lowerdir={lower},upperdir={layer}/upper,workdir={layer}/work"
        mount("-t", "overlay", "-o", options, "root", root)
        mount("-t", "proc", "proc", root / "proc")
        yield Debian(root)


def without_vpci(modules: Path) -> None:
    shutil.rmtree(modules / "uvmd_vpci")
    for info in modules.glob("uvmd_vpci-*"):
        shutil.rmtree(info)


def test_the_package_works_where_it_is_installed_and_leaves_nothing_when_it_is_purged(
    made: Made, debian: Debian
) -> None:
    before = debian.files()
    debian.install(made.deb)
    assert debian.run("uvmd", "--version").stdout == f"uvmd, version {made.deb.name.split('_')[1][:-2]}\n"
    assert debian.run("uvmd", "check").stdout.endswith("uvmd check: ok\n")
    assert "Usage: uvmctl" in debian.run("uvmctl", "--help").stdout
    assert "Usage: gcs" in debian.run("gcs", "--help").stdout
    plugins = [path.parent.name for path in made.source.glob("plugins/*/setup.cfg")]
    listed = debian.run("uvmd", "plugins").stdout.splitlines()[1:]
    assert {line.split()[0] for line in listed if " loaded " in line} >= set(plugins)
    # The service is enabled, and what systemd knows of it is what the package brought.
    assert debian.run("systemctl", "is-enabled", "uvmd.service").stdout == "enabled\n"
    # Compiled for any time of the files, and every file is as the package has it.
    code = debian.root / "opt/uvmd/lib/python3.11/site-packages/uvmd/__pycache__/__init__.cpython-311.pyc"
    assert code.read_bytes()[4:8] == (1).to_bytes(4, "little")
    # This Debian leaves out documentation, whoever brings it.
    changed = debian.run("dpkg", "--verify", "uvmd").stdout.splitlines()
    assert not [line for line in changed if "/usr/share/" not in line]
    debian.run("dpkg", "--remove", "uvmd")
    assert (debian.root / "etc" / "uvmd" / "uvmd.toml").exists()
    assert not (debian.root / "opt" / "uvmd").exists()
    debian.run("dpkg", "--purge", "uvmd")
    assert debian.files() - before == set()


def test_an_upgrade_keeps_the_settings_and_nothing_of_the_old_version(
    made: Made, debian: Debian, tmp_path: Path
) -> None:
    debian.install(made.deb)
    settings = debian.root / "etc" / "uvmd" / "uvmd.toml"
    mine = settings.read_text().replace('# level = "info"', 'level = "debug"')
    settings.write_text(mine)
    debian.play_systemd()
    debian.install(vary(made.deb, tmp_path / "newer.deb", "9:1", without_vpci))
    # The daemon alone: with the monitor the containers would go.
    assert debian.asked() == ["restart uvmd.service"]
    assert settings.read_text() == mine
    assert "vpci" not in debian.run("uvmd", "plugins").stdout
    assert debian.run("uvmd", "check").stdout.endswith("uvmd check: ok\n")
    assert not list(debian.root.glob("opt/uvmd/lib/python3.11/site-packages/uvmd_vpci*"))
    debian.run("dpkg", "--remove", "uvmd")
    assert debian.asked() == ["stop uvmd-monitor.service"]
    # dpkg still knows the version of before: it is no upgrade all the same.
    debian.install(made.deb)
    assert debian.asked() == ["start uvmd.service"]


def test_an_upgrade_that_refuses_the_settings_waits_until_they_are_corrected(
    made: Made, debian: Debian
) -> None:
    debian.play_systemd()
    debian.install(made.deb)
    assert debian.asked() == ["start uvmd.service"]
    settings = debian.root / "etc" / "uvmd" / "uvmd.toml"
    before = settings.read_text()
    settings.write_text("[plugins]\nalow = []\n")
    done = debian.run("dpkg", "--install", "/tmp/uvmd.deb", check=False)
    assert done.returncode == 1
    assert "alow" in done.stderr
    assert "the new version refuses the settings" in done.stderr
    assert debian.asked() == []
    settings.write_text(before)
    debian.run("dpkg", "--configure", "uvmd")
    assert debian.asked() == ["restart uvmd.service"]
