"""Where a container's bundle and scratch directory may be."""

from __future__ import annotations

from collections.abc import Sequence

from uvmd.errors import Refused
from uvmd.linux.paths import is_below, is_clean_absolute
from uvmd.oci.spec import Spec, has_hooks


def root_above(path: str, roots: Sequence[str], what: str) -> str:
    """Return the configured root below which the path strictly lies.

    The path is removed recursively at delete (spec containers.md 16.4), so nothing else will do.

    Raises:
        Refused: it is not absolute and clean, or below no root.
    """
    if not is_clean_absolute(path):
        raise Refused(f"{what} {path!r:.300} is not an absolute, clean path")
    for root in roots:
        if is_below(path, root):
            return root
    raise Refused(f"{what} {path!r:.300} is not below {' or '.join(roots)}")


def check_strict_places(container_id: str, pod_id: str, bundle: str, scratch: str, spec: Spec) -> None:
    """Refuse, in a strict VM, all but the exact paths of spec containers.md 15.2, and hooks.

    Raises:
        Refused: naming the field and what it must be.
    """
    expected = f"/run/gcs/c/{container_id}"
    if bundle != expected:
        raise Refused(f"OciBundlePath must equal {expected}")
    if spec["root"]["path"] != f"{expected}/rootfs":
        raise Refused(f"OciSpecification.root.path must equal {expected}/rootfs")
    allowed = (f"{expected}/scratch/{container_id}", f"/run/gcs/c/{pod_id}/scratch/{container_id}")
    if scratch not in allowed:
        raise Refused(f"ScratchDirPath must be {' or '.join(dict.fromkeys(allowed))}")
    if has_hooks(spec):
        raise Refused("OciSpecification.hooks must not be there")
