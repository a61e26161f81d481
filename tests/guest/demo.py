"""`make guest-demo`: a utility VM from Debian's kernel and packages, with uvmd as its service.

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
from guest.harness.devices import Disk
from guest.harness.guest import Guest
from guest.harness.leaks import Holdings, differences, holdings
from guest.harness.profiles import PROFILES
from guest.harness.snapshots import accelerator, boot_product
from guest.harness.timeline import negotiate
from support import machine, rootfs
from support.daemon import ENVIRONMENT

LAYER = "/run/layers/busybox"


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n# {text}", flush=True)


class Demo:
    """A guest, and the host's hand tool that listens where the guest's vsock ends."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.steps: list[tuple[str, float]] = []

    def uvmctl(self, *arguments: str, expect: int = 0) -> str:
        """Run a command of the host, showing it, its output as it comes, and its exit code."""
        print(f"$ uvmctl {' '.join(_quoted(word) for word in arguments)}", flush=True)
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
                print(f"  {line}", end="", flush=True)
                text += line
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


def make_layer(target: Path) -> Path:
    """Make an ext4 image of a small root file system, as a host has for each container layer."""
    with target.open("wb") as file:
        file.truncate(16 << 20)
    command = ["mkfs.ext4", "-q", "-b", "4096", "-d", str(rootfs.shared()), str(target)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return target


def boot() -> Guest:
    product = image.product()
    sizes = [f"{path.name} {path.stat().st_size >> 20} MiB" for path in (product.kernel, product.root)]
    print(f"  image: {product.folder}, {', '.join(sizes)}\n  accelerator: {accelerator()}", flush=True)
    made = boot_product(PROFILES["v2"])
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

    say("3. The host plugs in a disk with a root file system (a real SCSI disk to the guest).")
    disk = guest.add_disk(make_layer(guest.folder / "layer.ext4"), lun=1, read_only=True)
    device = disk.wait()
    demo.inside(f"mkdir -p {LAYER}; mount -o ro {device} {LAYER}; findmnt -no SOURCE,FSTYPE,OPTIONS {LAYER}")

    say("4. A container from it: created, started, streamed, deleted.")
    script = "echo hello from $(hostname), pid $$, kernel $(uname -r); exit 7"
    text = demo.uvmctl("run", "--rm", "--name", "demo", "--read-only", LAYER, "sh", "-c", script, expect=7)
    assert "hello from demo, pid 1" in text
    demo.uvmctl("run", "-d", "--name", "web", "--read-only", "-m", "64m", LAYER, "sleep", "600")
    demo.uvmctl("exec", "web", "ps")

    say("5. The daemon dies (kill -9). Its monitor keeps the container and starts another.")
    dead = guest.daemon.kill()
    print(f"  -> it was process {dead}, now it is {guest.daemon.wait_for_another(dead)}", flush=True)
    demo.uvmctl("exec", "web", "sh", "-c", "echo still here; exit 3", expect=3)

    say("6. Everything goes again.")
    demo.uvmctl("rm", "-f", "web")
    take_down(demo, disk, before)


def take_down(demo: Demo, disk: Disk, before: Holdings) -> None:
    guest = demo.guest
    demo.inside(f"umount {LAYER}; rmdir -p --ignore-fail-on-non-empty {LAYER}")
    disk.remove()
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
