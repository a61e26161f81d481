"""uvmd plugin guest: a VM to type commands into."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from uvmd.api.testing.guest.errors import GuestHung
from uvmd.cli import plugin_guest
from uvmd.cli.commands import uvmd

ended: list[bool] = []


class Echo:
    """A guest whose shell repeats what it is told."""

    address = "unix:/f/host"

    def __init__(self, image: object, *, distributions: tuple[str, ...]) -> None:
        self.distributions = distributions
        ended.clear()

    def sh(self, command: str, **_: Any) -> str:
        if "hang" in command:
            raise GuestHung("no answer; the guest was killed")
        return f"{command} by {self.distributions[0]}\n"

    def close(self) -> None:
        ended.append(True)


@pytest.fixture
def booting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_guest, "Guest", Echo)
    monkeypatch.setattr(plugin_guest, "find_image", lambda folder: folder)


WORDS = ["plugin", "guest", "--image", "/i", "uvmd-lamp"]


@pytest.mark.usefixtures("booting")
def test_each_line_runs_in_the_guest_which_ends_with_the_input() -> None:
    done = CliRunner().invoke(uvmd, WORDS, input="uname\nls /\n")
    assert done.exit_code == 0
    assert "uvmctl --host unix:/f/host ping" in done.output
    assert "guest# exec 2>&1; uname\n by uvmd-lamp\nguest# exec 2>&1; ls /\n by uvmd-lamp\n" in done.output
    assert ended == [True]


@pytest.mark.usefixtures("booting")
def test_a_guest_that_hangs_is_told_and_ended() -> None:
    done = CliRunner().invoke(uvmd, WORDS, input="hang\n")
    assert (done.exit_code, done.stderr) == (os.EX_CONFIG, "uvmd: no answer; the guest was killed\n")
    assert ended == [True]


def test_a_folder_without_an_image_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(uvmd, ["plugin", "guest", "--image", str(tmp_path)])
    assert done.exit_code == os.EX_CONFIG
    assert "is no folder with an image: vmlinux, initramfs.cpio, root.erofs not found" in done.stderr
