"""What plugins are told about containers, and what they may add to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from uvmd.api.transaction import Undo


class ContainerEvent(NamedTuple):
    """Something happened to a container; told to observers after the fact.

    ``kind`` is ``created``, ``started``, ``exited`` or ``deleted``; ``status`` (exit code,
    or the negative number of a signal) belongs to ``exited``; ``at`` is seconds since 1970.
    """

    kind: str
    container_id: str
    sandbox_id: str
    at: float
    pid: int = 0
    status: int | None = None


class Span(NamedTuple):
    """One finished piece of work, for those who draw traces. Ids are lower-case hex."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    error: str = ""
    facts: Mapping[str, str | int | float | bool] = MappingProxyType({})


class ContainerRequest(NamedTuple):
    """A container that is about to be created, as a shaper may see it.

    ``spec`` is the OCI spec with its keys folded; a copy, changing it changes nothing.
    """

    container_id: str
    sandbox_id: str
    annotations: Mapping[str, str]
    spec: Mapping[str, Any]
    strict: bool


class Additions(NamedTuple):
    """What a shaper wants added. Part of what the policy is asked about.

    Mounts and devices are the runtime-spec's objects; a device may also say its ``access``,
    some of ``rwm`` (all of it by default). Two additions to one destination, path or name
    refuse the create, whoever made them, as does one to a destination or path that the host
    has filled. A variable that the container has already is replaced.
    """

    mounts: Sequence[Mapping[str, Any]] = ()
    devices: Sequence[Mapping[str, Any]] = ()
    environment: Mapping[str, str] = MappingProxyType({})
    groups: Sequence[int] = ()


class Shaper(Protocol):
    """What a reference of ``container_shapers`` makes, called with its environment."""

    def additions(self, request: ContainerRequest) -> Additions:
        """Return what this container needs. Reads only; fast; raises to refuse the create."""


class NetworkProvider(Protocol):
    """What the reference of ``container_network`` makes, called with its environment.

    Namespaces are named by the host. Adapters come before or after the container; those
    that were moved before are skipped.
    """

    def exists(self, namespace: str) -> bool:
        """Whether a namespace of that name is known."""

    def dns(self, namespace: str) -> tuple[Sequence[str], Sequence[str]]:
        """Name servers and search list for the pod's ``resolv.conf``."""

    def attach(self, namespace: str, pid: int, undo: Undo) -> None:
        """Move the namespace's adapters to the network namespace of ``pid``; set them up."""

    def attach_host(self, namespace: str, undo: Undo) -> None:
        """Set the namespace's adapters up where they are, for a pod in the VM's network."""

    def detach(self, namespace: str) -> None:
        """Forget the pod: its process is gone and the kernel took the adapters back."""
