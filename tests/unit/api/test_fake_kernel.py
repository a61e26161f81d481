"""The fake kernel against what a real one answered in the guest (tests/guest/golden)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from uvmd.api.testing.kernel import FakeKernel

GUEST = Path(__file__).parents[2] / "guest"


def inside() -> ModuleType:
    """The calls, which run in the guest too."""
    spec = importlib.util.spec_from_file_location("inside_storage", GUEST / "inside" / "storage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_fake_kernel_answers_as_the_real_one_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = FakeKernel(tmp_path)
    kernel.install(monkeypatch)
    disk = kernel.add_device("sda", size=16 << 20)
    answers = inside().kernel_answers(
        str(disk), str(tmp_path / "answers"), lambda node: kernel.run(["mkfs.ext4", node], deadline=0)
    )
    assert answers == json.loads((GUEST / "golden" / "kernel_answers.json").read_text())
