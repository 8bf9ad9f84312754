"""Pairs of veth devices, one end a port of a bridge, the other in a sandbox (veth(4))."""

from __future__ import annotations

from collections.abc import Iterator

from netlib.errors import NotThere
from netlib.kernel import netlink, rtnl
from netlib.kernel import rtnl_entries as entries
from netlib.kernel.errnos import Refusal, is_absence
from netlib.kernel.kinds.common import (
    HAIRPIN,
    ISOLATED,
    LEARNING,
    LOCKED,
    Requests,
    as_found,
    find,
    index_of,
    mac_to_set,
    without_generated_address,
)
from netlib.kernel.netlink import Request, attribute, text, u8, u32
from netlib.kernel.rtnl import LinkState
from netlib.kernel.session import Session
from netlib.values import replace
from netlib.wiring import VethPair


def _port(noun: VethPair) -> bytes:
    return rtnl.port(
        u8(HAIRPIN, noun.hairpin),
        u8(ISOLATED, noun.isolated),
        # A locked port takes frames only from the MAC that is entered for it below.
        u8(LOCKED, noun.locked),
        u8(LEARNING, not noun.locked),
    )


def _settings(noun: VethPair) -> Iterator[Request]:
    name = text(rtnl.NAME, noun.name)
    port = (_port(noun), without_generated_address(noun.mtu)) if noun.bridge else ()
    yield rtnl.set_link(name, text(rtnl.ALIAS, noun.owner), *port)
    # Apart, because in one message "up" would come before "no generated address".
    yield rtnl.set_link(name, up=noun.up)


# Since Linux 5.17 veth makes as many queues for each end as the machine may have processors, each
# with a place in sysfs: on a machine with two that is a quarter of all the time. They are for XDP
# and GRO; without these a packet is queued where it is sent (netif_rx), and no lock is taken.
_ONE_QUEUE = u32(rtnl.TX_QUEUES, 1) + u32(rtnl.RX_QUEUES, 1)


def create(noun: VethPair, session: Session) -> Requests:
    """The requests that make it."""
    master = b""
    if noun.bridge:
        master = u32(rtnl.MASTER, index_of(session, noun.netns, noun.bridge, noun))
    # The peer stays down: veth refuses it up before its other end exists (ENOTCONN).
    peer = attribute(
        1,  # VETH_INFO_PEER
        rtnl.link_body(
            text(rtnl.NAME, noun.peer),
            _ONE_QUEUE,
            mac_to_set(noun.mac),
            u32(rtnl.MTU, noun.mtu),
            u32(rtnl.NETNS_FD, session.fd(noun.peer_netns)),
        ),
    )
    yield (
        noun.netns,
        rtnl.new_link(
            text(rtnl.NAME, noun.name),
            _ONE_QUEUE,
            u32(rtnl.MTU, noun.mtu),
            mac_to_set(noun.host_mac),
            master,
            rtnl.info("veth", peer),
        ),
    )
    for request in _settings(noun):
        yield noun.netns, request
    if noun.locked and noun.bridge:
        yield None
        index = index_of(session, noun.netns, noun.name, noun)
        yield noun.netns, entries.port_entry(index, noun.mac, sticky=False)


def change(noun: VethPair, state: LinkState, session: Session) -> Requests:
    """The requests that make it, as it is now, be as the noun says."""
    index = state.ifindex
    master = index_of(session, noun.netns, noun.bridge, noun) if noun.bridge else 0
    mtu, plug = u32(rtnl.MTU, noun.mtu), u32(rtnl.MASTER, master)
    yield noun.netns, rtnl.set_link(mtu, plug, mac_to_set(noun.host_mac, state), index=index)
    for request in _settings(noun):
        yield noun.netns, request
    peer = find(session, noun.peer_netns, noun.peer)
    if peer is None:
        raise NotThere(f"{noun.name} has no peer {noun.peer} in {noun.peer_netns}")
    yield noun.peer_netns, rtnl.set_link(mtu, mac_to_set(noun.mac, peer), index=peer.ifindex)
    if noun.locked and noun.bridge:
        yield noun.netns, entries.port_entry(index, noun.mac, sticky=False)


def _is_known(noun: VethPair, state: LinkState, session: Session) -> bool:
    """Whether a locked port takes anything: its sandbox's MAC is entered for it, for ever."""
    answer = session.rtnl(noun.netns).try_to_ask(entries.get_port_entry(state.ifindex, noun.mac))
    if isinstance(answer, Refusal):
        return not is_absence(answer)  # before Linux 5.0 one entry can't be asked for
    found = [entries.read_neighbour(body) for body in answer]
    return any(one.ifindex == state.ifindex and one.state & entries.NO_ARP for one in found)


def read(noun: VethPair, state: LinkState, session: Session) -> VethPair:
    """The noun as it is now."""
    port = state.port
    found = replace(
        noun,
        **as_found(state),
        bridge=session.rtnl(noun.netns).device(state.master) if state.master else "",
        host_mac=state.mac if noun.host_mac else "",
    )
    if port:
        found = replace(
            found,
            hairpin=bool(netlink.number(port.get(HAIRPIN))),
            isolated=bool(netlink.number(port.get(ISOLATED))),
            locked=bool(netlink.number(port.get(LOCKED))) and _is_known(noun, state, session),
        )
    peer = find(session, noun.peer_netns, noun.peer)
    if peer is None or peer.kind != "veth":
        return replace(found, peer="", mac="")  # renamed, moved: a fixed attribute differs
    mtu = found.mtu if peer.mtu == noun.mtu else peer.mtu
    return replace(found, mac=peer.mac, mtu=mtu)
