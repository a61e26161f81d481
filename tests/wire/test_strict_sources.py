"""Sources of a strict VM's mounts: what the policy has read is what is bound, with both runtimes."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import specs
from support.containers import Container, new_id, shell
from support.host import CREATE, ZERO_GUID, Connection, code
from support.pods import bind
from support.strict import strict_root, strict_vm


@pytest.fixture
def writable() -> Iterator[Path]:
    """A directory such as containers and hosts write to: a file system that is mounted somewhere."""
    with tempfile.TemporaryDirectory(prefix="uvmd-sources-", dir="/dev/shm") as name:
        folder = Path(name)
        (folder / "plain" / "inner").mkdir(parents=True)
        (folder / "plain" / "x").write_text("found\n")
        (folder / "link").symlink_to("plain")
        yield folder


def create(bridge: Connection, root: Path, mounts: list[dict[str, Any]], *args: str) -> dict[str, Any]:
    id = root.parent.name
    spec = specs.container(*(args or ("/bin/sleep", "60")), root=root)
    spec["mounts"] += mounts
    places = {"OciBundlePath": str(root.parent), "ScratchDirPath": str(root.parent / "scratch" / id)}
    config = bridge.host.container_config(id, spec, **places)
    return bridge.ask(CREATE, {"ContainerId": id, "ActivityId": ZERO_GUID, "ContainerConfig": config})


def test_directories_files_and_devices_are_bound_with_what_is_mounted_in_them(
    runtime: str, writable: Path
) -> None:
    inner = writable / "plain" / "inner"
    subprocess.run(["mount", "-t", "tmpfs", "inner", inner], check=True)
    (inner / "y").write_text("deeper\n")
    named = [
        bind("/mnt", str(writable / "plain")),
        bind("/etc/group", str(writable / "plain" / "x"), "ro"),
        bind("/lamp", "/dev/null"),
    ]
    script = shell("cat /mnt/x /mnt/inner/y /etc/group; test -c /lamp && echo lamp; ls /mnt | wc -l")
    try:
        with strict_vm(runtime, {}) as (daemon, bridge), strict_root(new_id()) as root:
            assert code(create(bridge, root, named, *script)) == "S_OK"
            container = Container(bridge, root.parent.name)
            init = container.init(stdout=True)
            assert init.stdout.read_all() == b"found\ndeeper\nfound\nlamp\n2\n"
            bridge.wait_for_notification(container.id)
            work = Path(daemon.run_dir) / "containers" / container.id
            assert [path.name for path in work.glob("*")] == [], "the places are gone again"
            assert inner.is_mount()
            subprocess.run(["umount", str(root)], check=True)
            container.delete()
    finally:
        subprocess.run(["umount", inner], check=True)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{}/link", "Too many levels of symbolic links"),
        ("{}/link/x", "Too many levels of symbolic links"),
        ("{}/plain/../plain", "mounts[6].source is not an absolute, clean path"),
        ("{}/none", "No such file or directory"),
        ("etc", "mounts[6].source is not an absolute, clean path"),
        ("sandbox:///plain", "mounts[6].source is not an absolute, clean path"),
        ("{}/plain\0/x", "mounts[6].source has a NUL"),
    ],
)
def test_a_source_that_may_be_another_is_refused(
    runtime: str, writable: Path, source: str, reason: str
) -> None:
    with strict_vm(runtime, {}) as (_, bridge), strict_root(new_id()) as root:
        answer = create(bridge, root, [bind("/mnt", source.format(writable))])
        assert code(answer) in ("E_FAIL", "INVALID_JSON")
        assert reason in answer["ErrorMessage"]
        assert [path.name for path in root.parent.iterdir()] == ["rootfs"]
