"""pyroute2 looks at what we made: another author's reading of the same netlink."""

from __future__ import annotations

from typing import Any

import pytest
from support.host import Host, Place

from netlib import names
from netlib.net import Net

pytestmark = pytest.mark.kernel


def seen(place: Place | Host) -> dict[str, Any]:
    """The links by name, addresses and default routes of a network namespace."""
    from pyroute2 import IPRoute

    def look() -> dict[str, Any]:
        with IPRoute() as route:
            links = {link.get("ifname"): link for link in route.get_links()}
            indexes = {link["index"]: name for name, link in links.items()}
            addresses = {
                (indexes[a["index"]], f"{a.get('address')}/{a['prefixlen']}")
                for a in route.get_addr()
            }
            defaults = {
                (indexes[r.get("oif")], r.get("gateway"))
                for family in (2, 10)
                for r in route.get_default_routes(family)
            }
        return {"links": links, "addresses": addresses, "defaults": defaults}

    return place.call(look)


def test_a_connected_sandbox_in_the_eyes_of_pyroute2(host: Host) -> None:
    """Bridge, port, interface, addresses, routes: kinds, MACs, MTUs, masters, marks, flags."""
    web = host.sandbox("web")
    with Net(host.state_dir) as net:
        network = net.create(
            "front",
            subnets=["198.51.100.0/24", "2001:db8:1::/64"],
            options={"mtu": "1400", "icc": "false"},
        )
        endpoint = net.connect("front", "netns:web", mac="02:00:5e:00:53:01")

        outside, inside = seen(host), seen(web)
        bridge = outside["links"][names.bridge(network.id)]
        port = outside["links"][names.veth(endpoint.id)]
        interface = inside["links"]["eth0"]

        assert bridge.get(("linkinfo", "kind")) == "bridge"
        assert bridge.get("address") == names.mac_of(network.id)
        assert bridge.get(("linkinfo", "data", "br_stp_state")) == 0
        assert (bridge.get("mtu"), port.get("mtu"), interface.get("mtu")) == (1400, 1400, 1400)
        assert port.get("master") == bridge["index"]
        assert port.get("ifalias") == names.owner(network.id, endpoint.id)
        assert port.get(("linkinfo", "slave_data", "isolated")) == 1
        assert interface.get("address") == "02:00:5e:00:53:01"
        assert {link["state"] for link in (bridge, port, interface)} == {"up"}
        assert (names.bridge(network.id), "198.51.100.1/24") in outside["addresses"]
        assert (names.bridge(network.id), "2001:db8:1::1/64") in outside["addresses"]
        assert {("eth0", "198.51.100.2/24"), ("eth0", "2001:db8:1::2/64")} <= inside["addresses"]
        assert inside["defaults"] == {("eth0", "198.51.100.1"), ("eth0", "2001:db8:1::1")}

        net.disconnect("front", "netns:web")
        net.remove("front")
    assert {name for name in seen(host)["links"] if name.startswith("n")} == set()
    assert set(seen(web)["links"]) == {"lo"}
