"""What a handler, an enforcer or a provider is given of the daemon: its environment."""

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


class Limits(NamedTuple):
    """What a service may have; the kernel holds it to that (setrlimit(2)).

    ``memory_bytes`` bounds its private writable memory (RLIMIT_DATA): an allocation over it
    fails. It writes no files and leaves no core file, whatever these say.
    """

    memory_bytes: int
    descriptors: int = 32


class Service(Protocol):
    """A long-lived helper process, a child of the monitor: it survives a restart of the daemon.

    It is given a listening unix socket as descriptor 3 (SOCK_STREAM, owner-only), no
    streams and a clean environment. Nothing starts it but :meth:`start`.
    """

    def start(self) -> None:
        """Start it, in place of one that runs.

        Raises:
            OSError: it could not be started.
        """

    def connect(self, deadline: float) -> int:
        """Connect to the one that runs: a blocking, close-on-exec descriptor, yours to close.

        Raises:
            OSError: none runs, or it took no connection until ``deadline`` (monotonic clock).
        """

    def kill(self) -> None:
        """End the one that runs, if any. Its connections end with it."""


class MakeService(Protocol):
    """Describe a service of this plugin, and find the process that an earlier daemon started.

    ``name`` is the plugin's own; ``argv`` begins with an absolute path.
    """

    def __call__(self, name: str, argv: Sequence[str], limits: Limits) -> Service: ...


class State(Protocol):
    """What a distribution keeps over a restart of the daemon: one JSON object, journalled.

    Beside the object there is a log of entries, for what would be too much to write anew
    at each change: saving an object ends the log, loading begins with both.
    """

    def load(self) -> dict[str, Any]:
        """Return what was saved last, else an empty object."""

    def save(self, value: Mapping[str, Any]) -> None:
        """Keep ``value`` in place of what was there, whole or not at all.

        Raises:
            OSError: it could not be written.
        """

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add an entry to the log of the object saved last, whole or not at all.

        Raises:
            OSError: it could not be written.
        """

    def entries(self) -> list[dict[str, Any]]:
        """Return the log of the object saved last, oldest first."""


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
    service: MakeService
