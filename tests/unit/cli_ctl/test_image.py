"""uvmctl image: what is printed, written, refused and cleaned up."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from unit.cli_ctl.conftest import Invoke
from unit.image.archives import Layout, entry, tar
from uvmd.cli.ctl.image_jobs import Job, build_all
from uvmd.cli.ctl.image_progress import ProgressLine, describe

BASE = tar(entry("a", b"1"), entry("b", b"2"))
UPPER = tar(entry(".wh.a"), entry("c", b"3", mtime=2_000_000_000))


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    (tmp_path / "rootfs.tar").write_bytes(BASE)
    return tmp_path / "rootfs.tar"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    made = Layout()
    made.image([BASE, UPPER], kinds=["gzip", ""])
    return made.write(tmp_path / "oci")


def test_a_tar_becomes_a_file_and_its_root_hash_is_printed(
    invoke: Invoke, rootfs: Path, tmp_path: Path
) -> None:
    result = invoke("image", "build", str(rootfs), "-o", str(tmp_path / "x.img"))
    assert result.exit_code == 0
    headers, row = result.stdout.splitlines()
    assert headers.split() == ["IMAGE", "LAYER", "FILES", "EXT4", "SIZE", "ROOT", "HASH"]
    info = json.loads(invoke("image", "info", str(tmp_path / "x.img"), "--json").stdout)
    assert row.split()[-1] == info["root_hash"]
    assert "a host that makes its own images of the same layers has its own hashes" in result.stderr


def test_an_oci_image_becomes_a_directory_of_layers(invoke: Invoke, layout: Path, tmp_path: Path) -> None:
    result = invoke("image", "build", str(layout), "-o", str(tmp_path / "out"), "--json")
    made = json.loads(result.stdout)
    assert (result.stderr, made["source"]) == ("", "oci")
    files = sorted(one.name for one in (tmp_path / "out").iterdir())
    assert [Path(one["path"]).name for one in made["images"]] == files
    assert [name[:4] for name in files] == ["000-", "001-"]
    assert made["images"][0]["diff_id"] != made["images"][0]["digest"]
    for one in made["images"]:
        assert invoke("image", "verify", one["path"], "--root-hash", one["root_hash"]).exit_code == 0


def test_hashing_writes_nothing_and_gives_the_same(invoke: Invoke, layout: Path, tmp_path: Path) -> None:
    built = json.loads(invoke("image", "build", str(layout), "-o", str(tmp_path / "out"), "--json").stdout)
    hashed = json.loads(invoke("image", "hash", str(layout), "--json").stdout)
    assert [one["root_hash"] for one in hashed["images"]] == [one["root_hash"] for one in built["images"]]
    assert [one["path"] for one in hashed["images"]] == [None, None]
    assert "(not written)" in invoke("image", "hash", str(layout)).stdout


def test_squashed_it_is_one_file_and_may_be_a_vhd(invoke: Invoke, layout: Path, tmp_path: Path) -> None:
    path = tmp_path / "all.vhd"
    assert invoke("image", "build", str(layout), "--squash", "--vhd", "-o", str(path)).exit_code == 0
    info = invoke("image", "info", str(path)).stdout
    assert "with VHD footer" in info
    assert "made by     uvmctl" in info
    assert "table       0 " in info


def test_times_are_clamped_when_asked_or_by_the_environment(
    invoke: Invoke, layout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashes(*options: str) -> list[str]:
        images = json.loads(invoke("image", "hash", str(layout), "--json", *options).stdout)["images"]
        return [one["root_hash"] for one in images]

    plain, clamped = hashes(), hashes("--clamp-mtime", "5")
    assert plain[0] == clamped[0]
    assert plain[1] != clamped[1]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    assert hashes() == clamped
    assert "later than 5 (seconds since 1970)" in invoke("image", "hash", str(layout)).stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["build", "{none}", "-o", "{out}"], "uvmctl: cannot open"),
        (["build", "{oci}", "-o", "{tar}"], "is a file, and an OCI image has several layers"),
        (["build", "{tar}", "-o", "{oci}"], "is not a regular file"),
        (["build", "{tar}", "-o", "{none}/x"], "there is no directory"),
        (["build", "{oci}", "--platform", "linux/s390x", "-o", "{out}"], "no image for linux/s390x"),
        (["build", "{tar}", "--ref", "x", "-o", "{out}"], "is no OCI layout"),
        (["info", "{tar}"], "not an ext4 file system"),
        (["verify", "{none}"], "cannot open"),
    ],
)
def test_an_error_is_one_line_and_status_1(
    invoke: Invoke, layout: Path, rootfs: Path, tmp_path: Path, words: list[str], says: str
) -> None:
    places = {"oci": layout, "tar": rootfs, "none": tmp_path / "none", "out": tmp_path / "out"}
    result = invoke("image", *(word.format(**places) for word in words))
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert says in result.stderr


def test_errors_are_json_with_json(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("image", "hash", str(tmp_path / "none"), "--json")
    assert json.loads(result.stderr)["error"] == "BadSource"


def test_a_root_hash_that_is_none_is_a_wrong_usage(invoke: Invoke, rootfs: Path) -> None:
    assert invoke("image", "verify", str(rootfs), "--root-hash", "12").exit_code == 2


def test_a_layer_that_fails_takes_the_others_with_it(invoke: Invoke, tmp_path: Path) -> None:
    made = Layout()
    made.image([BASE, tar(entry("../x"))])
    result = invoke("image", "build", str(made.write(tmp_path / "oci")), "-o", str(tmp_path / "out"))
    assert (result.exit_code, "'..' in its path" in result.stderr) == (1, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_it_takes_the_half_made_image_along(
    invoke: Invoke, rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def be_ended(line: ProgressLine, step: str, done: int, total: int) -> None:
        if list(tmp_path.glob(".x.img.*.partial")):
            signal.raise_signal(number)

    monkeypatch.setattr(ProgressLine, "__call__", be_ended)
    before = signal.signal(number, signal.SIG_DFL)  # under nohup it is ignored, and that is obeyed
    try:
        result = invoke("image", "build", str(rootfs), "-o", str(tmp_path / "x.img"))
    finally:
        after = signal.signal(number, before)
    assert result.exit_code == 128 + number
    assert list(tmp_path.iterdir()) == [rootfs]
    assert after is signal.SIG_DFL


def test_warnings_are_said_once_each(invoke: Invoke, tmp_path: Path) -> None:
    noisy = tar(entry("f", pax_headers={"SCHILY.acl.access": "user::rwx"}))
    made = Layout()
    made.image([noisy, noisy])
    result = invoke("image", "hash", str(made.write(tmp_path / "oci")))
    assert result.stderr.count("uvmctl: warning: ") == 1


class Terminal:
    """Standard error as a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_progress_paints_over_itself_and_wipes_its_line(
    monkeypatch: pytest.MonkeyPatch, layout: Path
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressLine(quiet=False) as line:
        job = Job(str(layout), None, squash=False, vhd=False, platform="", reference="", clamp_mtime=None)
        assert build_all(job, line)[0] == "oci"
    assert "\rlayer 1/2: hashing 100% of 2 B" in terminal.text
    assert terminal.text.endswith("\r")
    assert "\n" not in terminal.text


def test_progress_that_comes_too_fast_is_not_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressLine(quiet=False) as line:
        for done in range(1000):
            line("hash", done, 1000)
    assert terminal.text.count("hashing") < 100


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine(quiet=False) as line:
        line("hash", 1, 1)
    assert capsys.readouterr().err == ""


def test_a_painting_says_step_share_and_whole() -> None:
    assert describe("verify", 512, 1024) == "verifying  50% of 1.0 KiB"
