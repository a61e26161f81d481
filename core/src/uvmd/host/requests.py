"""What can be asked of the host that needs more than plain arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from uvmd.errors import InvalidContainerId, Refused

#: Stands for the VM itself.
NULL_ID: Final = "00000000-0000-0000-0000-000000000000"

#: WaitForProcess without a limit.
NO_TIMEOUT_MS: Final = 0xFFFFFFFF

Ports = tuple[int | None, int | None, int | None]

_SAFE_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_STRICT_ID: Final = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class ExecuteRequest:
    """One ExecuteProcess; a port is None when that stream was not requested."""

    in_vm: bool = False
    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None
    oci_process: dict[str, Any] | None = field(default=None, repr=False)
    args: tuple[str, ...] = field(default=(), repr=False)
    command_line: str = field(default="", repr=False)
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    terminal: bool = False

    @property
    def ports(self) -> Ports:
        """The three ports in the order in which they are dialled."""
        return self.stdin, self.stdout, self.stderr


@dataclass(frozen=True, slots=True)
class ContainerExit:
    """A container's init is gone and its streams are drained."""

    container_id: str
    activity_id: str
    exit_type: str  # UnexpectedExit, GracefulExit or ForcedExit (spec bridge.md 7)
    slot: int = 0  # init's


def check_new_id(container_id: str, *, strict: bool) -> None:
    """Refuse an id that cannot name a new container: it becomes part of paths and command lines.

    Raises:
        InvalidContainerId: unsafe characters, too long, or the id of the VM.
        Refused: strict, and not 64 hexadecimal digits (spec containers.md 15.1).
    """
    check_strict_id(container_id, strict=strict)
    if container_id == NULL_ID:
        raise InvalidContainerId("the id of the VM cannot name a container")
    if not is_container_id(container_id):
        raise InvalidContainerId("a container id has 1 to 128 letters, digits and _ . - in it")


def is_container_id(text: str) -> bool:
    """Tell whether a text can name a container."""
    # A leading dot or dash would make a hidden file or an option of it.
    return (
        text != NULL_ID and _SAFE_ID.fullmatch(text) is not None and text[0] not in ".-" and ".." not in text
    )


def check_strict_id(container_id: str, *, strict: bool, what: str = "container") -> None:
    """Refuse, in a strict VM, an id that is not 64 hexadecimal digits or the VM's.

    Raises:
        Refused: it is neither.
    """
    if strict and container_id != NULL_ID and not _STRICT_ID.fullmatch(container_id):
        raise Refused(f"invalid {what} id (must match ^[0-9a-fA-F]{{64}}$)")


def check_pod_id(pod_id: str, *, virtual: bool, strict: bool) -> None:
    """Refuse what cannot name a pod: it becomes part of paths, as a container's id does.

    Raises:
        Refused: unsafe characters, too long, or strict and not 64 hexadecimal digits.
    """
    what = "virtual pod" if virtual else "sandbox"
    check_strict_id(pod_id, strict=strict, what=what)
    if not is_container_id(pod_id):
        raise Refused(f"invalid {what} id: 1 to 128 letters, digits and _ . - are")
