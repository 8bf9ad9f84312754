"""Nouns read back from nft's list of our table (libnftables-json(5)): pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any, Literal, cast

from netlib.firewall.base import prefix_text
from netlib.firewall.facts import (
    Element,
    Facts,
    Place,
    alone,
    beside,
    one_of_each,
    segments,
)
from netlib.firewall.nftables import elements
from netlib.firewall.nftables_base import FINGERPRINT
from netlib.model import FAMILIES, Family, IPNetwork, Protocol
from netlib.values import replace
from netlib.wiring import (
    Allow,
    Count,
    DnsRedirect,
    Forward,
    Masquerade,
    Noun,
    Open,
    Publish,
    Stray,
    Unmasked,
    Verdict,
    VxlanMember,
    VxlanPort,
)

_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}


def facts(objects: Iterable[Mapping[str, Any]]) -> dict[Place, Element]:
    """All elements of the table that `objects` list, written as we write them."""
    found: dict[Place, Element] = {}
    for thing in objects:
        container = thing.get("set") or thing.get("map")
        for element in _elements(container) if container else ():
            found[element.place] = element
    return found


def counts(objects: Iterable[Mapping[str, Any]]) -> dict[Place, Count]:
    """What the elements of the table that `objects` list met."""
    found: dict[Place, Count] = {}
    for thing in objects:
        container = thing.get("set") or thing.get("map")
        if container:
            for element, item in zip(_elements(container), container.get("elem", ()), strict=True):
                key = item[0] if "map" in container else item
                met = (
                    key["elem"].get("counter") if isinstance(key, dict) and "elem" in key else None
                )
                if met:
                    found[element.place] = Count(met["packets"], met["bytes"])
    return found


def known(there: Facts) -> list[Noun]:
    """The nouns that account for the elements, as far as elements tell."""
    return one_of_each(_read(e for e in there.values() if alone(e, _read, _beginning) is not None))


def _beginning(noun: Noun) -> list[Element]:
    """What is written of a noun, or of its first port: a range can be an element for each."""
    return elements(replace(noun, count=1) if isinstance(noun, Publish) else noun)


def _read(there: Iterable[Element]) -> list[Noun]:
    rows: dict[str, list[tuple[list[str], Element]]] = {}
    for element in there:
        rows.setdefault(element.container, []).append((element.key.split(" . "), element))
    return [
        *_forwards(rows),
        *_segments(rows),
        *_masquerades(rows),
        *_published(rows),
        *_opened(rows),
        *_redirects(rows),
        *_allowed(rows),
        *_unmasked(rows),
        *_members(rows),
    ]


def strays(there: Facts, wanted: Iterable[Noun]) -> list[Noun]:
    """The elements that no noun accounts for, neither a wanted one nor one that is read."""
    return [
        Stray(container=e.container, element=e.key, value=e.value)
        for e in beside(there, [*wanted, *known(there)], elements)
        if e.container != FINGERPRINT
    ]


# -- elements from JSON -------------------------------------------------------------------------


def _elements(container: Mapping[str, Any]) -> Iterator[Element]:
    kinds = container["type"] if isinstance(container["type"], list) else [container["type"]]
    for item in container.get("elem", ()):
        key, value = item if "map" in container else (item, None)
        comment = ""
        if isinstance(key, dict) and "elem" in key:
            comment = key["elem"].get("comment", "")
            key = key["elem"]["val"]
        parts = key["concat"] if isinstance(key, dict) and "concat" in key else [key]
        text = " . ".join(_part(p, k) for p, k in zip(parts, kinds, strict=True))
        yield Element(container["name"], text, _value(value), comment)


def _part(part: Any, kind: str) -> str:
    if kind == "ifname":
        return f'"{part}"'
    if kind == "inet_proto":
        return _PROTOCOLS.get(part, str(part))
    if isinstance(part, dict) and "range" in part:
        first, last = part["range"]
        return f"{first}-{last}"
    if isinstance(part, dict):
        return f"{part['prefix']['addr']}/{part['prefix']['len']}"
    return str(part)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        if "concat" in value:
            return " . ".join(str(part) for part in value["concat"])
        verdict, detail = next(iter(value.items()))
        return f"{verdict} {detail['target']}" if detail else str(verdict)
    return "" if value is None else str(value)


# -- nouns from elements ------------------------------------------------------------------------

Rows = Mapping[str, list[tuple[list[str], Element]]]


def _column(rows: Rows, container: str) -> dict[str, str]:
    """The values of a container by the first part of its keys, a device."""
    return {key[0].strip('"'): element.value for key, element in rows.get(container, ())}


def _forwards(rows: Rows) -> Iterator[Noun]:
    bridges, mutual = _column(rows, "bridges"), _column(rows, "mutual")
    within = {"same": [row for row in rows.get("same", ()) if row[0][0] == row[0][-1]]}
    same, source = _column(within, "same"), _column(rows, "from")
    to, host = _inbound(rows), _column(rows, "host")
    there = [*bridges, *same, *source, *(name for name, _ in to), *host, *mutual]
    for bridge in dict.fromkeys(there):
        inside = "published" if same.get(bridge) == "goto linked" else "allow"
        inbound, inbound6 = (to.get((bridge, family), "published") for family in FAMILIES)
        reach: dict[str | None, Literal["open", "gateway", "closed"]]
        reach = {None: "open", "drop": "closed"}
        yield Forward(
            bridge=bridge,
            within=cast("Literal['allow', 'published']", inside),
            inbound=inbound,
            inbound6=None if inbound6 == inbound else inbound6,
            outbound="drop" if bridge in source else "allow",
            host=reach.get(host.get(bridge), "gateway"),
            isolated=bridge not in mutual,
        )


def _inbound(rows: Rows) -> dict[tuple[str, Family], Verdict]:
    return {
        (name.strip('"'), 4 if protocol == "ipv4" else 6): cast(
            "Verdict", element.value.removeprefix("goto ")
        )
        for (protocol, name), element in rows.get("inbound", ())
    }


def _segments(rows: Rows) -> Iterator[Noun]:
    for family in FAMILIES:
        yield from segments(
            [(k[0].strip('"'), ip_network(k[1])) for k, _ in rows.get(f"subnets{family}", ())],
            [(k[0].strip('"'), ip_address(k[1])) for k, _ in rows.get(f"gateways{family}", ())],
        )


def _masquerades(rows: Rows) -> Iterator[Noun]:
    for (protocol, name), element in rows.get("leave", ()):
        family: Family = 4 if protocol == "ipv4" else 6
        bridge = name.strip('"')
        source = _column(rows, f"outbound{family}").get(bridge)
        fixed = element.value == "goto masq_fixed" and source is not None
        yield Masquerade(
            bridge=bridge, family=family, source=ip_address(str(source)) if fixed else None
        )


def _published(rows: Rows) -> Iterator[Noun]:
    for family in FAMILIES:
        guards = {element.key for _, element in rows.get(f"guard{family}", ())}
        anywhere = f"any{family}"
        # One port of a range to other numbers carries the whole range as its comment.
        groups: dict[tuple[str, ...], list[tuple[int, str, Element]]] = {}
        for container in (f"at{family}", anywhere, f"from{family}", f"range{family}"):
            for key, element in rows.get(container, ()):
                protocol, *rest = key
                host = "" if container == anywhere else rest.pop(0)
                ports = rest.pop(0)
                source = rest.pop(0) if rest else ""
                group = (container, protocol, host, element.comment or ports)
                first = int(ports.split("-")[0])
                groups.setdefault(group, []).append((first, source, element))
        for (_, protocol, host, ports), members in groups.items():
            first, count = _span(ports)
            where = "" if host in ("", "0.0.0.0/0", "::/0") else host
            guard = f"{protocol} . {host} . {ports}"
            port, leading, element = min(members, key=lambda member: member[0])
            if not first <= port < first + count:
                raise ValueError(f"{element.key}: no port of {ports}")
            target, target_port = meant = _leads(element, port, first)
            # What some sources are led elsewhere by is not this port's.
            away = {s for p, s, e in members if _leads(e, p, first) != meant}
            texts = {s for _, s, _ in members} - away or {leading}
            sources = sorted((ip_network(s) for s in texts if s), key=str)
            if guard not in guards and all(s.prefixlen == 0 for s in sources):
                sources = []
            guards.discard(guard)
            yield Publish(
                family=family,
                protocol=cast("Protocol", protocol),
                host=ip_address(where) if where else None,
                port=first,
                count=count,
                target=ip_address(target),
                target_port=target_port,
                sources=tuple(sources),
            )
        yield from map(_guarded, guards)


def _leads(element: Element, port: int, first: int) -> tuple[str, int]:
    """The address that a port of a range is led to, and the number that the first one is."""
    target, _, number = element.value.partition(" . ")
    return target, int(number or port) - (port - first)


def _guarded(guard: str) -> Publish:
    """A published port that no source may use: its target is not known."""
    protocol, host, ports = guard.split(" . ")
    network: IPNetwork = ip_network(host)
    family: Family = 4 if network.version == 4 else 6
    nobody = ip_network("::/0") if family == 4 else ip_network("0.0.0.0/0")
    first, count = _span(ports)
    return Publish(
        family=family,
        protocol=cast("Protocol", protocol),
        host=None if network.prefixlen == 0 else network.network_address,
        port=first,
        count=count,
        target=network.network_address,
        target_port=first,
        sources=(nobody,),
    )


def _opened(rows: Rows) -> Iterator[Noun]:
    for family in FAMILIES:
        groups: dict[tuple[str, ...], list[IPNetwork]] = {}
        for (*key, source), _ in rows.get(f"open{family}", ()):
            groups.setdefault(tuple(key), []).append(ip_network(source))
        for (protocol, target, ports), sources in groups.items():
            first, count = _span(ports)
            everyone = any(s.prefixlen == 0 for s in sources)
            yield Open(
                protocol=cast("Protocol", protocol),
                target=ip_address(target),
                port=first,
                count=count,
                sources=() if everyone else tuple(sorted(sources, key=prefix_text)),
            )


def _redirects(rows: Rows) -> Iterator[Noun]:
    found: dict[tuple[str, str], int] = {}
    for family in FAMILIES:
        for (name, gateway, _, _), element in rows.get(f"dns{family}", ()):
            found[name.strip('"'), gateway] = int(element.value.split(" . ")[1])
    for (bridge, gateway), port in found.items():
        yield DnsRedirect(bridge=bridge, gateway=ip_address(gateway), port=port)


def _allowed(rows: Rows) -> Iterator[Noun]:
    for family in FAMILIES:
        for (source, target, protocol, ports), _ in rows.get(f"linked{family}", ()):
            first, count = _span(ports)
            yield Allow(
                source=ip_address(source),
                target=ip_address(target),
                protocol=cast("Protocol", protocol),
                port=first,
                count=count,
            )


def _unmasked(rows: Rows) -> Iterator[Noun]:
    for family in FAMILIES:
        for (name, prefix), _ in rows.get(f"unmasked{family}", ()):
            yield Unmasked(bridge=name.strip('"'), prefix=ip_network(prefix))


def _members(rows: Rows) -> Iterator[Noun]:
    for (port,), _ in rows.get("vxlan", ()):
        yield VxlanPort(port=int(port))
    for family in FAMILIES:
        for (address, port), _ in rows.get(f"members{family}", ()):
            yield VxlanMember(address=ip_address(address), port=int(port))


def _span(ports: str) -> tuple[int, int]:
    first, _, last = ports.partition("-")
    if int(last or first) > 65535:
        raise ValueError(f"{ports}: no ports")
    return int(first), int(last or first) - int(first) + 1
