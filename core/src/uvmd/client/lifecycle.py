"""Ending and removing containers: what takes more than one message."""

from __future__ import annotations

import time
from collections.abc import Callable

from uvmd.bridge.hresult import HResult
from uvmd.client.client import Client
from uvmd.client.errors import ClientError, RemoteError
from uvmd.client.process import exit_code
from uvmd.client.protocol import is_code
from uvmd.client.status import container_status

#: How long a killed container may take to be gone (stdio drained, cgroup empty).
KILL_S = 10.0


def init_pid(client: Client, container_id: str) -> int:
    """Return the pid of a container's init.

    Raises:
        ClientError: no such container, or it has no init.
    """
    status = container_status(client, container_id)
    if status is None:
        raise RemoteError(
            "GET_PROPERTIES",
            HResult.SYSTEM_NOT_FOUND,
            HResult.SYSTEM_NOT_FOUND.name,
            f"no container {container_id}",
        )
    if not status.pid:
        raise ClientError(f"container {container_id} has no init process")
    return status.pid


def wait_for_exit(client: Client, container_id: str, timeout_s: float) -> int | None:
    """Return the init's exit code, or None when the time is up.

    Raises:
        ClientError: as :func:`init_pid`.
    """
    pending = client.submit_wait(container_id, init_pid(client, container_id))
    if not pending.wait(timeout_s):
        pending.abandon()
        return None
    return exit_code(pending)


def stop(client: Client, container_id: str, grace_s: float) -> int | None:
    """End a container: SIGTERM, *grace_s* of patience, SIGKILL. Return its exit code.

    One that has ended already is fine. None: it was killed and is still not gone.
    """
    if not _ask(client.shutdown, container_id):
        return wait_for_exit(client, container_id, KILL_S)
    status = wait_for_exit(client, container_id, grace_s)
    if status is None:
        _ask(client.terminate, container_id)
        status = wait_for_exit(client, container_id, KILL_S)
    return status


def remove(client: Client, container_id: str, *, force: bool = False) -> None:
    """Delete a container; with *force* also a running one, which is killed first.

    Raises:
        RemoteError: the daemon refused, for one because the container runs.
    """
    if force and _ask(client.terminate, container_id):
        _wait_until_gone(client, container_id)
    client.delete(container_id)


def _ask(shutdown: Callable[[str], None], container_id: str) -> bool:
    """Send a shutdown; False if the container has stopped already."""
    try:
        shutdown(container_id)
    except RemoteError as error:
        if is_code(error, HResult.SYSTEM_ALREADY_STOPPED):
            return False
        raise
    return True


def _wait_until_gone(client: Client, container_id: str) -> None:
    """Wait for the exit that a kill has caused: by its pid, or by the notification."""
    try:
        wait_for_exit(client, container_id, KILL_S)
        return
    except ClientError:
        pass  # Another daemon than uvmd, or a policy that hides the list.
    deadline = time.monotonic() + KILL_S
    while (left_s := deadline - time.monotonic()) > 0:
        notification = client.notification(left_s)
        if notification is None or notification.container_id == container_id:
            return
