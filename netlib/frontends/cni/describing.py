"""The result of an attachment, as version 1.1.0 of the specification has it."""

from __future__ import annotations

from typing import Any

from netlib.frontends.cni.call import Call
from netlib.frontends.cni.results import Result
from netlib.model import EVERYWHERE, Endpoint, IPInterface, Network
from netlib.naming import nameservers
from netlib.net import Net
from netlib.records import EndpointRecord, NetworkRecord
from netlib.wiring import Bridge, Route, VethPair


def describe(
    call: Call, around: NetworkRecord, record: EndpointRecord, delegated: Result | None
) -> Result:
    """What an attachment got on the network `around`; `delegated` is an IPAM plugin's part of it.

    What it was given before (by `prevResult`) comes first and stays as it is.
    """
    net, config = call.net, call.config
    before = config.previous or {"interfaces": [], "ips": [], "routes": [], "dns": {}}
    endpoint = record.endpoint
    interfaces = _interfaces(net, around, record, call.request.netns)
    position = len(before["interfaces"]) + len(interfaces) - 1
    names = nameservers([(around.network, around.wiring, endpoint, record.wiring)])
    ips: list[dict[str, Any]] = []
    for address in endpoint.addresses:
        ip: dict[str, Any] = {"address": str(address), "interface": position}
        gateway = _gateway(around.network, endpoint, address)
        if gateway is not None:
            ip["gateway"] = str(gateway)
        ips.append(ip)
    dns: dict[str, Any] = {"nameservers": [str(name) for name in names]} if names else {}
    if delegated is not None and delegated["dns"]:
        dns = delegated["dns"]
    if config.dns is not None:
        dns = dict(config.dns)
    return {
        "interfaces": [*before["interfaces"], *interfaces],
        "ips": [*before["ips"], *ips],
        "routes": [*before["routes"], *_routes(record)],
        "dns": dns or before["dns"],
    }


def _gateway(network: Network, endpoint: Endpoint, address: IPInterface) -> object:
    own = endpoint.routes.get(EVERYWHERE[address.version])
    return own or next((s.gateway for s in network.subnets if address.ip in s.prefix), None)


def _interfaces(
    net: Net, around: NetworkRecord, record: EndpointRecord, netns: str
) -> list[dict[str, Any]]:
    """The bridge and the host's end of the pair, where there are such, then the sandbox's."""
    endpoint = record.endpoint
    pairs = [noun for noun in record.wiring if isinstance(noun, VethPair)]
    names = [name for pair in pairs for name in (pair.bridge, pair.name) if name]
    known = {n.name: (n.mac, n.mtu) for n in around.wiring if isinstance(n, Bridge)}
    known |= net.engine.kernel.hardware([name for name in names if name not in known])
    found: list[dict[str, Any]] = [
        {"name": name, "mac": known[name][0], "mtu": known[name][1]}
        for name in names
        if name in known
    ]
    own: dict[str, Any] = {"name": endpoint.ifname, "mac": endpoint.mac, "sandbox": netns}
    if pairs:
        own["mtu"] = pairs[0].mtu
    return [*found, own]


def _routes(record: EndpointRecord) -> list[dict[str, Any]]:
    routes: list[dict[str, Any]] = []
    for noun in record.wiring:
        if isinstance(noun, Route) and noun.device == record.endpoint.ifname:
            route: dict[str, Any] = {"dst": str(noun.destination)}
            if noun.via is not None:
                route["gw"] = str(noun.via)
            if noun.metric:
                route["priority"] = noun.metric
            routes.append(route)
    return routes
