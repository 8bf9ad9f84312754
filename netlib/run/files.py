"""What a sandbox's /etc/hosts, /etc/hostname and /etc/resolv.conf say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address

from netlib.errors import InvalidRequest
from netlib.model import Endpoint, IPAddress, Network
from netlib.run.request import HOST_GATEWAY, HostEntry, RunRequest

# hosts(5); the IPv6 names are those of RFC 4291's well-known addresses, as Debian has them.
_LOOPBACK = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def files_of(
    request: RunRequest,
    joined: Sequence[tuple[Network, Endpoint]],
    host_resolv_conf: str,
) -> Mapping[str, str]:
    """The files of a sandbox by path. `host_resolv_conf` is what the host itself uses."""
    return {
        "/etc/hostname": f"{request.own_hostname}\n",
        "/etc/hosts": hosts(request, joined),
        "/etc/resolv.conf": resolv_conf(request, joined, host_resolv_conf),
    }


def hosts(request: RunRequest, joined: Sequence[tuple[Network, Endpoint]]) -> str:
    """/etc/hosts: loopback, the sandbox's own name, and what was added."""
    names = dict.fromkeys([request.own_hostname, request.name])
    lines = [f"{address.ip}\t{' '.join(names)}" for _, e in joined for address in e.addresses]
    for entry in request.hosts:
        lines += [f"{address}\t{entry.name}" for address in _addresses(entry, joined)]
    return _LOOPBACK + "".join(f"{line}\n" for line in lines)


def resolv_conf(
    request: RunRequest, joined: Sequence[tuple[Network, Endpoint]], of_host: str
) -> str:
    """/etc/resolv.conf: as asked for; what was left open is as the host has it (resolv.conf(5))."""
    known = list(_statements(of_host))
    servers: Iterable[IPAddress] = request.nameservers or nameservers_for(joined, known)
    searched = [words for key, *words in known if key in ("search", "domain")]
    search = list(request.search) or (searched[-1] if searched else [])
    options = request.resolver_options or [
        w for k, *words in known if k == "options" for w in words
    ]
    lines = [f"nameserver {server}" for server in servers]
    # A single dot asks for no search list at all, as elsewhere where there is `--dns-search`.
    if search and search != ["."]:
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "".join(f"{line}\n" for line in lines)


def nameservers_for(
    joined: Sequence[tuple[Network, Endpoint]], of_host: Iterable[Sequence[str]]
) -> list[IPAddress]:
    """Whom a sandbox on these networks asks for names: the host's servers, but loopback ones.

    Those listen in the host's network namespace, where the sandbox can't reach them.
    """
    del joined  # every network is the same until one has a resolver of its own
    servers: list[IPAddress] = []
    for key, *words in of_host:
        if key == "nameserver" and words:
            try:
                server = ip_address(words[0].partition("%")[0])
            except ValueError:
                continue  # resolv.conf(5): what can't be read is ignored
            if not server.is_loopback:
                servers.append(server)
    return servers


def _statements(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.strip() and line[0] not in "#;":
            yield line.split()


def _addresses(entry: HostEntry, joined: Sequence[tuple[Network, Endpoint]]) -> Iterator[IPAddress]:
    if entry.address is not None:
        yield entry.address
        return
    gateways: dict[int, IPAddress] = {}
    for network, endpoint in joined:
        for gateway in network.gateways():
            if endpoint.address(gateway.version) is not None:
                gateways.setdefault(gateway.version, gateway.ip)
    if not gateways:
        raise InvalidRequest(
            f"{HOST_GATEWAY} for {entry.name}: no network of the sandbox has a gateway",
            "name a network that has one, or an address",
        )
    yield from gateways.values()
