"""Settings of uvmd in a saved guest: a module's own, without a restart for each test."""

from __future__ import annotations

import pytest

from guest.harness.guest import Guest
from guest.harness.settings import IMPATIENT
from support.host import NULL_ID, Refused


@pytest.fixture(scope="module")
def uvmd_settings() -> str:
    return IMPATIENT


def test_a_module_has_a_uvmd_with_its_settings(guest: Guest) -> None:
    assert IMPATIENT in guest.read("/etc/uvmd/uvmd.toml")
    with pytest.raises(Refused, match=r"SCSI disk .* did not come within (5\.9|6\.\d) s"):
        guest.bridge.modify(NULL_ID, "MappedVirtualDisk", settings={"MountPath": "/run/mounts/scsi/m0"})
