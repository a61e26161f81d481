"""Tee logs: where a container's output also goes, and the mount that shows it (spec containers.md 7.11)."""

from __future__ import annotations

import posixpath
from typing import Any

from uvmd.errors import Refused
from uvmd.oci.annotations import TEE_LOG_DIR_MOUNT, TEE_LOG_PATH, annotations_of


def tee_log_path(spec: dict[str, Any]) -> str:
    """Return the tee file's path relative to the logs directory, ``""`` if none is asked for.

    Raises:
        Refused: it would lie outside of the directory, or be the directory.
    """
    value = annotations_of(spec).get(TEE_LOG_PATH, "")
    if not value:
        return ""
    # Joined below an absolute directory first, so that a leading slash is no way out.
    relative = posixpath.normpath("./" + value)
    if relative in (".", "..") or relative.startswith("../") or "\0" in value:
        raise Refused(f"annotation {TEE_LOG_PATH}: must name a file below the logs directory")
    return relative


def wants_log_mount(spec: dict[str, Any]) -> bool:
    """Tell whether the logs directory is to be seen in the container."""
    return bool(annotations_of(spec).get(TEE_LOG_DIR_MOUNT))


def apply_log_mount(spec: dict[str, Any], logs: str) -> dict[str, Any]:
    """Append the bind mount of the directory ``logs``; same specification without the annotation."""
    destination = annotations_of(spec).get(TEE_LOG_DIR_MOUNT)
    if not destination:
        return spec
    mount = {"destination": destination, "type": "bind", "source": logs, "options": ["bind"]}
    return {**spec, "mounts": [*spec.get("mounts", ()), mount]}
