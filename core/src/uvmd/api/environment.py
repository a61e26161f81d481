"""What a handler, an enforcer or a provider is given of the daemon: its environment.

A long-lived helper process of a plugin (``env.service``) arrives with its first user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Completed(Protocol):
    """What became of a command."""

    @property
    def status(self) -> int:
        """Exit code, or the negative number of the signal that ended it."""

    @property
    def timed_out(self) -> bool:
        """It was killed at the deadline."""

    @property
    def output(self) -> bytes:
        """Standard output and error, cut at the limit."""


class Run(Protocol):
    """Run a command as a child of the monitor and wait for it.

    A clean environment, its own process group, umask 022. At ``deadline`` (monotonic
    clock) the group is killed. ``fds`` appear in the child as 3, 4 and so on.

    Raises:
        OSError: it could not be started.
    """

    def __call__(
        self,
        argv: Sequence[str],
        *,
        deadline: float,
        stdin: bytes = b"",
        fds: Sequence[int] = (),
        limit_bytes: int = 65536,
    ) -> Completed: ...


class Dial(Protocol):
    """Connect to a port of the host: a blocking, close-on-exec descriptor, yours to close.

    Raises:
        OSError: no connection until ``deadline`` (monotonic clock).
    """

    def __call__(self, port: int, deadline: float) -> int: ...


class State(Protocol):
    """What a distribution keeps over a restart of the daemon: one JSON object, journalled."""

    def load(self) -> dict[str, Any]:
        """Return what was saved last, else an empty object."""

    def save(self, value: Mapping[str, Any]) -> None:
        """Keep ``value`` in place of what was there, whole or not at all.

        Raises:
            OSError: it could not be written.
        """


class Platform(Protocol):
    """How this kind of VM shows its devices; see :mod:`uvmd.linux.platform`.

    What is not there yet is FileNotFoundError: ask again with ``uevents.wait_for``.
    """

    @property
    def name(self) -> str:
        """``hyperv`` or ``virtio``."""

    @property
    def sys_root(self) -> str:
        """Where sysfs is mounted."""

    @property
    def dev_root(self) -> str:
        """Where device nodes are."""

    def scsi_host(self, controller: int) -> int:
        """Return the number of the SCSI host that is the host's controller of this index.

        Raises:
            Refused: there is no such index.
            FileNotFoundError: it is not there (yet).
        """

    def pci_path(self, device: str) -> str:
        """Return the sysfs folder of the PCI device that the host names: a vmbus GUID, or an address.

        Raises:
            Refused: no such name.
            FileNotFoundError: it is not there (yet).
        """


class Environment(NamedTuple):
    """One for each plugin. ``config`` is an instance of its ``config_model``, or None."""

    config: Any
    platform: Platform
    dial: Dial
    run: Run
    state: State
