"""The image that a guest boots, and the archive that is unpacked on top of its root.

In the archive are the tests' hands in the guest (``inside``), what a plugin's author brings,
and further settings of uvmd. So the image is used as it is delivered.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uvmd.api.testing.guest.cpio import Archive
from uvmd.api.testing.guest.errors import GuestError
from uvmd.api.testing.guest.inside import helper, mirror, mux

PRODUCT_TARGET = "uvm.target"
#: The initramfs copies what is here to the root before it starts systemd.
_TOP = "extra"
#: In the archive.
UNITS_FOLDER = f"{_TOP}/etc/systemd/system"
_ROOM = "opt/testbed"
_SITE, _SETTINGS = f"{_ROOM}/site", f"{_ROOM}/uvmd.toml"
_INSIDE = "uvmd.api.testing.guest.inside"
_PROGRAMS = {
    "helper": f"/usr/bin/python3 -I -S /{_ROOM}/{_INSIDE.replace('.', '/')}/helper.py",
    # Not isolated, to find the other programs; the helper is, since tests' commands inherit from it.
    "mirror": f"/usr/bin/env PYTHONPATH=/{_ROOM} /usr/bin/python3 -s -S -P -m {_INSIDE}.mirror",
}
_UNIT = """\
[Unit]
Description=The tests' {name}
DefaultDependencies=no

[Service]
Type=notify
ExecStart={command}
Restart=always
RestartSec=100ms
KillMode=process
"""
# Which version of Python the image has is not known outside.
_BRINGING = f"""\
[Unit]
Description=What the tests bring
DefaultDependencies=no
Before=uvmd-monitor.service uvmd.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'cp -a /{_SITE}/. /opt/uvmd/lib/python3*/site-packages/'
ExecStart=/bin/sh -c 'cat /{_SETTINGS} >>/etc/uvmd/uvmd.toml'
"""


@dataclass(frozen=True, slots=True)
class Image:
    """A folder as ``make guest-image ARGS="-o DIR"`` fills it."""

    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinux"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initramfs.cpio"

    @property
    def root(self) -> Path:
        return self.folder / "root.erofs"


def find_image(folder: str) -> Image:
    """Return the image in a folder.

    Raises:
        GuestError: a file of it is not there.
    """
    image = Image(Path(folder).resolve())
    missing = [path.name for path in (image.kernel, image.initramfs, image.root) if not path.is_file()]
    if missing:
        raise GuestError(f"{folder} is no folder with an image: {', '.join(missing)} not found")
    return image


def helpers_archive(
    targets: Sequence[str] = (PRODUCT_TARGET,),
    *,
    files: Mapping[str, bytes] | None = None,
    settings: str = "",
) -> Archive:
    """Return the second initramfs archive.

    Args:
        targets: systemd's, which want the helpers.
        files: go into the site-packages of the image's uvmd before it starts.
        settings: lines of TOML, appended to the image's own settings of uvmd.
    """
    archive = Archive()
    for module in (helper, mirror, mux):
        path = f"{_TOP}/{_ROOM}/{module.__name__.replace('.', '/')}.py"
        archive.file(path, inspect.getsource(module).encode())
    for name, command in _PROGRAMS.items():
        unit = f"testbed-{name}.service"
        archive.file(f"{UNITS_FOLDER}/{unit}", _UNIT.format(name=name, command=command).encode())
        for target in targets:
            archive.link(f"{UNITS_FOLDER}/{target}.wants/{unit}", f"../{unit}")
    if files or settings:
        unit = "testbed-bring.service"
        archive.file(f"{UNITS_FOLDER}/{unit}", _BRINGING.encode())
        # Required: a uvmd without what was brought would not be the one that a test asks for.
        archive.link(f"{UNITS_FOLDER}/uvmd.service.requires/{unit}", f"../{unit}")
        archive.folder(f"{_TOP}/{_SITE}")
        for path, content in (files or {}).items():
            archive.file(f"{_TOP}/{_SITE}/{path}", content)
        archive.file(f"{_TOP}/{_SETTINGS}", f"\n{settings}\n".encode())
    return archive
