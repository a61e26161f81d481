"""The size of /dev/shm that an annotation asks for (spec containers.md 7.4)."""

from __future__ import annotations

from typing import Any

from uvmd.errors import Refused
from uvmd.oci.annotations import SHM_SIZE_KB, annotations_of, parse_u64


def apply_shm_size(spec: dict[str, Any]) -> dict[str, Any]:
    """Replace the mounts at /dev/shm by one of the size; same specification without the annotation.

    Raises:
        Refused: the value is not an unsigned number above zero.
    """
    value = annotations_of(spec).get(SHM_SIZE_KB)
    if value is None:
        return spec
    size_kb = parse_u64(value)
    if not size_kb:
        raise Refused(f"annotation {SHM_SIZE_KB}: must be an unsigned number above zero")
    mounts = [mount for mount in spec.get("mounts", ()) if mount.get("destination") != "/dev/shm"]
    options = ["nosuid", "noexec", "nodev", "mode=1777", f"size={size_kb}k"]
    mounts.append({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": options})
    return {**spec, "mounts": mounts}
