"""`make guest-demo`: a utility VM from Debian's kernel and packages, with uvmd as its service.

A container runs in it whose layers are a SCSI disk and persistent memory, both protected by
dm-verity, under an overlay that writes to an encrypted disk; then everything is taken down.

The host is outside: every line that begins with `$` is a command that you could type there.
What must be so is checked; the demo fails where it is not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from guest.harness import image
from guest.harness.guest import Guest
from guest.harness.snapshots import accelerator, boot_product
from guest.harness.timeline import negotiate
from support import machine, rootfs
from support.daemon import ENVIRONMENT
from uvmd.api.testing.guest.devices import Disk
from uvmd.api.testing.guest.leaks import Holdings, differences, holdings
from uvmd.api.testing.guest.profiles import PROFILES

#: What a policy would ask for: no layer without its hash tree.
SETTINGS = """
[plugin.storage_scsi]
verity = "always"

[plugin.storage_pmem]
verity = "always"
"""
BASE, TOP, SCRATCH = "/run/mounts/scsi/m0", "/run/layers/p0", "/run/mounts/scsi/m1"
ROOT = "/run/gcs/c/web/rootfs"
PAGE = 2 << 20
SCRATCH_MIB = 512  # xfs takes no less than 300, encryption some for itself


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n# {text}", flush=True)


class Demo:
    """A guest, and the host's hand tool that listens where the guest's vsock ends."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.steps: list[tuple[str, float]] = []

    def uvmctl(self, *arguments: str, expect: int = 0, into: Path | None = None) -> str:
        """Run a command of the host, showing it, its output as it comes, and its exit code.

        With ``into`` the output goes into a file instead.
        """
        redirected = f" >{into}" if into else ""
        print(f"$ uvmctl {' '.join(_quoted(word) for word in arguments)}{redirected}", flush=True)
        began = time.monotonic()
        environment = {**ENVIRONMENT, "UVMD_HOST": f"unix:{self.guest.host.path}"}
        command = [str(machine.BIN / "uvmctl"), *arguments]
        text = ""
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if into is None:
                    print(f"  {line}", end="", flush=True)
                text += line
        if into is not None:
            into.write_text(text)
        taken = time.monotonic() - began
        self.steps.append((f"uvmctl {arguments[0]}", taken))
        print(f"  -> exit code {process.returncode}, {taken:.1f} s", flush=True)
        if process.returncode != expect:
            raise SystemExit(f"expected exit code {expect}; uvmd says:\n{self.guest.daemon.log()}")
        return text

    def inside(self, command: str) -> str:
        """Run a command in the guest, showing it."""
        print(f"guest# {command}", flush=True)
        text = self.guest.sh(command)
        print("".join(f"  {line}\n" for line in text.splitlines()), end="", flush=True)
        return text


def _quoted(word: str) -> str:
    return f"'{word}'" if any(letter in word for letter in ' ;$*"') else word


def make_layers(demo: Demo) -> tuple[Path, Path]:
    """Make the images of two layers, as a host has one for each layer of a container's image."""
    folder = demo.guest.folder
    top = folder / "top"
    (top / "srv").mkdir(parents=True)
    (top / "srv" / "page").write_text("served from persistent memory\n")
    for source, name in ((rootfs.shared(), "base.img"), (top, "top.img")):
        demo.uvmctl("image", "build", str(source), "-o", str(folder / name))
    # Persistent memory comes in whole pages of the host's.
    with (folder / "top.img").open("ab") as file:
        file.truncate(-(-file.tell() // PAGE) * PAGE)
    return folder / "base.img", folder / "top.img"


def boot() -> Guest:
    product = image.product()
    sizes = [f"{path.name} {path.stat().st_size >> 20} MiB" for path in (product.kernel, product.root)]
    print(f"  image: {product.folder}, {', '.join(sizes)}\n  accelerator: {accelerator()}", flush=True)
    made = boot_product(PROFILES["v2"], SETTINGS)
    try:
        for line in negotiate(made).lines():
            print(f"  {line}", flush=True)
    except BaseException:
        made.close()
        raise
    return made


def show(demo: Demo) -> None:
    guest = demo.guest
    say("2. It is a whole system: Debian's kernel, systemd, uvmd as its service.")
    demo.inside("uname -sr; systemctl list-units --type=service --state=running --no-legend --plain")
    # From here on uvmctl is the host.
    guest.hang_up()
    guest.host.refuse()
    demo.uvmctl("ping", "-c", "3")
    before = guest.call(holdings)

    say("3. Two layers of a root file system as images, each with its dm-verity hash tree.")
    base, top = make_layers(demo)

    say("4. The host plugs them in, one as a SCSI disk, one as persistent memory, and an empty disk.")
    disks = [
        guest.add_disk(base, lun=0, read_only=True),
        guest.add_disk(guest.image("scratch", SCRATCH_MIB), lun=1),
    ]
    # This one cannot be pulled out again: QEMU knows no way to unplug memory of this kind.
    guest.add_pmem(top, read_only=True)
    demo.uvmctl("attach", "scsi", "--read-only", "0:0", BASE)
    demo.uvmctl("attach", "pmem", "0", TOP)
    demo.uvmctl("attach", "scsi", "--encrypted", "--format", "xfs", "0:1", SCRATCH)
    demo.uvmctl("layers", "--scratch", f"{SCRATCH}/web", ROOT, TOP, BASE)
    demo.uvmctl("mounts")
    kinds = demo.inside("dmsetup table | cut -d' ' -f1,4,5; findmnt -lno FSTYPE,TARGET -t overlay,ext4,xfs")
    for kind in ("verity", "crypt", "integrity", "overlay"):
        assert kind in kinds, f"nothing of {kind}"

    say("5. A container on top of them: it reads both layers and writes to the encrypted disk.")
    script = "cat /srv/page; echo written >/srv/new; exec sleep 600"
    spec = guest.folder / "web.json"
    wishes = ("--hostname", "web", "-m", "64m")
    demo.uvmctl("run", "--print-spec", *wishes, ROOT, "sh", "-c", script, into=spec)
    demo.uvmctl("create", "-f", str(spec), "--scratch", f"{SCRATCH}/web", "web")
    demo.uvmctl("start", "web")
    text = demo.uvmctl(
        "exec", "web", "sh", "-c", "cat /srv/page /srv/new; df -h / | tail -1; exit 3", expect=3
    )
    assert "served from persistent memory\nwritten\n" in text

    say("6. The daemon dies (kill -9). Its monitor keeps the container, systemd starts another.")
    dead = guest.daemon.kill()
    print(f"  -> it was process {dead}, now it is {guest.daemon.wait_for_another(dead)}", flush=True)
    demo.uvmctl("exec", "web", "sh", "-c", "cat /srv/new; exit 3", expect=3)

    say("7. Everything goes again, in the host's order.")
    demo.uvmctl("kill", "web")
    demo.uvmctl("wait", "web", expect=137)
    demo.uvmctl("detach", ROOT)
    demo.uvmctl("rm", "web")
    demo.uvmctl("detach", "--scsi", "0:1", SCRATCH)
    demo.uvmctl("detach", "--scsi", "0:0", BASE, TOP)
    take_down(demo, disks, before)


def take_down(demo: Demo, disks: list[Disk], before: Holdings) -> None:
    guest = demo.guest
    for disk in disks:
        disk.remove()
    assert "/run/" not in demo.uvmctl("mounts")
    deadline = time.monotonic() + 10
    while (left := differences(before, guest.call(holdings))) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, "left behind in the guest:\n" + "\n".join(left)
    guest.assert_kernel_is_calm()
    print("  -> no mount, device, cgroup, process, descriptor or file is left; the kernel is calm")


def main() -> int:
    if os.geteuid() != 0:
        print("the demo builds an image and runs QEMU as root: sudo make guest-demo", file=sys.stderr)
        return 1
    say("1. Boot the image of a utility VM, up to the first answer of uvmd.")
    made = boot()
    try:
        demo = Demo(made)
        show(demo)
    finally:
        made.close()
    say("Each step, as the host saw it (emulated: about ten times slower than a real machine):")
    for name, taken in demo.steps:
        print(f"  {name:<16}{taken:6.1f} s")
    print("\nThe guest is gone. Next: docs/guest-image.md, docs/guest-tests.md.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
