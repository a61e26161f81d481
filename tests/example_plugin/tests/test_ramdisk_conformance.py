"""What every plugin must do, tried on the example with real mounts (root)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from uvmd.api.testing.conformance import Conformance, Example
from uvmd_example_ramdisk import plugin
from uvmd_example_ramdisk.config import RamdiskConfig

pytestmark = pytest.mark.root


class TestConformance(Conformance):
    entry_point = "ramdisk"
    config = RamdiskConfig()

    def examples(self, folder: Path) -> Sequence[Example]:
        path = str(folder / "deep" / "disk")
        return [Example(plugin.NAME, {"MountPath": path, "SizeMiB": 1}, {"MountPath": path})]
