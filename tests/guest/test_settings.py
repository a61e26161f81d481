"""Settings of uvmd in a saved guest: a module's own, without a restart for each test."""

from __future__ import annotations

import pytest

from guest.harness.guest import Guest


@pytest.fixture(scope="module")
def uvmd_settings() -> str:
    return '[cgroups]\npods = "/elsewhere"'


def test_a_module_has_a_uvmd_with_its_settings(guest: Guest) -> None:
    assert "/elsewhere" in guest.sh("uvmd config | grep cgroups.pods")
    assert guest.run("/bin/cat", "/proc/self/cgroup").stdout.startswith(b"0::/elsewhere/")
