"""The firewall's facts: what each is there for, and whether the kernel has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from netlib.engine import Engine
from netlib.model import bracketed, port_range
from netlib.records import EndpointRecord, NetworkRecord
from netlib.values import dataclass
from netlib.wiring import (
    Allow,
    Count,
    DnsRedirect,
    FirewallBase,
    Forward,
    Layer,
    Masquerade,
    Noun,
    Open,
    Publish,
    Relay,
    Segment,
    SourceGuard,
    Unmasked,
    Wiring,
)

Presence = Literal["present", "missing", "different"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One fact that the firewall is to know.

    `sandbox` is empty for what a network has by itself; `what` is the fact and `reason` why
    it is there, both in words. `met` is what it met since it is there, where that is counted:
    mostly the first packets of connections, since those that are known pass before it.
    """

    network: str
    sandbox: str
    noun: Noun
    what: str
    reason: str
    presence: Presence
    met: Count | None = None


def facts(engine: Engine, network: str | None = None) -> tuple[Fact, ...]:
    """The firewall's facts of a network, or of all, each network's before its endpoints'.

    Raises NoSuchNetwork.

    Example:  net rules my-net
    """
    records = [engine.state.network(network)] if network else engine.state.networks()
    parts: list[tuple[NetworkRecord, EndpointRecord | None]] = []
    for record in records:
        parts.append((record, None))
        parts += [(record, endpoint) for endpoint in engine.state.endpoints(record.network.id)]
    nouns: dict[tuple[object, ...], Noun] = {}
    for record, endpoint in parts:
        nouns |= {noun.key(): noun for noun in _facts_of((endpoint or record).wiring)}
    there = engine.kernel.observe(Wiring(nouns.values()))
    met = engine.kernel.counted(Wiring(nouns.values()))
    return tuple(
        Fact(
            network=record.network.name,
            sandbox=endpoint.endpoint.sandbox.name if endpoint else "",
            noun=noun,
            what=_what(noun),
            reason=_reason(noun, record.network.name, endpoint),
            presence=_presence(noun, there),
            met=met.get(noun.key()),
        )
        for record, endpoint in parts
        for noun in _facts_of((endpoint or record).wiring)
    )


def _facts_of(wiring: Wiring) -> Iterator[Noun]:
    return (n for n in wiring if n.layer is Layer.FIREWALL or isinstance(n, FirewallBase | Relay))


def _presence(noun: Noun, there: Wiring) -> Presence:
    found = there.get(noun.key())
    if found is None:
        return "missing"
    return "present" if found == noun else "different"


def _what(noun: Noun) -> str:
    match noun:
        case FirewallBase():
            return "base"
        case Forward():
            inbound = noun.inbound + (f" (IPv6: {noun.inbound6})" if noun.inbound6 else "")
            return f"forward {noun.bridge}: in {inbound}, out {noun.outbound}, within {noun.within}"
        case Segment():
            return f"segment {noun.bridge}: {noun.prefix}"
        case Masquerade():
            return f"masquerade {noun.bridge}: IPv{noun.family}" + (
                f" as {noun.source}" if noun.source else ""
            )
        case Publish():
            host = "*" if noun.host is None else bracketed(noun.host)
            return (
                f"publish {host}:{port_range(noun.port, noun.count)}/{noun.protocol} -> "
                f"{bracketed(noun.target)}:{port_range(noun.target_port, noun.count)}"
            )
        case Relay():
            ports = port_range(noun.port, noun.count)
            return (
                f"relay {bracketed(noun.host)}:{ports}/{noun.protocol} -> "
                f"{bracketed(noun.target)}:{port_range(noun.target_port, noun.count)}"
            )
        case Open():
            ports = port_range(noun.port, noun.count)
            return f"open {bracketed(noun.target)}:{ports}/{noun.protocol}"
        case Allow():
            return (
                f"allow {noun.source} -> {bracketed(noun.target)}:"
                f"{port_range(noun.port, noun.count)}/{noun.protocol}"
            )
        case Unmasked():
            return f"unmasked {noun.bridge}: {noun.prefix}"
        case DnsRedirect():
            return f"dns {bracketed(noun.gateway)}:53 -> port {noun.port}"
        case SourceGuard():
            owned = ", ".join(str(address) for address in noun.addresses)
            return f"source guard {noun.device}: {noun.mac} with {owned}"
        case _:
            return type(noun).__name__.lower()


def _reason(noun: Noun, network: str, endpoint: EndpointRecord | None) -> str:
    who = endpoint.endpoint.sandbox.name if endpoint else network
    match noun:
        case FirewallBase():
            return "the ground that every network's facts stand on"
        case Forward():
            return "; ".join(_policy(noun, network))
        case Segment():
            return f"tells the addresses of {network}, so that nobody else may use them"
        case Masquerade():
            return f"what leaves {network} gets an address that answers find back to"
        case Publish() | Relay():
            limit = f", for {', '.join(str(s) for s in noun.sources)} only" if noun.sources else ""
            how = "by a proxy, as the kernel can't redirect it" if isinstance(noun, Relay) else ""
            return f"{who} publishes it on {network}{limit}" + (f" ({how})" if how else "")
        case Open():
            return f"{who} publishes it by its own address, since {network} is routed"
        case Allow():
            return f"{who} is linked to it, on {network} where members reach nobody else"
        case Unmasked():
            return f"who is on {network} sees the true address of others on it"
        case DnsRedirect():
            return f"members of {network} ask their gateway for names"
        case SourceGuard():
            return f"{who} may not send as another of {network}"
        case _:
            return f"part of {network}"


def _policy(noun: Forward, network: str) -> Iterator[str]:
    for verdict, by in ((noun.inbound, ""), (noun.inbound6, " by IPv6")):
        if verdict is not None:
            yield {
                "published": f"others reach only published ports of {network}",
                "routed": f"others reach only opened ports of {network}",
                "drop": f"nobody else reaches {network}",
                "allow": f"everybody reaches {network}",
            }[verdict] + by
    if noun.outbound == "drop":
        yield "its members reach nobody else"
    if noun.within == "published":
        yield "its members reach only each other's published ports"
    if noun.host != "open":
        yield {"gateway": "of the host only the gateway", "closed": "nothing of the host"}[
            noun.host
        ]
    if not noun.isolated:
        yield "other networks that are not isolated reach it"
