"""What a host says of an adapter (spec containers.md 14.1), and the ids that it may use."""

from __future__ import annotations

import re
from typing import Final

from uvmd.api import U8, U16, Field, Items, WireModel
from uvmd.errors import Refused

_GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PCI: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
MAX_NAMESPACE: Final = 256


class IPConfig(WireModel):
    """One address."""

    address: str = Field("", alias="IPAddress")
    prefix_length: U8 = Field(0, alias="PrefixLength")


class RouteSettings(WireModel):
    """One route."""

    next_hop: str = Field("", alias="NextHop")
    destination: str = Field("", alias="DestinationPrefix")
    metric: U16 = Field(0, alias="Metric")


class AdapterSettings(WireModel):
    """The settings of ``Network``. A Remove carries the first two alone."""

    namespace: str = Field("", alias="NamespaceID")
    id: str = Field("", alias="ID")
    mac: str = Field("", alias="MacAddress")
    dns_suffix: str = Field("", alias="DNSSuffix")
    dns_servers: str = Field("", alias="DNSServerList")
    encap_overhead: U16 = Field(0, alias="EncapOverhead")
    assigned: bool = Field(False, alias="VPCIAssigned")
    addresses: Items[IPConfig] = Field((), alias="IPConfigs")
    routes: Items[RouteSettings] = Field((), alias="Routes")
    policy_routing: bool = Field(False, alias="PolicyBasedRouting")
    low_metric: bool = Field(False, alias="EnableLowMetric")


def namespace_key(namespace: str) -> str:
    """Return the name under which a namespace is kept.

    Raises:
        Refused: there is none; all adapters and containers without one would share it.
    """
    if not 0 < len(namespace) <= MAX_NAMESPACE:
        raise Refused(f"Network: NamespaceID is not a name of 1 to {MAX_NAMESPACE} characters")
    return namespace.lower()


def adapter_key(adapter: str, platform: str) -> str:
    """Return an adapter's id in the one spelling under which it is looked for.

    On Hyper-V an instance GUID; elsewhere also a PCI address or a MAC address.

    Raises:
        Refused: anything else. What is joined to a path must not be able to leave it.
    """
    key = adapter.lower()
    if _GUID.fullmatch(key):
        return key
    if platform != "hyperv":
        if _PCI.fullmatch(key):
            return key
        if _MAC.fullmatch(colons := key.replace("-", ":")):
            return colons
        raise Refused("Network: ID is not a GUID, a PCI address or a MAC address")
    raise Refused("Network: ID is not a GUID")


def is_pci_address(key: str) -> bool:
    """Whether an adapter's key is a PCI address."""
    return _PCI.fullmatch(key) is not None


def mac_key(mac: str) -> str:
    """Return a MAC address as sysfs shows it, whichever separators the host uses; "" for none."""
    key = mac.lower().replace("-", ":")
    return key if _MAC.fullmatch(key) else ""


def list_of(text: str) -> tuple[str, ...]:
    """Split a list at its commas: trimmed, lower-cased, the empty and the repeated dropped."""
    return tuple(dict.fromkeys(one for part in text.split(",") if (one := part.strip().lower())))


def names_of(text: str, key: str) -> tuple[str, ...]:
    """As :func:`list_of`, for entries that will stand in ``resolv.conf``.

    Raises:
        Refused: an entry could begin a line of its own there, or another word.
    """
    names = list_of(text)
    if not all(name.isprintable() and not re.search(r"\s", name) for name in names):
        raise Refused(f"Network: {key} has an entry with spaces or control characters")
    return names
