"""Change the limits of a container (spec containers.md 13)."""

from __future__ import annotations

import json
from typing import Any

from uvmd.host.context import Context


def update(ctx: Context, container_id: str, resources: dict[str, Any]) -> None:
    """Hand ``resources``, an OCI LinuxResources object, to the runtime.

    The caller holds the change lock and has looked at the keys.

    Raises:
        ContainerNotFound, InvalidState: the container.
        RuntimeFailed, or what the runtime's failure means.
    """
    container = ctx.registry.get(container_id)
    ctx.runtime.update(container.id, json.dumps(resources, separators=(",", ":")).encode())
