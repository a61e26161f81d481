"""A folder with layers and a scratch, a workbench around the plugin, and all that may be left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.leaks import descriptors_here
from uvmd.api.testing import MemoryState, Workbench, fake_environment
from uvmd.linux import mounts
from uvmd_storage_overlay import plugin

TYPE = "CombinedLayers"


class Place:
    """Layers below a folder, each with a file of its own and one that all have."""

    def __init__(self, base: Path, layers: int = 3, container: str = "c1") -> None:
        self.base = base
        self.container = container
        self.layers = [base / "layers" / f"l{n}" for n in range(layers)]
        for number, layer in enumerate(self.layers):
            layer.mkdir(parents=True)
            (layer / f"only{number}").write_text(str(number))
            (layer / "all").write_text(str(number))
        self.scratch = base / "disk" / "scratch" / container
        (base / "disk").mkdir()
        self.writable = True
        self.bundle = base / "pods" / container
        self.root = self.bundle / "rootfs"
        self.state = MemoryState()
        self.records = str(base / "devices.json")
        self.bench = self.fresh_bench()

    def fresh_bench(self) -> Workbench:
        """The workbench of a daemon that was just started here."""
        return Workbench(plugin.resource_types(), fake_environment(state=self.state), records=self.records)

    def settings(self, **changes: Any) -> dict[str, Any]:
        return {
            "ContainerID": self.container,
            "ContainerRootPath": str(self.root),
            "Layers": [{"Path": str(layer)} for layer in self.layers],
            "ScratchPath": str(self.scratch) if self.writable else "",
            **changes,
        }

    def read_only(self) -> dict[str, Any]:
        return self.settings(ScratchPath="")

    def add(self, **changes: Any) -> None:
        self.bench.add(TYPE, self.settings(**changes))

    def remove(self) -> None:
        """As a host of the first generation does."""
        self.bench.remove(TYPE, {"ContainerRootPath": str(self.root)})

    def mounted(self) -> list[str]:
        """What is mounted below the folder, relative to it, in order."""
        below = f"{self.base}/"
        return [one.target.removeprefix(below) for one in mounts.mountinfo() if one.target.startswith(below)]

    def tree(self) -> list[str]:
        """Every directory and file below the folder, but the daemon's own."""
        found = (str(path.relative_to(self.base)) for path in self.base.rglob("*"))
        return sorted(path for path in found if not path.startswith("devices.json"))

    def everything(self) -> dict[str, Any]:
        """All that must be as before when a change has failed."""
        bench = self.bench
        return {
            "mounts": self.mounted(),
            "tree": self.tree(),
            "table": bench.table.rows(),
            "record": bench.record(TYPE, f"path:{self.root}"),
            "marks": (bench.gate.inconsistent, bench.gate.degraded),
            "locks": bench.lock.table(),
            "descriptors": descriptors_here(),
            "begun": self.state.load().get("begun", {}),
        }

    def clean_up(self) -> list[str]:
        """Unmount what a test has left, and say what that was."""
        left = self.mounted()
        mounts.unmount_tree(str(self.base), 2)
        return left
