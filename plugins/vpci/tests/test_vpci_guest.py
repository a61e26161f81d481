"""VPCIDevice in a real guest: a PCI device that is plugged in while the request waits."""

from __future__ import annotations

import pytest

from guest.harness.guest import Guest
from support.host import MODIFY, NULL_ID, ZERO_GUID, Refused


def request(address: str) -> dict[str, object]:
    inner = {"RequestType": "Add", "ResourceType": "VPCIDevice", "Settings": {"VMBusGUID": address}}
    return {"ContainerId": NULL_ID, "ActivityId": ZERO_GUID, "Request": inner}


def test_a_request_waits_until_its_device_is_plugged_in(guest: Guest) -> None:
    first = guest.add_pci("edu", port="rp3")
    address = first.wait()
    guest.bridge.modify(NULL_ID, "VPCIDevice", settings={"VMBusGUID": address})
    first.remove()
    waiting = guest.bridge.send(MODIFY, request(address))
    assert not guest.bridge.pump(0.5), "it waits"
    # The same port gives the same address.
    again = guest.add_pci("edu", port="rp3")
    assert guest.bridge.answer(waiting, timeout_s=20)["Result"] == 0
    assert again.wait() == address
    again.remove()


def test_what_is_no_address_is_refused_at_once(guest: Guest) -> None:
    with pytest.raises(Refused, match="a PCI device is named by its address"):
        guest.bridge.modify(NULL_ID, "VPCIDevice", settings={"VMBusGUID": "../../devices"})
