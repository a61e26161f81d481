"""The one thing a guest says unasked: a container has exited (spec bridge.md 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvmd import codec
from uvmd.bridge.frames import Frame
from uvmd.bridge.identifiers import CONTAINER_NOTIFICATION, ZERO_GUID
from uvmd.bridge.plain import is_guid

if TYPE_CHECKING:
    from uvmd.host.requests import ContainerExit


def exit_notification(exit: ContainerExit) -> bytes:
    """Return the frame that tells a host of an exit; send it once, a second one is fatal to a host."""
    body = {
        "ContainerId": exit.container_id,
        # The host parses this one as a GUID even when nothing is there.
        "ActivityId": exit.activity_id if is_guid(exit.activity_id) else ZERO_GUID,
        "Type": exit.exit_type,
        "Operation": "None",
        "Result": 0,
    }
    return Frame(CONTAINER_NOTIFICATION, 0, codec.dumps(body)).encode()
