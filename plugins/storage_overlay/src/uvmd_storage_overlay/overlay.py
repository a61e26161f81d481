"""Mounting an overlay from descriptors of its directories.

By descriptor, a layer is the directory that was opened without following symlinks, whatever
its path says by now; and no ``:``, ``,`` or ``\\`` in a path can be taken for a separator.

Linux 6.13 takes descriptors one by one through fsconfig(2). For older kernels the numbers
are written out and mount(2) is called from /proc/self/fd, where a number is a path: even
500 layers then fit the one page that mount(2) takes. There mountinfo shows the numbers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from uvmd.linux import mounts, syscalls


class Directories(NamedTuple):
    """Descriptors of what an overlay is made of; the topmost layer first."""

    layers: Sequence[int]
    #: Both, or neither: then the overlay is read-only.
    upper: int | None = None
    work: int | None = None

    @property
    def flags(self) -> int:
        """The mount's flags."""
        return syscalls.MS_RDONLY if self.upper is None else 0


def begin(layers: Sequence[int]) -> int | None:
    """Begin an overlay of these layers: its descriptor, for :func:`mount`.

    It can be seen nowhere, and asks no file system. None where mount(2) does it all at once.
    Raises OSError.
    """
    if not takes_descriptors():
        return None
    return mounts.begin_mount("overlay", _lower(layers))


def mount(target: int, made_of: Directories, begun: int | None = None) -> None:
    """Mount an overlay, ``begun`` of the same layers or new, onto the directory of a descriptor.

    Raises OSError.
    """
    if begun is not None or takes_descriptors():
        mount_by_descriptors(target, made_of, begun)
    else:
        mount_by_numbers(target, made_of)


@cache
def takes_descriptors() -> bool:
    """Tell whether this kernel's overlay takes a layer as a descriptor."""
    layer = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        context = syscalls.fsopen("overlay")
        try:
            syscalls.fsconfig(context, syscalls.FSCONFIG_SET_FD, "lowerdir+", aux=layer)
        finally:
            os.close(context)
    except OSError:
        return False
    finally:
        os.close(layer)
    return True


def mount_by_descriptors(target: int, made_of: Directories, begun: int | None = None) -> None:
    """Mount by fsopen(2), fsconfig(2) and so on."""
    if begun is None:
        options = [*_lower(made_of.layers), *_upper(made_of)]
        fd = mounts.new_mount("overlay", options, made_of.flags)
    else:
        fd = mounts.finish_mount(begun, _upper(made_of), made_of.flags)
    try:
        mounts.attach(fd, target)
    finally:
        os.close(fd)


def _lower(layers: Sequence[int]) -> list[mounts.Option]:
    return [("source", "overlay"), *(("lowerdir+", layer) for layer in layers)]


def _upper(made_of: Directories) -> list[mounts.Option]:
    return [] if made_of.upper is None else [("upperdir", made_of.upper), ("workdir", made_of.work)]


def mount_by_numbers(target: int, made_of: Directories) -> None:
    """Mount by mount(2) on a thread with a working directory of its own."""
    data = numbers(made_of)
    failures: list[BaseException] = []

    def mount_in_place() -> None:
        try:
            syscalls.unshare(syscalls.CLONE_FS)
            os.chdir("/proc/self/fd")
            mounts.mount("overlay", target, "overlay", made_of.flags, data)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=mount_in_place, name="overlay mount")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def numbers(made_of: Directories) -> str:
    """Return mount(2)'s data for descriptors, as seen from /proc/self/fd."""
    data = "lowerdir=" + ":".join(map(str, made_of.layers))
    if made_of.upper is not None:
        data += f",upperdir={made_of.upper},workdir={made_of.work}"
    return data
