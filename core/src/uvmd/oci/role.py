"""What a container is in its pod, as its specification says (spec containers.md 6.1, 6.6)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from uvmd.errors import Refused
from uvmd.oci import annotations as asked


class Kind(enum.Enum):
    """The three kinds of containers."""

    STANDALONE = "standalone"
    SANDBOX = "sandbox"
    WORKLOAD = "workload"


_KINDS = {"": Kind.STANDALONE, "sandbox": Kind.SANDBOX, "container": Kind.WORKLOAD}


@dataclass(frozen=True, slots=True)
class Role:
    """The place of one container.

    ``pod_id`` is the reference's sandbox id: the pod that the container is of, for a
    standalone one mostly its own id. ``virtual`` says that the pod is a virtual one.
    ``namespace`` is the lower-cased id of the network namespace, ``""`` for none; with
    ``lenient_network`` an unknown one is no error.
    """

    kind: Kind
    pod_id: str
    virtual: bool = False
    namespace: str = ""
    lenient_network: bool = False
    host_network: bool = False

    @property
    def in_pod(self) -> bool:
        """Whether the container is a member of a pod."""
        return self.kind is not Kind.STANDALONE


def read_role(container_id: str, spec: dict[str, Any]) -> Role:
    """Read the annotations and the network namespace.

    Raises:
        Refused: an unknown container type, or a workload that names no pod.
    """
    found = asked.annotations_of(spec)
    text = found.get(asked.CONTAINER_TYPE, "")
    virtual_id = found.get(asked.VIRTUAL_POD_ID, "")
    kind = _KINDS.get(text)
    if virtual_id and virtual_id == container_id:
        kind = Kind.SANDBOX  # whatever its annotation says
    if kind is None:
        raise Refused(f"{asked.CONTAINER_TYPE}: unknown type {text!r:.60}")
    if kind is Kind.WORKLOAD:
        return Role(kind, _pod_of_workload(found, virtual_id), virtual=bool(virtual_id))
    skip = found.get(asked.SKIP_POD_NETWORKING, "").lower() == "true"
    return Role(
        kind,
        virtual_id or container_id,
        virtual=bool(virtual_id),
        namespace=_namespace(spec),
        # A virtual pod's adapters may all come after its sandbox.
        lenient_network=kind is Kind.STANDALONE or skip or virtual_id == container_id,
        host_network=asked.read_flag(found, asked.HOST_NETWORK),
    )


def _pod_of_workload(found: Any, virtual_id: str) -> str:
    pod_id: str = virtual_id or found.get(asked.SANDBOX_ID, "")
    if not pod_id:
        raise Refused(f"{asked.SANDBOX_ID}: a workload must name its pod")
    return pod_id


def _namespace(spec: dict[str, Any]) -> str:
    network = spec.get("windows", {}).get("network", {})
    namespace: str = network.get("networkNamespace", "")
    return namespace.lower()
