"""The shaper: from a container's annotations to what the files say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from uvmd.api import Additions, ContainerRequest, Environment
from uvmd.errors import Failed, Refused
from uvmd.linux.devices import find_device as find_node
from uvmd_example_cdi.config import CdiConfig
from uvmd_example_cdi.documents import DeviceNode, Edits, Mount, find_device

PREFIX = "cdi.k8s.io/"


class CdiShaper:
    """Adds what the devices need that a container's annotations name."""

    def __init__(self, env: Environment) -> None:
        self._config: CdiConfig = env.config or CdiConfig()

    def additions(self, request: ContainerRequest) -> Additions:
        """Return what the devices' files say; nothing without an annotation.

        Raises:
            Refused, Failed: a device that no file has, or a file that cannot be followed.
        """
        wanted = list(dict.fromkeys(_names(request.annotations)))
        if not wanted:
            return Additions()
        added = _Added()
        for edits in self._edits(wanted):
            for node in edits.device_nodes:
                added.device(node)
            for mount in edits.mounts:
                added.mount(mount)
            for text in edits.env:
                added.variable(text)
            added.groups.update(dict.fromkeys(edits.additional_gids))
        return added.additions()

    def _edits(self, wanted: list[str]) -> Iterator[Edits]:
        """Yield the edits of the files, each once, and of the devices."""
        seen: set[str] = set()
        for qualified in wanted:
            found = find_device(self._config.directories, qualified)
            ours = [found.device.edits]
            if found.path not in seen:
                seen.add(found.path)
                ours.insert(0, found.document.edits)
            for edits in ours:
                self._require_additions(edits, qualified)
                yield edits

    def _require_additions(self, edits: Edits, qualified: str) -> None:
        """A shaper can only add; what more a device needs would be missing in the container."""
        if edits.hooks and self._config.hooks == "refuse":
            raise Refused(f"CDI device {qualified:.200} needs hooks, and a shaper adds none")
        if edits.net_devices or edits.intel_rdt is not None:
            raise Refused(f"CDI device {qualified:.200} needs network devices or an RDT class")


def _names(annotations: Mapping[str, str]) -> Iterator[str]:
    for key in sorted(annotations):
        if key.startswith(PREFIX):
            yield from (name.strip() for name in annotations[key].split(",") if name.strip())


class _Added:
    """Edits put together: what two devices share is added once, what clashes is refused."""

    def __init__(self) -> None:
        self._devices: dict[str, dict[str, Any]] = {}
        self._mounts: dict[str, dict[str, Any]] = {}
        self._environment: dict[str, str] = {}
        self.groups: dict[int, None] = {}

    def device(self, node: DeviceNode) -> None:
        entry = {"path": node.path, "access": node.permissions or "rwm", **_numbers(node)}
        for key, value in (("fileMode", node.file_mode), ("uid", node.uid), ("gid", node.gid)):
            if value is not None:
                entry[key] = value
        self._enter(self._devices, node.path, entry, "device node")

    def mount(self, mount: Mount) -> None:
        entry = {
            "destination": mount.container_path,
            "source": mount.host_path,
            "type": mount.type,
            "options": mount.options or ["bind"],
        }
        self._enter(self._mounts, mount.container_path, entry, "mount")

    def variable(self, text: str) -> None:
        name, _, value = text.partition("=")
        self._enter(self._environment, name, value, "variable")

    @staticmethod
    def _enter(table: dict[str, Any], key: str, value: Any, what: str) -> None:
        if table.setdefault(key, value) != value:
            raise Refused(f"two CDI devices want another {what} {key:.200}")

    def additions(self) -> Additions:
        return Additions(
            tuple(self._mounts.values()), tuple(self._devices.values()), self._environment, tuple(self.groups)
        )


def _numbers(node: DeviceNode) -> dict[str, Any]:
    """Type and numbers as the file has them, else those of the node in the VM."""
    if node.type and (node.type == "p" or node.major or node.minor):
        return {"type": node.type, "major": node.major, "minor": node.minor}
    path = node.host_path or node.path
    try:
        found = find_node(path)
    except OSError as error:
        raise Failed(f"CDI device node {path:.200}: {error.strerror}") from error
    return {"type": found.type, "major": found.major, "minor": found.minor}
