"""What the daemon tells about the VM as a whole: property types of uvmd's own on the null id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from uvmd.client.client import Client
from uvmd.client.errors import BadResponse
from uvmd.client.protocol import NULL_ID

PS = "uvmd.ps"
MOUNTS = "uvmd.mounts"


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A process beside a container's init: an exec, or one in the VM itself."""

    pid: int
    exit_code: int | None
    terminal: bool


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """One container. ``pid`` is its init's, 0 when it has none; ``exit_code`` None until it ended."""

    id: str
    state: str
    pid: int
    exit_code: int | None
    #: Seconds since it was created.
    age_s: float
    execs: tuple[ProcessStatus, ...]


@dataclass(frozen=True, slots=True)
class VmStatus:
    """The VM: its containers and other processes, and what is wrong with it (empty: nothing)."""

    containers: tuple[ContainerStatus, ...]
    processes: tuple[ProcessStatus, ...]
    inconsistent: str
    degraded: str
    #: Everything as it was sent.
    raw: Mapping[str, Any] = field(repr=False)


def vm_status(client: Client) -> VmStatus:
    """Ask what runs in the VM.

    Raises:
        RemoteError: E_FAIL from a daemon that is not uvmd, or from a policy that denies it.
        BadResponse: the answer has another shape.
    """
    answer = client.properties(NULL_ID, [PS]).get(PS)
    if not isinstance(answer, dict):
        raise BadResponse(f"the daemon answered {PS} with something else")
    return VmStatus(
        containers=tuple(map(_container, _objects(answer, "containers"))),
        processes=tuple(map(_process, _objects(answer, "processes"))),
        inconsistent=str(answer.get("inconsistent") or ""),
        degraded=str(answer.get("degraded") or ""),
        raw=answer,
    )


def container_status(client: Client, container_id: str) -> ContainerStatus | None:
    """Return one container's status; None if there is no such container."""
    for container in vm_status(client).containers:
        if container.id == container_id:
            return container
    return None


def mount_table(client: Client) -> list[dict[str, Any]]:
    """Return the rows of the daemon's mount table, in the order in which they came about.

    Raises:
        RemoteError: as :func:`vm_status`.
        BadResponse: the daemon has no such table.
    """
    rows = client.properties(NULL_ID, [MOUNTS]).get(MOUNTS)
    if not isinstance(rows, list):
        raise BadResponse("this daemon shows no mount table")
    return [row for row in rows if isinstance(row, dict)]


def _container(entry: Mapping[str, Any]) -> ContainerStatus:
    return ContainerStatus(
        id=str(entry.get("id", "")),
        state=str(entry.get("state", "")),
        pid=int(_number(entry.get("pid")) or 0),
        exit_code=_exit_code(entry),
        age_s=_number(entry.get("age_s")) or 0.0,
        execs=tuple(map(_process, _objects(entry, "processes"))),
    )


def _process(entry: Mapping[str, Any]) -> ProcessStatus:
    return ProcessStatus(
        int(_number(entry.get("pid")) or 0), _exit_code(entry), bool(entry.get("terminal", False))
    )


def _exit_code(entry: Mapping[str, Any]) -> int | None:
    code = _number(entry.get("exit_code"))
    return None if code is None else int(code)


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) else None


def _objects(answer: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    entries = answer.get(key)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
