"""Mounts that are named by a scheme: of the pod, of the VM, of a disk (spec containers.md 5.3, 7.8-7.10).

Only texts are worked on here. What has to exist, and what has to be made, is said in the
result: nobody may learn from a refusal what is in the VM before the policy was asked.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Any, Final

from uvmd.errors import Refused
from uvmd.linux.paths import is_clean_absolute
from uvmd.oci.spec import SPEC_FIELD

SANDBOX: Final = "sandbox://"
SANDBOX_TMP: Final = "sandbox-tmp://"
HUGEPAGES: Final = "hugepages://"
UVM: Final = "uvm://"
BLOCKDEV: Final = "blockdev://"

SANDBOX_MOUNTS: Final = "sandboxMounts"
TMPFS_MOUNTS: Final = "sandboxTmpfsMounts"
HUGEPAGE_MOUNTS: Final = "hugepages"

#: Of a source's scheme, the directory below the sandbox's root.
DIRECTORIES: Final = {SANDBOX: SANDBOX_MOUNTS, SANDBOX_TMP: TMPFS_MOUNTS, HUGEPAGES: HUGEPAGE_MOUNTS}

_PAGE_SIZE: Final = re.compile(r"[1-9][0-9]{0,6}[KMG]")


@dataclass(frozen=True, slots=True)
class PodSource:
    """A source below a directory of the pod: ``root/directory/relative``."""

    directory: str
    relative: str
    page_size: str = ""

    @property
    def below(self) -> str:
        """The path below the sandbox's root."""
        return f"{self.directory}/{self.relative}" if self.relative else self.directory


@dataclass(frozen=True, slots=True)
class Sources:
    """What the mounts of one container need: of the pod, of the VM, and disks by destination.

    ``others`` are all absolute sources of a strict VM; elsewhere the runtime looks for them.
    """

    pod: tuple[PodSource, ...] = ()
    uvm: tuple[str, ...] = ()
    disks: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def apply_schemes(spec: dict[str, Any], root: str) -> tuple[dict[str, Any], Sources]:
    """Return the specification with real paths for a sandbox root, and what they need.

    Raises:
        Refused: a path that leaves its directory, or a page size that is none.
    """
    pod: list[PodSource] = []
    uvm: list[str] = []
    disks: list[str] = []
    mounts = []
    for mount in spec.get("mounts", ()):
        source, destination = mount.get("source", ""), mount.get("destination", "")
        scheme = _scheme(source)
        if scheme in DIRECTORIES:
            found = _pod_source(scheme, source)
            pod.append(found)
            mount = {**mount, "source": f"{root}/{found.below}"}
        elif scheme == UVM:
            path = _vm_path(source.removeprefix(UVM), UVM)
            uvm.append(path)
            mount = {**mount, "source": path}
        if destination.startswith(BLOCKDEV):
            inside = _vm_path(destination.removeprefix(BLOCKDEV), BLOCKDEV)
            disks.append(inside)
            mount = {**mount, "destination": inside}
        mounts.append(mount)
    sources = Sources(tuple(dict.fromkeys(pod)), tuple(uvm), tuple(disks))
    return ({**spec, "mounts": mounts} if "mounts" in spec else spec), sources


def check_strict_sources(spec: dict[str, Any]) -> None:
    """Refuse sources that are elsewhere than a policy reads in them; paths are real by now.

    Patterns of a policy match ``..`` too, and a relative path begins where the runtime happens to be.

    Raises:
        Refused: a path that is not clean, or a bind mount without an absolute one.
    """
    for number, mount in enumerate(spec.get("mounts", ())):
        source = mount.get("source", "")
        if not is_clean_absolute(source) and (source.startswith("/") or _is_bind(mount)):
            raise Refused(f"{SPEC_FIELD}.mounts[{number}].source is not an absolute, clean path")


def _is_bind(mount: dict[str, Any]) -> bool:
    return mount.get("type") == "bind" or not {"bind", "rbind"}.isdisjoint(mount.get("options", ()))


def absolute_sources(spec: dict[str, Any]) -> tuple[str, ...]:
    """Return each absolute source once; those of a file system that is no bind mount too."""
    found = (mount.get("source", "") for mount in spec.get("mounts", ()))
    return tuple(dict.fromkeys(source for source in found if source.startswith("/")))


def replace_sources(spec: dict[str, Any], places: dict[str, str]) -> dict[str, Any]:
    """Return the specification with mounts taken from other places; ``places`` is by source."""
    if not places:
        return spec
    mounts = [
        {**mount, "source": places[mount["source"]]} if mount.get("source") in places else mount
        for mount in spec.get("mounts", ())
    ]
    return {**spec, "mounts": mounts}


def _scheme(source: str) -> str:
    return next((scheme for scheme in (*DIRECTORIES, UVM) if source.startswith(scheme)), "")


def _pod_source(scheme: str, source: str) -> PodSource:
    directory = DIRECTORIES[scheme]
    # By whole components: the reference's prefix let "../sandboxMountsX" pass (16.27).
    relative = posixpath.normpath("./" + source.removeprefix(scheme))
    if relative == ".." or relative.startswith("../") or "\0" in relative:
        raise Refused(f"a {scheme} mount must stay in the pod's directory {directory}")
    relative = "" if relative == "." else relative
    if scheme != HUGEPAGES:
        return PodSource(directory, relative)
    size = relative.partition("/")[0]
    if not _PAGE_SIZE.fullmatch(size):
        raise Refused(f"a {HUGEPAGES} mount begins with a page size, as 2M")
    return PodSource(directory, relative, size)


def _vm_path(text: str, scheme: str) -> str:
    path = posixpath.normpath("/" + text.lstrip("/")) if text.startswith("/") else text
    if not is_clean_absolute(path):
        raise Refused(f"a {scheme} mount names an absolute path")
    return path
