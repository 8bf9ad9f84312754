"""The drivers' networks carry packets as they should: on a LAN, by links, on the host itself."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from support.host import HOST4, HOST6, OUTSIDER4, OUTSIDER6, Host, Place
from support.patience import eventually
from support.traffic import answered, fetch, reachable, serve, unreachable

from netlib.apply import tear_down
from netlib.errors import Conflict, InvalidAddress, NetError, NetWarning, Unsupported
from netlib.net import Net
from netlib.plan import diff
from netlib.store import Commit, under
from netlib.wiring import Wiring

pytestmark = pytest.mark.kernel

LAN4, LAN6 = "192.0.2.0/24", "2001:db8:2::/64"
MARKS = (
    r"^route anycast",
    r"^nft table (inet netlib|ip6? (filter|nat|raw))",
    "NETLIB-",
    r"^sysctl .*forwarding=1",
)


@pytest.fixture
def outsider(host: Host) -> Place:
    """A neighbour on the LAN of eth0, and the way out of it."""
    return host.outsider()


@pytest.fixture
def net(host: Host, outsider: Place) -> Iterator[Net]:
    """A host on a LAN; nothing of ours is left when all sandboxes are off their networks."""
    with Net(host.state_dir) as net:
        yield net
        for network in net.networks():
            for endpoint in net.inspect(network.name).endpoints:
                net.disconnect(network.name, endpoint.sandbox)
            if network.name not in ("bridge", "host", "none"):
                net.remove(network.name)
        assert net.check() == ()
    assert not host.leftovers(allow=MARKS)


def lan(net: Net, **options: str) -> None:
    """A macvlan network on eth0, in both families, whose router is the outsider."""
    net.create("lan", driver="macvlan", subnets=[LAN4, LAN6], gateways=[OUTSIDER4, OUTSIDER6],
               options=options)  # fmt: skip


# -- macvlan --------------------------------------------------------------------------------------


def test_a_device_is_found_by_any_of_its_names(net: Net, host: Host, outsider: Place) -> None:
    """A parent, that of a VLAN and a bridge: what udev calls them as well leads to their own."""
    host.run("ip", "link", "property", "add", "dev", "eth0", "altname", "enp0s3")
    host.run("ip", "link", "add", "br7", "type", "bridge")
    host.run("ip", "link", "property", "add", "dev", "br7", "altname", "uplinks")
    vlan = net.plan.create("tagged", driver="macvlan", subnets=["203.0.113.0/24"],
                           options={"parent": "enp0s3.30"})  # fmt: skip
    assert "link eth0 name eth0.30" in vlan.text()

    lan(net, parent="enp0s3")
    net.create("shared", subnets=["198.51.100.0/24"], options={"bridge.name": "uplinks"})
    host.sandbox("web")
    for network, option, name in (("lan", "parent", "eth0"), ("shared", "bridge.name", "br7")):
        net.connect(network, "netns:web")
        assert net.inspect(network).network.options[option] == name
    assert net.check() == ()
    with pytest.raises(Conflict, match="lan"):
        net.create("other", driver="ipvlan", subnets=["203.0.113.0/24"],
                   options={"parent": "enp0s3"})  # fmt: skip
    net.disconnect("shared", "netns:web")
    net.remove("shared")
    host.run("ip", "link", "del", "br7")


def test_a_router_that_is_known_by_its_link_local_address_leads_out_of_the_lan(
    net: Net, host: Host, outsider: Place
) -> None:
    """As all are that hosts learn from router advertisements (RFC 4861)."""
    (router,) = re.findall("fe80::[0-9a-f:]+", outsider.run("ip", "-6", "addr").stdout)
    outsider.run("ip", "addr", "add", "2001:db8:ff::1/128", "dev", "lo")
    host.run("ip", "-6", "route", "replace", "default", "via", router, "dev", "eth0")
    network = net.create("lan", driver="macvlan", subnets=[LAN6], options={"parent": "eth0"})
    assert str(network.subnets[0].gateway) == router
    web = host.sandbox("web")
    net.connect("lan", "netns:web")
    with serve(outsider, 80, "http"):
        assert fetch(web, "2001:db8:ff::1", 80) == b"outsider"
    assert net.check() == ()
    host.run("ip", "-6", "route", "replace", "default", "via", OUTSIDER6, "dev", "eth0")


def test_an_mtu_follows_that_of_the_parent_when_it_is_asked_to(net: Net, host: Host) -> None:
    """What the parent's new one refuses is told with what to do; no sandbox has to leave."""
    lan(net)
    host.sandbox("web")
    web = host.sandbox("db")
    net.connect("lan", "netns:db")
    host.run("ip", "link", "set", "eth0", "mtu", "1400")
    ((_, error),) = net.repair().failed
    assert "net update -o mtu" in error.hint
    with pytest.raises(NetError) as refused:
        net.connect("lan", "netns:web")
    assert "net update -o mtu" in refused.value.hint
    with pytest.raises(NetError, match="that of eth0 is 1400"):
        net.update("lan", options={"mtu": "1500"})

    net.update("lan", options={"mtu": "1400"})
    assert net.check() == ()
    net.connect("lan", "netns:web")
    host.run("ip", "link", "set", "eth0", "mtu", "1500")
    net.update("lan", options={"mtu": ""})  # the parent's
    assert "mtu 1500" in web.run("ip", "link", "show", "eth0").stdout


def test_a_mac_of_the_parents_is_refused_with_the_reason(net: Net, host: Host) -> None:
    """Linux says only that an address is in use."""
    lan(net)
    host.sandbox("web")
    mac = host.run("ip", "-br", "link", "show", "eth0").stdout.split()[2]
    with pytest.raises(NetError) as refused:
        net.connect("lan", "netns:web", mac=mac)
    assert "MAC" in refused.value.hint


def test_an_address_that_the_host_got_since_is_nobody_elses(net: Net, host: Host) -> None:
    """By DHCP, say; whether it is asked for or next, and where any address may be bound."""
    net.create("lan", driver="macvlan", subnets=[LAN4], ip_ranges=["192.0.2.8/29"])
    host.sandbox("web")
    for address in ("192.0.2.8/24", "192.0.2.9/32"):
        host.run("ip", "addr", "add", address, "dev", "eth0")
    host.run("sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=1")
    with pytest.raises(InvalidAddress, match="reserved"):
        net.connect("lan", "netns:web", addresses=["192.0.2.9"])
    endpoint = net.connect("lan", "netns:web")
    assert [str(address) for address in endpoint.addresses] == ["192.0.2.10/24"]
    host.run("sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=0")
    for address in ("192.0.2.8/24", "192.0.2.9/32"):
        host.run("ip", "addr", "del", address, "dev", "eth0")


def test_a_pair_whose_end_on_the_host_was_renamed_is_mended_at_once(net: Net, host: Host) -> None:
    """What nobody owns any more goes first: its other end is where the new one is to be."""
    net.create("links", driver="ptp", subnets=["198.51.100.0/24"])
    host.sandbox("web")
    net.connect("links", "netns:web", options={"host_interface_name": "toweb"})
    host.run("ip", "link", "set", "toweb", "down")
    host.run("ip", "link", "set", "toweb", "name", "renamed")
    assert not net.repair().failed
    assert net.check() == ()


def test_a_macvlan_that_its_sandbox_renamed_is_made_again_and_goes_when_it_leaves(
    net: Net, host: Host, outsider: Place
) -> None:
    """Udev in a container renames: no address stays with a device that nobody knows any more."""
    lan(net)
    web = host.sandbox("web")
    first = net.connect("lan", "netns:web", addresses=["192.0.2.9"])
    web.run("ip", "link", "set", "eth0", "name", "host0")
    assert len(net.check()) == 1
    assert not net.repair().failed
    assert net.check() == ()
    assert "host0" not in web.run("ip", "-o", "link").stdout
    with serve(web, 80, "http"):
        assert fetch(outsider, "192.0.2.9", 80) == b"web"
    assert first.mac in outsider.run("ip", "neigh", "show", "192.0.2.9").stdout

    web.run("ip", "link", "set", "eth0", "name", "host0")
    web.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    net.disconnect("lan", "netns:web")
    there = web.run("ip", "-o", "link").stdout
    assert "host0" not in there
    assert "eth0" in there, "what is not ours stays"


@pytest.mark.parametrize("family", [4, 6])
def test_a_macvlan_sandbox_stands_on_the_lan_with_its_own_mac(
    net: Net, host: Host, outsider: Place, family: int
) -> None:
    """The neighbour reaches it, sees the MAC that was asked for, and is reached."""
    lan(net)
    web = host.sandbox("web")
    mac = "02:00:5e:00:53:01"
    endpoint = net.connect("lan", "netns:web", addresses=["192.0.2.9", "2001:db8:2::9"], mac=mac)
    own, theirs = ("192.0.2.9", OUTSIDER4) if family == 4 else ("2001:db8:2::9", OUTSIDER6)
    assert own in [str(address.ip) for address in endpoint.addresses]
    with serve(web, 80, "http"), serve(outsider, 80):
        assert fetch(outsider, own, 80) == b"web"
        answer = answered(web, theirs, 80)
    assert answer is not None
    assert answer.source == own
    assert mac in outsider.run("ip", "neigh", "show", own).stdout
    net.disconnect("lan", "netns:web")
    assert "eth0" not in web.run("ip", "-o", "link").stdout


@pytest.mark.parametrize(("mode", "together"), [("bridge", True), ("private", False)])
def test_modes_say_whether_sandboxes_of_one_parent_meet(
    net: Net, host: Host, outsider: Place, mode: str, together: bool
) -> None:
    """The LAN reaches each of them in either mode."""
    lan(net, mode=mode)
    web, db = host.sandbox("web"), host.sandbox("db")
    first, second = (net.connect("lan", f"netns:{box.name}").addresses for box in (web, db))
    assert first != second
    with serve(web, 80):
        assert reachable(outsider, str(first[0].ip), 80)
        for address in first:
            assert reachable(db, str(address.ip), 80) == together


def test_in_mode_vepa_sandboxes_meet_where_their_switch_sends_frames_back(
    net: Net, host: Host
) -> None:
    """A reflective relay (IEEE 802.1Qbg); at any other switch they are apart."""
    switch = host.neighbour("switch", "eth1", (), ())
    switch.run("ip", "link", "add", "lan", "up", "type", "bridge")
    switch.run("ip", "link", "set", "eth0", "master", "lan")
    net.create("lan", driver="macvlan", subnets=["198.51.100.0/24"],
               options={"parent": "eth1", "mode": "vepa", "bcqueuelen": "2000"})  # fmt: skip
    web, db = host.sandbox("web"), host.sandbox("db")
    address = str(net.connect("lan", "netns:web").addresses[0].ip)
    net.connect("lan", "netns:db")
    assert "bcqueuelen 2000" in web.run("ip", "-d", "link", "show", "eth0").stdout
    with serve(web, 80):
        assert unreachable(db, address, 80)
        switch.run("bridge", "link", "set", "dev", "eth0", "hairpin", "on")
        assert eventually(lambda: reachable(db, address, 80))


def test_the_host_does_not_reach_its_macvlan_sandboxes(net: Net, host: Host) -> None:
    """So is macvlan: a device's children and itself are apart."""
    lan(net)
    web = host.sandbox("web")
    address = str(net.connect("lan", "netns:web").addresses[0].ip)
    with serve(web, 80), serve(host, 80):
        assert unreachable(host, address, 80)
        assert unreachable(web, HOST4, 80)


@pytest.mark.parametrize("shim", ["true", "192.0.2.50,2001:db8:2::50"])
def test_with_a_host_shim_host_and_sandboxes_reach_each_other(
    net: Net, host: Host, outsider: Place, shim: str
) -> None:
    """And the LAN goes on to find the host where it always was."""
    lan(net, host_shim=shim)
    web = host.sandbox("web")
    endpoint = net.connect("lan", "netns:web")
    given = [] if shim == "true" else shim.split(",")
    addresses = [str(a.ip) for a in endpoint.addresses if given or a.version == 4]
    before = neighbour_mac(outsider, HOST4)
    with serve(web, 80), serve(host, 80):
        for address in addresses:
            answer = answered(host, address, 80)
            assert answer is not None
            assert answer.source in (given or [HOST4])
        for address in given or [HOST4]:
            assert reachable(web, address, 80)
        assert reachable(outsider, addresses[0], 80)
        assert unreachable(web, OUTSIDER4, 80)  # nobody listens there, yet it is asked
        outsider.run("ip", "neigh", "flush", "all")
        assert neighbour_mac(outsider, HOST4) == before
        assert reachable(outsider, HOST4, 80)
    net.disconnect("lan", "netns:web")
    assert addresses[0] not in host.run("ip", "route").stdout


def neighbour_mac(where: Place, address: str) -> str:
    """The MAC at which a place finds an address, asked just now."""
    unreachable(where, address, 9)
    shown = eventually(lambda: where.run("ip", "neigh", "show", address).stdout)
    words: list[str] = shown.split()
    return words[words.index("lladdr") + 1]


def test_passthru_gives_the_parent_to_one_sandbox(net: Net, host: Host) -> None:
    """A second one is told who has it, and leaves nothing."""
    host.neighbour("other", "eth1", (), ())
    net.create("all", driver="macvlan", subnets=["198.51.100.0/24"],
               options={"parent": "eth1", "mode": "passthru"})  # fmt: skip
    host.sandbox("web")
    host.sandbox("db")
    with pytest.raises(Unsupported, match="MAC"):
        net.connect("all", "netns:web", mac="02:00:5e:00:53:01")
    net.connect("all", "netns:web")
    with pytest.raises(Conflict, match="netns:web is on it"):
        net.connect("all", "netns:db")
    assert len(net.endpoints()) == 1
    net.disconnect("all", "netns:web")
    net.connect("all", "netns:db")
    assert net.check() == ()


# -- what this kernel may lack --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "options", "internal", "module"),
    [
        ("macvlan", {"parent": "eth0.30"}, False, "8021q"),
        ("macvlan", {}, True, "dummy"),
        ("ipvlan", {}, False, "ipvlan"),
        ("ipvlan", {"mode": "l3"}, False, "ipvlan"),
    ],
    ids=["vlan", "dummy", "ipvlan", "ipvlan-l3"],
)
def test_what_the_kernel_lacks_is_said_and_leaves_nothing(
    net: Net, host: Host, driver: str, options: dict[str, str], internal: bool, module: str
) -> None:
    """Either it works, or the error says which module the kernel lacks."""
    host.sandbox("web")
    lacking = ""
    try:
        net.create(
            "n", driver=driver, subnets=["198.51.100.0/24"], options=options, internal=internal
        )
        net.connect("n", "netns:web")
    except Unsupported as error:
        lacking = error.hint
    assert lacking == "" or f"kernel lacks {module};" in lacking
    assert len(net.endpoints()) == (lacking == "")
    assert net.check() == ()


# -- host, none, container: -----------------------------------------------------------------------


def test_a_sandbox_on_host_listens_on_the_host(net: Net, host: Host, outsider: Place) -> None:
    """It has the host's network namespace; publishing makes no rule."""
    box = f"pid:{os.getpid()}"
    with pytest.warns(NetWarning):
        endpoint = net.connect("host", box, publish=["8080:80"])
    assert endpoint.sandbox.netns.inode == host.netns.inode
    with serve(host, 80):
        assert reachable(outsider, HOST4, 80)
        assert unreachable(outsider, HOST4, 8080)
    assert "netlib" not in host.run("nft", "list", "tables").stdout


def test_on_none_only_the_sandbox_itself_is_reached(net: Net, host: Host) -> None:
    """Loopback is up, and nothing else is there; a network may come later."""
    web = host.sandbox("web")
    web.run("ip", "link", "set", "lo", "down")
    net.connect("none", "netns:web")
    with serve(web, 80):
        assert reachable(web, "127.0.0.1", 80)
        assert unreachable(web, HOST4, 80)
        links = web.run("ip", "-o", "link").stdout
        assert len([line for line in links.splitlines() if "lo:" not in line]) == 0
        net.create("front", subnets=["198.51.100.0/24"])
        net.connect("front", "netns:web")
        assert reachable(host, "198.51.100.2", 80)


def test_who_shares_a_stack_publishes_for_it(net: Net, host: Host, outsider: Place) -> None:
    """A sidecar's published port leads to the one stack."""
    web = host.sandbox("web")
    net.create("front", subnets=["198.51.100.0/24"])
    net.connect("front", "netns:web")
    net.register_sandbox("sidecar", web.netns)
    net.publish("sidecar", ["8080:80"])
    with serve(web, 80, "http"):
        assert fetch(outsider, HOST4, 8080) == b"web"
    net.remove_sandbox("sidecar")


# -- the default network --------------------------------------------------------------------------


def test_sandboxes_of_the_default_network_meet_by_address(
    net: Net, host: Host, outsider: Place
) -> None:
    """On net0, with a way out and published ports, and without a resolver."""
    web, db = host.sandbox("web"), host.sandbox("db")
    first = net.connect("bridge", "netns:web", publish=["8080:80"])
    net.connect("bridge", "netns:db")
    with serve(web, 80, "http"), serve(outsider, 81):
        assert reachable(db, str(first.addresses[0].ip), 80, "http")
        assert fetch(outsider, HOST4, 8080) == b"web"
        answer = answered(db, OUTSIDER4, 81)
    assert answer is not None
    assert answer.source == HOST4
    assert "net0" in host.run("ip", "-o", "link").stdout
    gateway = str(net.inspect("bridge").network.subnets[0].gateway)
    assert f"{gateway}:53" not in host.run("ss", "-lun").stdout
    net.disconnect("bridge", "netns:web")
    net.disconnect("bridge", "netns:db")
    forget_the_default_network(net, host)


def forget_the_default_network(net: Net, host: Host) -> None:
    """Take it out of the host and the state, which nobody can: it is built in."""
    host.run("ip", "link", "del", "net0")
    details = net.inspect("bridge")
    tear_down(diff(have=details.wiring, want=Wiring()), net.engine.kernel, "bridge")
    keys = [r.key for r in net.engine.state.store.range(*under("pool/"))]
    gone = (f"network/{details.network.id}", "name/bridge", *keys)
    net.engine.state.store.commit(Commit(put={}, delete=gone))


# -- ptp ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("firewall", ["nftables", "iptables"])
@pytest.mark.parametrize("family", [4, 6])
def test_ptp_sandboxes_reach_host_outside_and_each_other(
    host: Host, outsider: Place, family: int, firewall: str
) -> None:
    """Masqueraded outside, with their own addresses among themselves; ports can be published."""
    outside, here = (OUTSIDER4, HOST4) if family == 4 else (OUTSIDER6, HOST6)
    with Net(host.state_dir, firewall=firewall) as net:  # type: ignore[arg-type]
        net.create("links", driver="ptp", subnets=["198.51.100.0/24", "2001:db8:1::/64"])
        web, db = host.sandbox("web"), host.sandbox("db")
        first = net.connect("links", "netns:web", publish=["8080:80"]).address(family)
        second = net.connect("links", "netns:db").address(family)
        assert first is not None
        assert second is not None
        with serve(web, 80, "http"), serve(outsider, 81), serve(host, 82):
            assert reachable(host, str(first.ip), 80, "http")
            assert reachable(web, here, 82)
            at_web = answered(db, str(first.ip), 80, "http")
            at_outsider = answered(web, outside, 81)
            assert fetch(outsider, here, 8080) == b"web"
            assert fetch(db, here, 8080) == b"web"
            assert fetch(host, "127.0.0.1", 8080) == b"web"
            outsider.run("ip", "route", "add", f"{first.ip}", "via", here)
            assert unreachable(outsider, str(first.ip), 80, "http")
            net.update("links", options={"icc": "false"})
            assert unreachable(db, str(first.ip), 80, "http")
        assert at_web is not None
        assert at_web.source == str(second.ip)
        assert at_outsider is not None
        assert at_outsider.source == here
        assert net.check() == ()
        net.remove("links", force=True)
    assert not host.leftovers(allow=MARKS)


def test_an_internal_ptp_network_leads_to_the_gateway_only(
    net: Net, host: Host, outsider: Place
) -> None:
    """Not outside, and not to each other."""
    net.create("links", driver="ptp", subnets=["198.51.100.0/24"], internal=True)
    web, db = host.sandbox("web"), host.sandbox("db")
    first = net.connect("links", "netns:web").addresses[0]
    net.connect("links", "netns:db")
    with serve(web, 80), serve(host, 82), serve(outsider, 81):
        assert reachable(web, "198.51.100.1", 82)
        assert unreachable(db, str(first.ip), 80)
        assert unreachable(web, OUTSIDER4, 81)


# -- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("firewall", ["nftables", "iptables"])
@pytest.mark.parametrize("family", [4, 6])
def test_who_is_linked_goes_on_when_members_may_talk_no_more(
    host: Host, firewall: str, family: int
) -> None:
    """They know each other's MAC from before, and it leads nowhere any more."""
    with Net(host.state_dir, firewall=firewall) as net:  # type: ignore[arg-type]
        net.create("front", subnets=["198.51.100.0/24", "2001:db8:1::/64"])
        boxes = {name: host.sandbox(name) for name in ("db", "web")}
        db = net.connect("front", "netns:db", options={"expose": "80"}).address(family)
        net.connect("front", "netns:web", links={"netns:db": "db"})
        assert db is not None
        with serve(boxes["db"], 80), serve(boxes["db"], 81):
            assert reachable(boxes["web"], str(db.ip), 81)
            net.update("front", options={"icc": "false"})
            assert reachable(boxes["web"], str(db.ip), 80)
            assert unreachable(boxes["web"], str(db.ip), 81)
            net.update("front", options={"icc": "true"})
            assert reachable(boxes["web"], str(db.ip), 81)
        assert net.check() == ()
        net.remove("front", force=True)
    assert not host.leftovers(allow=MARKS)


@pytest.mark.parametrize(("network", "family"), [("quiet", 4), ("quiet", 6), ("bridge", 4)])
@pytest.mark.parametrize("firewall", ["nftables", "iptables"])
def test_a_link_opens_just_the_linked_ports_one_way(
    host: Host, firewall: str, network: str, family: int
) -> None:
    """Where members may not talk: neither other ports, nor others, nor the way back."""
    with Net(host.state_dir, firewall=firewall) as net:  # type: ignore[arg-type]
        if network == "quiet":
            net.create("quiet", subnets=["198.51.100.0/24", "2001:db8:1::/64"])
        net.update(network, options={"icc": "false"})
        boxes = {name: host.sandbox(name) for name in ("db", "web", "other")}
        db = net.connect(network, "netns:db", options={"expose": "80"}).address(family)
        web = net.connect(network, "netns:web", links={"netns:db": "db"}).address(family)
        net.connect(network, "netns:other")
        assert db is not None
        assert web is not None
        with serve(boxes["db"], 80), serve(boxes["db"], 81), serve(boxes["web"], 80):
            for _ in range(2):  # the host would tell of a nearer way after the first packet
                answer = answered(boxes["web"], str(db.ip), 80)
                assert answer is not None
                assert answer.source == str(web.ip)
            assert unreachable(boxes["web"], str(db.ip), 81)
            assert unreachable(boxes["other"], str(db.ip), 80)
            assert unreachable(boxes["db"], str(web.ip), 80)
            if family == 6:
                net.update(network, options={"icc": "true"})
                assert reachable(boxes["other"], str(db.ip), 80)
        assert net.check() == ()
        for name in boxes:
            net.disconnect(network, f"netns:{name}")
        if network == "quiet":
            net.remove("quiet")
        else:
            forget_the_default_network(net, host)
    assert not host.leftovers(allow=MARKS)
