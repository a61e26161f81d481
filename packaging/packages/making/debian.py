"""The Debian package: a tree of files, what dpkg wants to know of it, and dpkg-deb.

No debhelper and no source package: the tree comes from wheels, and what is left is a page of
fields. lintian (tests/packages) looks over our shoulder.
"""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from building.distributions import VENV
from building.tools import place, run

from making.environment import make_environment
from making.wheel import Wheel

HERE = Path(__file__).parents[2]
MAINTAINER = "uvmd maintainers <maintainers@uvmd.invalid>"
#: What of the environment is compiled for: Debian 12 on x86-64.
ARCHITECTURE = "amd64"
#: libc6: the newest symbol version in the wheels' libraries, held by a test.
DEPENDS = (
    "python3 (>= 3.11~), python3 (<< 3.12)",
    "libc6 (>= 2.34)",
    "libgcc-s1",
    "crun | runc",
)
#: What plugins run, each when it is first needed; `uvmd doctor` names those that are missing.
RECOMMENDS = ("cryptsetup-bin", "e2fsprogs", "xfsprogs", "busybox | udhcpc", "chrony", "kmod", "systemd")
DESCRIPTION = """\
guest daemon of a utility VM: containers and devices, gated by policy
 uvmd runs in a small virtual machine that a host starts for containers. It
 dials the host and runs OCI containers for it, with disks, shares and network
 adapters that come and go. In a confidential VM the host is not trusted, and
 nothing happens that the measured policy does not allow.
 .
 The package holds the daemon, all plugins of its repository, and what they
 need of others, in an environment of their own below /opt/uvmd. Which plugins
 are loaded is chosen in /etc/uvmd/uvmd.toml. The host's tool uvmctl comes
 along; on a machine that is no virtual machine the service does not start.
"""
#: Commands on everybody's path, and the section of their manual page.
COMMANDS = {"uvmd": 8, "gcs": 8, "uvmctl": 1}
UNITS = ("uvmd.service", "uvmd-monitor.service", "uvmd.slice")


@dataclass(frozen=True, slots=True)
class Contents:
    """What a package is made from.

    Attributes:
        epoch: becomes the time of every file, in seconds since 1970.
        bill: the bill of materials.
    """

    wheels: Sequence[Wheel]
    version: str
    epoch: int
    bill: str
    repository: Path


def build(contents: Contents, room: Path, output: Path) -> Path:
    """Make the package in ``output``; ``room`` is an empty folder to work in."""
    tree = room / "tree"
    tree.mkdir(mode=0o755)
    make_environment(tree, contents.wheels)
    _place_files(tree, contents)
    _control(tree, contents)
    _settle(tree, contents.epoch)
    package = output / f"uvmd_{contents.version}_{ARCHITECTURE}.deb"
    # One thread: how many there are decides where xz begins its blocks.
    options = ("--root-owner-group", "-Zxz", "-z3", "--threads-max=1")
    run("dpkg-deb", *options, "--build", tree, package, env={"SOURCE_DATE_EPOCH": str(contents.epoch)})
    return package


def _place_files(tree: Path, contents: Contents) -> None:
    for unit in UNITS:
        place(HERE / "systemd" / unit, tree / "lib/systemd/system" / unit)
    place(HERE / "debian" / "uvmd.toml", tree / "etc/uvmd/uvmd.toml")
    place(HERE / "debian" / "byte_code.py", tree / VENV / "share" / "byte_code.py")
    place(HERE / "debian" / "lintian-overrides", tree / "usr/share/lintian/overrides/uvmd")
    for command, section in COMMANDS.items():
        link = tree / ("usr/bin" if section == 1 else "usr/sbin") / command
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"/{VENV}/bin/{command}")
        page = (HERE / "debian" / f"{command}.{section}").read_bytes()
        place(_packed(page), tree / f"usr/share/man/man{section}/{command}.{section}.gz")
    papers = tree / "usr/share/doc/uvmd"
    place(_copyright(contents).encode(), papers / "copyright")
    place(_packed(_changelog(contents).encode()), papers / "changelog.Debian.gz")
    place(_packed((contents.repository / "CHANGELOG.md").read_bytes()), papers / "changelog.gz")
    place(_packed(contents.bill.encode()), papers / "uvmd.cdx.json.gz")
    place(HERE / "systemd" / "tighter.conf", papers / "examples" / "tighter.conf")
    for page in ("hardening.md", "confinement.md", "operators.md"):
        place(contents.repository / "docs" / page, papers / page)


def _control(tree: Path, contents: Contents) -> None:
    control = tree / "DEBIAN"
    control.mkdir(mode=0o755)
    files = [path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink()]
    sums = (f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n" for path in files)
    place("".join(sums).encode(), control / "md5sums")
    place(b"/etc/uvmd/uvmd.toml\n", control / "conffiles")
    place(_fields(contents, installed_kib(tree)).encode(), control / "control")
    for script in ("postinst", "prerm", "postrm"):
        place(HERE / "debian" / script, control / script, 0o755)


def installed_kib(tree: Path) -> int:
    """Return the room that a package takes as dpkg counts it: files in whole KiB, others 1 KiB each."""
    sizes = (-(-path.lstat().st_size // 1024) if _is_plain(path) else 1 for path in tree.rglob("*"))
    return sum(sizes)


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _fields(contents: Contents, kib: int) -> str:
    return f"""\
Package: uvmd
Version: {contents.version}
Architecture: {ARCHITECTURE}
Maintainer: {MAINTAINER}
Installed-Size: {kib}
Depends: {", ".join(DEPENDS)}
Recommends: {", ".join(RECOMMENDS)}
Section: admin
Priority: optional
Description: {DESCRIPTION}"""


def _changelog(contents: Contents) -> str:
    date = email.utils.formatdate(contents.epoch)
    return (
        f"uvmd ({contents.version}) unstable; urgency=medium\n\n"
        f"  * See changelog.gz.\n\n -- {MAINTAINER}  {date}\n"
    )


def _copyright(contents: Contents) -> str:
    lines = [
        "uvmd and its plugins:\n",
        *(f"  {line}".rstrip() for line in (contents.repository / "LICENSE").read_text().splitlines()),
        "\nBelow /opt/uvmd lie these works of others, unchanged, as their authors published them on",
        "PyPI; the full text of each licence is in NAME-VERSION.dist-info beside the work:\n",
        *(f"  {wheel.name} {wheel.version}: {wheel.licence}" for wheel in contents.wheels if not wheel.ours),
        "\nWhere one of them gives the choice, the licences in /usr/share/common-licenses/Apache-2.0 and",
        "/usr/share/common-licenses/GPL-2 are meant.",
    ]
    return "\n".join(lines) + "\n"


def _packed(data: bytes) -> bytes:
    """Return it as `gzip -9n` would, whatever the time."""
    return gzip.compress(data, 9, mtime=0)


def _settle(tree: Path, epoch: int) -> None:
    """Give every file its mode and time; the caller's umask and clock do not count."""
    for path in _all(tree):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _all(tree: Path) -> Iterator[Path]:
    yield from tree.rglob("*")
    yield tree


def program() -> str | None:
    """Return where dpkg-deb is; None on a system that is not Debian's kind."""
    return shutil.which("dpkg-deb")
