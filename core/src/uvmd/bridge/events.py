"""Event frames: what uvmd tells beyond the protocol (docs/protocol.md, "What uvmd adds").

Only to a host that asked for them in its Negotiate: a frame that it does not know ends a real
host's bridge. They are news, not history: what happens while nobody listens is not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from uvmd import codec
from uvmd.bridge.frames import Frame
from uvmd.bridge.identifiers import EVENT

#: The words for what ``api.ContainerEvent`` calls ``created`` and so on.
KINDS = {"created": "Created", "started": "Started", "exited": "Exited", "deleted": "Deleted"}
OUT_OF_MEMORY = "OutOfMemory"


def event_frame(kind: str, container_id: str, facts: Mapping[str, Any]) -> bytes:
    """Return the frame that tells of an event; facts that are None are left out."""
    body = {"ContainerId": container_id, "Type": kind}
    body |= {name: value for name, value in facts.items() if value is not None}
    return Frame(EVENT, 0, codec.dumps(body)).encode()
