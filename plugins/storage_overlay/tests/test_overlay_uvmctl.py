"""`uvmctl layers`, `mounts` and `detach` with the real daemon (root)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import machine
from support.daemon import ENVIRONMENT, Daemon, running

pytestmark = [pytest.mark.root, pytest.mark.system]


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running() as daemon:
        daemon.host.refuse()  # the commands are the host here
        yield daemon


def uvmctl(daemon: Daemon, *arguments: str, status: int = 0) -> tuple[str, str]:
    ended = subprocess.run(
        [str(machine.BIN / "uvmctl"), *arguments],
        env={**ENVIRONMENT, "UVMD_HOST": daemon.host.address},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == status, f"{ended}\n{daemon.describe()}"
    return ended.stdout, ended.stderr


def table(daemon: Daemon) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(uvmctl(daemon, "mounts", "--json")[0])
    return rows


def test_layers_are_put_together_shown_and_taken_apart(daemon: Daemon) -> None:
    layers = [daemon.folder / name for name in ("upper", "lower")]
    for layer in layers:
        layer.mkdir()
        (layer / layer.name).touch()
    root, scratch = daemon.bundles / "c" / "web" / "rootfs", daemon.folder / "scratch"
    uvmctl(daemon, "layers", "--scratch", str(scratch), str(root), *map(str, layers))
    assert sorted(path.name for path in root.iterdir()) == ["lower", "upper"]
    bind, overlay = table(daemon)
    assert (bind["kind"], bind["used_by"]) == ("Bind", [str(root)])
    assert (overlay["request"], overlay["uses"][:2]) == ("CombinedLayers", [*map(str, layers)])
    lines = uvmctl(daemon, "mounts")[0].splitlines()
    assert lines[0].split()[:3] == ["TARGET", "SOURCE", "KIND"]
    assert "does not know how" in uvmctl(daemon, "detach", str(root.parent), status=1)[1]
    uvmctl(daemon, "detach", str(root))
    assert table(daemon) == []
    assert not Path(root).exists()


def test_what_cannot_be_attached_says_why_and_ends_with_one(daemon: Daemon) -> None:
    where = str(daemon.bundles / "m")
    said = uvmctl(daemon, "attach", "9p", "--port", "999", where, status=1)[1]
    assert f"could not connect to plan9 server for {where}: port 999: " in said
    said = uvmctl(daemon, "layers", where + "/rootfs", "/nowhere/a", "/nowhere/b", status=1)[1]
    assert "layer 1 of 2 /nowhere/a: no such file or directory" in said
    assert "nothing that a request has mounted" in uvmctl(daemon, "detach", where, status=1)[1]
