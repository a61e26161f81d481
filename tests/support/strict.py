"""A strict VM for wire tests: the real daemon whose host has set a scripted policy."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvmd
from support import machine, rootfs, specs
from support.containers import Container, new_id
from support.daemon import Daemon
from support.host import NULL_ID, Connection
from uvmd.api.testing import POLICY

SCRIPTED = Path(__file__).parent / "scripted_daemon.py"
MONITOR = Path(uvmd.__file__).parent / "monitor" / "__main__.py"


@contextlib.contextmanager
def strict_vm(runtime: str, script: dict[str, Any], **options: str) -> Iterator[tuple[Daemon, Connection]]:
    """A daemon whose host has set a scripted policy."""
    daemon = Daemon(runtime=runtime, options={"paths-bundle-roots": "/run/gcs", **options})
    flags = [f"--{key}={value}" for key, value in daemon.options.items()]
    python = str(machine.BIN / "python")
    # As `uvmd serve` does it, with another program in the daemon's place.
    daemon.program = [python, "-I", "-S", str(MONITOR), "--", python, "-I", str(SCRIPTED)]
    daemon.program += [f"--script={json.dumps(script)}", *flags]
    try:
        daemon.start()
        bridge = daemon.connect()
        settings = {"EnforcerType": "scripted", "EncodedSecurityPolicy": POLICY}
        bridge.modify(NULL_ID, "SecurityPolicy", settings=settings)
        yield daemon, bridge
        bridge.close()
        assert daemon.stop() == 0, daemon.describe()
    finally:
        daemon.close()


@contextlib.contextmanager
def strict_root(container_id: str) -> Iterator[Path]:
    """A root for the id, in the only place that a strict VM takes (spec containers.md 15.2)."""
    bundle = Path("/run/gcs/c") / container_id
    root = bundle / "rootfs"
    root.mkdir(parents=True)
    # As the host's layers would be: mounted there, by somebody else. Writable, but not for the
    # next test: a security context directory would stay in the root that they share.
    written = Path(tempfile.mkdtemp(prefix="uvmd-strict-", dir="/dev/shm"))
    for name in ("upper", "work"):
        (written / name).mkdir()
    options = f"lowerdir={rootfs.shared()},upperdir={written}/upper,workdir={written}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(root)], check=True)
    try:
        yield root
    finally:
        # Gone already, when the test has deleted the container.
        subprocess.run(["umount", "-l", str(root)], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(written, ignore_errors=True)
        for folder in (root, bundle):
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def strict_container(bridge: Connection, *args: str, **of_spec: Any) -> Iterator[Container]:
    """A container in the only places that a strict VM takes."""
    container = Container(bridge, new_id())
    with strict_root(container.id) as root:
        bundle = root.parent
        bridge.create(
            container.id,
            specs.container(*args, root=root, **of_spec),
            OciBundlePath=str(bundle),
            ScratchDirPath=str(bundle / "scratch" / container.id),
        )
        yield container
        container.kill()
        bridge.wait_for_notification(container.id)
        subprocess.run(["umount", str(root)], check=True)
        container.delete()
