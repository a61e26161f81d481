"""What the plugin declares. Thin, because it is imported at every start of the daemon."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from uvmd.api import ContainerEvent, ResourceType, hookimpl

log = logging.getLogger(__name__)

NAME = "example.com/Ramdisk"

#: How often what happened to a container; read by whoever asks, written by one thread.
seen: Counter[str] = Counter()


@hookimpl
def config_model() -> str:
    """The operator's limit."""
    return "uvmd_example_ramdisk.config:RamdiskConfig"


@hookimpl
def resource_types() -> Iterable[ResourceType]:
    """One type for the VM, added and removed, which asks ``modify_resource``."""
    return [ResourceType(NAME, "uvmd_example_ramdisk.ramdisk:Ramdisk")]


@hookimpl
def container_event(event: ContainerEvent) -> None:
    """Count, and say so."""
    seen[event.kind] += 1
    log.info("a container was observed", extra={"event": event.kind, "container": event.container_id})
