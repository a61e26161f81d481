#!/usr/bin/env python3
"""Build the image of a utility VM from Debian's archive and this source tree; see --help."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from guestimage.layers import REPOSITORY, Builder, Image, Wishes
from guestimage.tools import BuildError

ABOUT = """\
Build what boots a utility VM with uvmd in it: vmlinux (the kernel as ELF, for QEMU's direct
boot), initramfs.cpio, and root.erofs (a read-only root; the guest writes to memory).

Packages and kernel come from Debian's archive; uvmd is the Debian package that `make packages`
builds of this source tree, with Python packages by the pinned hashes in .ci/constraints.txt.
Everything is cached: a second build takes what is there, a new ISO week takes Debian's updates.
Needs root (mmdebstrap, chroot). docs/guest-image.md has the whole story.
"""

EXAMPLES = """\
  build.py                              build, and print where the image is
  build.py -o /srv/uvm                  and put a copy of the files there
  build.py --include tcpdump,strace     with further Debian packages
  build.py --config my-uvmd.toml        with settings of your own
"""


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="build.py",
        description=ABOUT,
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="copy the finished files to DIR")
    parser.add_argument("--include", default="", metavar="PACKAGE,...", help="further Debian packages")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="becomes /etc/uvmd/uvmd.toml in the image"
    )
    parser.add_argument("--base", action="store_true", help="stop before uvmd: what the guest tests boot")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", default=REPOSITORY / ".cache" / "guest",
        help="where layers are kept (default: .cache/guest)",
    )  # fmt: skip
    return parser.parse_args(arguments)


def deliver(image: Image, output: Path) -> None:
    """Copy the files that a VMM needs."""
    output.mkdir(parents=True, exist_ok=True)
    for name in ("vmlinux", "initramfs.cpio", "root.erofs", "packages.txt", "image.json"):
        shutil.copyfile(image.folder / name, output / name)


def report(image: Image, where: Path) -> str:
    """Say what there is."""
    lines = []
    for path in (image.kernel, image.initramfs, image.root):
        lines.append(f"  {where / path.name}  {path.stat().st_size / 2**20:.0f} MiB")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if os.geteuid() != 0:
        print("build.py: a root file system can be made by root only: sudo make guest-image", file=sys.stderr)
        return 1
    wishes = Wishes([name for name in options.include.split(",") if name], options.config)
    try:
        builder = Builder(options.cache, wishes)
        image = builder.base() if options.base else builder.uvm()
    except (BuildError, ValueError, OSError) as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    if options.output:
        deliver(image, options.output)
    print(report(image, options.output or image.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
