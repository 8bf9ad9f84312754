"""The JSON that commands print: our documented schema, whatever the library's values become.

docs/json.md describes every field, and a test compares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from netlib.frontends.cli.output import moment
from netlib.model import Endpoint, Network, PublishedPort, Sandbox, Subnet
from netlib.sandbox_files import folder_of
from netlib.verbs.check import Finding
from netlib.verbs.inspect import HeldAddress, NetworkDetails, Peering, SubnetUse
from netlib.verbs.overview import Joined, SandboxStatus


def network_view(network: Network, scope: str) -> dict[str, Any]:
    """A network."""
    return {
        "id": network.id,
        "name": network.name,
        "driver": network.driver,
        "scope": scope,
        "internal": network.internal,
        "attachable": network.attachable,
        "vni": network.vni or None,
        "ipv4": 4 in network.families(),
        "ipv6": 6 in network.families(),
        "subnets": [subnet_view(subnet) for subnet in network.subnets],
        "options": dict(network.options),
        "labels": dict(network.labels),
        "records": list(network.records),
        "servers": list(network.servers),
        "created": moment(network.created),
        "state": network.state,
    }


def subnet_view(subnet: Subnet) -> dict[str, Any]:
    """A subnet."""
    return {
        "subnet": str(subnet.prefix),
        "gateway": str(subnet.gateway) if subnet.gateway else None,
        "ranges": [str(part) for part in subnet.ranges],
        "reserved": {name: str(address) for name, address in subnet.reserved.items()},
    }


def details_view(details: NetworkDetails, state_dir: Path, *, verbose: bool) -> dict[str, Any]:
    """A network in full: the use of its subnets, its endpoints, and if wanted its wiring."""
    document = network_view(details.network, details.scope)
    own = (subnet.own for subnet in details.network.subnets)
    for subnet, use, address in zip(document["subnets"], details.use, own, strict=True):
        subnet.update(_use_view(use), own=str(address) if address else None)
    document["endpoints"] = [
        {
            **endpoint_view(endpoint, details.network.name),
            "files": _files_view(state_dir, endpoint.sandbox),
        }
        for endpoint in details.endpoints
    ]
    document["peers"] = [peer_view(peer) for peer in details.peers]
    if verbose:
        from netlib.codec import to_json

        document["leases"] = [_lease_view(held) for held in details.leases]
        document["wiring"] = to_json(details.wiring)
    return document


def _files_view(state_dir: Path, box: Sandbox) -> str | None:
    """Where a sandbox's resolv.conf is, for who mounts it; a CNI runtime writes its own."""
    return None if box.kind == "cni" else str(folder_of(state_dir, box.name).absolute())


def peer_view(peer: Peering) -> dict[str, Any]:
    """An endpoint on another host, or that host itself."""
    one = peer.endpoint
    return {
        "id": one.id,
        "node": peer.node,
        "host": str(one.host),
        "sandbox": None if one.is_host else one.sandbox,
        "mac": one.mac,
        "addresses": [str(address) for address in one.addresses],
        "aliases": list(one.aliases),
    }


def _lease_view(held: HeldAddress) -> dict[str, Any]:
    return {
        "address": str(held.address),
        "sandbox": held.lease.sandbox,
        "endpoint": held.lease.endpoint,
        "boot_id": held.lease.boot_id,
        "since": moment(held.lease.since),
    }


def _use_view(use: SubnetUse) -> dict[str, int]:
    return {"usable": use.usable, "used": use.used, "free": use.free}


def endpoint_view(endpoint: Endpoint, network: str) -> dict[str, Any]:
    """An endpoint; `network` is its network's name."""
    return {
        "id": endpoint.id,
        "network": network,
        "sandbox": endpoint.sandbox.name,
        "interface": endpoint.ifname,
        "mac": endpoint.mac,
        "addresses": [str(address) for address in endpoint.addresses],
        "ports": [port_view(port) for port in endpoint.ports],
        "aliases": list(endpoint.aliases),
        "links": dict(endpoint.links),
        "options": dict(endpoint.options),
        "gateway_priority": endpoint.gateway_priority,
        "gateway_for": list(endpoint.gateway_for),
        "created": moment(endpoint.created),
        "state": endpoint.state,
    }


def port_view(port: PublishedPort) -> dict[str, Any]:
    """A published port; host address null is all of the host's."""
    return {
        "protocol": port.protocol,
        "host_address": str(port.host_address) if port.host_address is not None else None,
        "host_port": port.host_port,
        "port": port.port,
        "count": port.count,
        "sources": [str(source) for source in port.sources],
    }


def sandbox_view(box: Sandbox, state_dir: Path) -> dict[str, Any]:
    """A sandbox."""
    return {
        "name": box.name,
        "kind": box.kind,
        "pid": box.pid or None,
        "hostname": box.hostname,
        "netns": {"path": box.netns.path, "inode": box.netns.inode},
        "files": _files_view(state_dir, box),
        "labels": dict(box.labels),
        "created": moment(box.created),
    }


def status_view(status: SandboxStatus, state_dir: Path) -> dict[str, Any]:
    """A sandbox with its state and endpoints."""
    return {
        **sandbox_view(status.sandbox, state_dir),
        "state": state_word(status),
        "endpoints": [joined_view(joined) for joined in status.joined],
    }


def state_word(status: SandboxStatus) -> str:
    """A sandbox's state in a word."""
    if not status.alive:
        return "ended"
    return "running" if status.sandbox.pid else "present"


def joined_view(joined: Joined) -> dict[str, Any]:
    """An endpoint with its ports once for each address of the host."""
    document = endpoint_view(joined.endpoint, joined.network.name)
    document["ports"] = [port_view(port) for port in joined.ports]
    return document


def finding_view(finding: Finding, firewall: str) -> dict[str, Any]:
    """A difference between the host and the state, and the plan that would mend it."""
    return {
        "subject": finding.subject,
        "note": finding.note,
        "script": finding.plan.text(firewall).splitlines() if finding.plan else [],
    }
