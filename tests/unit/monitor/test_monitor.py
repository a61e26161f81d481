"""The monitor's own command line; all else of it is in the tests of the live monitor."""

from __future__ import annotations

import os
import sys

import pytest

from uvmd.monitor import monitor


@pytest.mark.parametrize("argv", [[], ["--"]])
def test_without_a_daemon_it_says_how_it_is_used(monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    said: list[bytes] = []
    monkeypatch.setattr(sys, "argv", ["monitor", *argv])
    monkeypatch.setattr(os, "write", lambda fd, text: said.append(text))
    assert monitor.main() == 2
    assert said[0].startswith(b"usage:")
