"""What a host says of an adapter, read: ids, lists, addresses, routes, leases."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.codec import decode_value
from uvmd.errors import Failed, InvalidMessage, Refused
from uvmd_network.dhcp import parse_lease
from uvmd_network.layout import Address, Layout, Route, Rule, parse_prefix, plan_layout
from uvmd_network.settings import AdapterSettings, adapter_key, list_of, mac_key, names_of, namespace_key

GUID = "2a1e7c36-31c5-4bd4-8d2f-9c3e5a0b7d11"
texts = st.text(max_size=40) | st.from_regex(r"[0-9a-f:./%-]{0,40}")
addresses = st.ip_addresses().map(str)


def decoded(**settings: Any) -> AdapterSettings:
    made: AdapterSettings = decode_value(settings, AdapterSettings, what="Settings")
    return made


def layout(*, low_metric: bool = False, **settings: Any) -> Layout:
    read = decoded(**settings)
    return plan_layout(read.addresses, read.routes, low_metric=low_metric)


def route(to: str, via: str = "", metric: int = 0) -> dict[str, Any]:
    return {"DestinationPrefix": to, "NextHop": via, "Metric": metric}


def test_settings_are_decoded_whatever_the_case_of_their_keys() -> None:
    read = decoded(
        namespaceid="N", id=GUID, ipconfigs=[{"ipaddress": "10.0.0.2", "PREFIXLENGTH": 24}], Unknown=1
    )
    assert (read.namespace, read.addresses[0].prefix_length) == ("N", 24)
    with pytest.raises(InvalidMessage, match=r"IPConfigs\[0\]\.PrefixLength|IPConfigs\.0\.PrefixLength"):
        decoded(IPConfigs=[{"IPAddress": "10.0.0.2", "PrefixLength": 256}])


@pytest.mark.parametrize("platform", ["hyperv", "virtio"])
@given(text=texts)
def test_an_id_that_is_accepted_names_no_other_folder(platform: str, text: str) -> None:
    try:
        key = adapter_key(text, platform)
    except Refused:
        return
    assert key
    assert not set(key) & set("/\0*?[")
    assert key.strip(".") == key


def test_ids_have_one_spelling() -> None:
    assert adapter_key(GUID.upper(), "hyperv") == GUID
    assert adapter_key("02-AB-00-00-00-01", "virtio") == adapter_key("02:ab:00:00:00:01", "virtio")
    assert adapter_key("0000:00:1F.2", "virtio") == "0000:00:1f.2"
    for text in ("0000:00:05.0", "02:ab:00:00:00:01", "", "{" + GUID + "}", GUID + "\n", "../" + GUID):
        with pytest.raises(Refused, match="ID is not a GUID"):
            adapter_key(text, "hyperv")
    assert mac_key("02-AB-00-00-00-01") == "02:ab:00:00:00:01"
    assert mac_key("02ab.0000.0001") == mac_key("") == ""


def test_a_namespace_has_a_name_and_not_any_length() -> None:
    assert namespace_key("AbC") == "abc"
    for text in ("", "x" * 257):
        with pytest.raises(Refused, match="NamespaceID"):
            namespace_key(text)


@given(st.lists(st.text("aB. \t", max_size=4)))
def test_lists_are_trimmed_lower_cased_and_without_repetition(parts: list[str]) -> None:
    found = list_of(",".join(parts))
    assert len(set(found)) == len(found)
    assert all(one and one == one.strip().lower() for one in found)
    assert set(found) == {part.strip().lower() for part in parts} - {""}
    assert list_of(",".join(found)) == found


@given(st.text())
def test_no_entry_of_a_list_can_begin_a_line_of_resolv_conf(text: str) -> None:
    try:
        found = names_of(text, "DNSSuffix")
    except Refused:
        return
    assert all(len(one.split()) == 1 for one in found)
    assert all(len(f"search {one}".splitlines()) == 1 for one in found)


@given(text=texts)
def test_a_destination_is_masked_or_refused_by_name(text: str) -> None:
    try:
        network = parse_prefix(text, "Routes[3].DestinationPrefix")
    except Refused:
        return
    assert ip_network(str(network), strict=True) == network
    assert ip_address(text.split("/")[0]) in network


@given(address=addresses, prefix=st.integers(0, 255), low_metric=st.booleans())
def test_an_address_is_taken_with_a_prefix_that_it_can_have(
    address: str, prefix: int, low_metric: bool
) -> None:
    wanted = {"IPConfigs": [{"IPAddress": address, "PrefixLength": prefix}]}
    if prefix > ip_address(address).max_prefixlen:
        with pytest.raises(Refused, match=r"IPConfigs\[0\]\.PrefixLength is over"):
            layout(**wanted)
        return
    made = layout(low_metric=low_metric, **wanted)
    assert made.addresses == (Address(address, prefix),)
    assert made.rules == ((Rule(address, 101, 5),) if low_metric else ())


@given(gateway=addresses, metric=st.integers(0, 0xFFFF), low_metric=st.booleans())
def test_a_default_route_goes_where_and_costs_what_it_should(
    gateway: str, metric: int, low_metric: bool
) -> None:
    to = "::/0" if ":" in gateway else "0.0.0.0/0"
    made = layout(low_metric=low_metric, Routes=[route(to, gateway, metric)])
    if ip_address(gateway).is_unspecified:
        assert made.routes == ()
    else:
        assert made.routes == (Route(to, gateway, metric or 500 * low_metric, 101 if low_metric else 254),)


@pytest.mark.parametrize(
    ("given_route", "text"),
    [
        (route("0.0.0.0/0"), r"Routes\[0\].NextHop is missing for a default route"),
        (route("0.0.0.0/0", "gateway"), r"Routes\[0\].NextHop is not an IP address"),
        (route("10.0.0.0/8", "fe80::1%eth0"), r"Routes\[0\].NextHop is not an IP address"),
        (route("10.0.0.0/8", "fd00::1"), r"Routes\[0\].NextHop is of another IP version"),
        (route("10.0.0.0"), r"Routes\[0\].DestinationPrefix is not an address and a prefix length"),
        (route("10.0.0.0/255.0.0.0"), r"Routes\[0\].DestinationPrefix"),
        (route("", "10.0.0.1"), r"Routes\[0\].DestinationPrefix"),
    ],
)
def test_a_route_that_is_none_is_refused_by_name(given_route: dict[str, Any], text: str) -> None:
    with pytest.raises(Refused, match=text):
        layout(Routes=[given_route])


def test_routes_keep_their_order_and_may_do_without_a_gateway() -> None:
    made = layout(
        Routes=[route("10.1.2.3/8", "10.0.0.1", 7), route("fd00::1/64"), route("1.2.3.4/32", "0.0.0.0")]
    )
    assert made.routes == (Route("10.0.0.0/8", "10.0.0.1", 7), Route("fd00::/64"), Route("1.2.3.4/32"))


def test_further_adapters_share_a_table_until_their_routes_clash() -> None:
    routes = [route("0.0.0.0/0", "10.0.0.1")]
    one = layout(low_metric=True, IPConfigs=[{"IPAddress": "10.0.0.2", "PrefixLength": 24}], Routes=routes)
    assert one.beside([Route("0.0.0.0/0", "10.0.0.1", 500), Route("10.0.0.0/8", "", 500, 101)]) == one
    moved = one.beside([*one.routes, Route("0.0.0.0/0", "10.9.0.1", 500, 102)])
    assert (moved.routes[0].table, moved.rules[0].table) == (103, 103)
    first = layout(Routes=routes)
    assert first.beside(first.routes) == first, "the kernel says what it thinks of that"


@given(low_metric=st.booleans(), address=addresses)
def test_a_layout_survives_being_kept(low_metric: bool, address: str) -> None:
    to = f"{address}/{ip_address(address).max_prefixlen}"
    made = layout(
        low_metric=low_metric,
        IPConfigs=[{"IPAddress": address, "PrefixLength": 8}],
        Routes=[route(to, address, 3)],
    )
    assert Layout.from_json(made.as_json()) == made


@given(st.text() | st.from_regex(r"lease ip=\S* prefix=[0-9]{0,3} routers=[0-9. ]*\n"))
def test_what_a_client_says_is_a_lease_or_a_failure(output: str) -> None:
    try:
        made = parse_lease(output, "eth0")
    except Failed:
        return
    (address,) = made.addresses
    ip_network(f"{address.address}/{address.prefix}", strict=False)


def test_the_last_lease_counts_and_its_first_router_is_the_gateway() -> None:
    output = "udhcpc: started\nlease ip=10.0.0.9 prefix=24 routers=10.0.0.1 10.0.0.2\n"
    assert parse_lease(output, "eth0") == Layout(
        (Address("10.0.0.9", 24),), (), (Route("0.0.0.0/0", "10.0.0.1"),)
    )
    again = parse_lease(output + "lease ip=10.0.0.8 prefix=24 routers=\n", "eth0", low_metric=True)
    assert again == Layout((Address("10.0.0.8", 24),), (Rule("10.0.0.8"),), ())
