"""Links: what one sandbox is told of another that it is linked to. Pure.

As with Docker's legacy links: entries in the hosts file, environment variables, and, where
members of a network may not talk, just the ports that the other one exposes. One way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from netlib.errors import InvalidRequest
from netlib.model import Endpoint, Protocol
from netlib.ports import parse
from netlib.values import dataclass
from netlib.wiring import Allow, Forward, Noun, Wiring

# Of everybody's, and so of no interest.
_NOT_TOLD = ("HOME", "PATH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One sandbox's link to another, under an alias; `target` is that one's endpoint."""

    sandbox: str
    alias: str
    target: Endpoint
    environment: Mapping[str, str]


def parse_links(texts: Iterable[str]) -> dict[str, str]:
    """`SANDBOX[:ALIAS]` texts as aliases by sandbox. Raises InvalidRequest.

    >>> parse_links(["db:sql", "web"])
    {'db': 'sql', 'web': 'web'}
    """
    found: dict[str, str] = {}
    for text in texts:
        sandbox, _, alias = text.partition(":")
        if not sandbox:
            raise InvalidRequest(f"the link {text!r} names no sandbox", "write SANDBOX[:ALIAS]")
        if found.setdefault(sandbox, alias or sandbox) != (alias or sandbox):
            raise InvalidRequest(
                f"{sandbox} is linked twice, as {found[sandbox]} and as {alias or sandbox}",
                "give it one alias",
            )
    return found


def exposed(endpoint: Endpoint) -> list[tuple[Protocol, int]]:
    """The ports that an endpoint shows to who is linked to it, TCP's first.

    Those of its option `expose`, and those that it publishes. Raises InvalidPort.
    """
    asked = (text.strip() for text in endpoint.options.get("expose", "").split(","))
    spans = [(p.protocol, p.port, p.count) for p in map(parse, filter(None, asked))]
    spans += [(p.protocol, p.port, p.count) for p in endpoint.ports]
    found = {(protocol, port) for protocol, first, n in spans for port in range(first, first + n)}
    return sorted(found, key=lambda port: (port[0] != "tcp", port[0], port[1]))


def hosts(links: Iterable[Link]) -> list[tuple[str, str]]:
    """Entries for a hosts file: address and name, the alias before the sandbox's own name."""
    return [
        (str(address.ip), name)
        for link in links
        for address in link.target.addresses
        for name in dict.fromkeys([link.alias, link.target.sandbox.name])
    ]


def environment(link: Link) -> dict[str, str]:
    """The variables that tell of a link: ALIAS_PORT_80_TCP_ADDR and so on."""
    alias = link.alias.upper().replace("-", "_")
    address = next((a for a in link.target.addresses), None)
    found: dict[str, str] = {}
    if address is not None:
        ports = exposed(link.target)
        for number, (protocol, port) in enumerate(ports):
            url = f"{protocol}://{address.ip}:{port}"
            if number == 0:
                found[f"{alias}_PORT"] = url
            name = f"{alias}_PORT_{port}_{protocol.upper()}"
            found |= {
                name: url,
                f"{name}_ADDR": str(address.ip),
                f"{name}_PORT": str(port),
                f"{name}_PROTO": protocol,
            }
        for protocol, first, last in _runs(ports):
            if first != last:
                name = f"{alias}_PORT_{first}_{protocol.upper()}"
                found |= {
                    f"{name}_START": f"{protocol}://{address.ip}:{first}",
                    f"{name}_PORT_START": str(first),
                    f"{name}_END": f"{protocol}://{address.ip}:{last}",
                    f"{name}_PORT_END": str(last),
                }
    found[f"{alias}_NAME"] = f"/{link.sandbox}/{link.alias}"
    told = {k: v for k, v in link.environment.items() if k not in _NOT_TOLD}
    return found | {f"{alias}_ENV_{key}": value for key, value in told.items()}


def openings(network: Wiring, endpoint: Endpoint, links: Iterable[Link]) -> Iterator[Noun]:
    """What links open on a network whose members may not talk; nothing is closed elsewhere."""
    links = list(links)
    if not links:
        return
    if not any(isinstance(noun, Forward) and noun.within == "published" for noun in network):
        return
    for link in links:
        for target in link.target.addresses:
            source = endpoint.address(target.version)
            if source is None:
                continue
            for protocol, first, last in _runs(exposed(link.target)):
                yield Allow(
                    source=source.ip,
                    target=target.ip,
                    protocol=protocol,
                    port=first,
                    count=last - first + 1,
                )


def _runs(ports: Iterable[tuple[Protocol, int]]) -> list[tuple[Protocol, int, int]]:
    """Neighbouring ports of one protocol as their first and last."""
    found: list[tuple[Protocol, int, int]] = []
    for protocol, port in ports:
        if found and found[-1][0] == protocol and found[-1][2] + 1 == port:
            found[-1] = (protocol, found[-1][1], port)
        else:
            found.append((protocol, port, port))
    return found
