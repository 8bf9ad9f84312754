"""resolv.conf(5) and hosts(5) files: read and written, as pure functions of their text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address

from netlib.errors import InvalidOption
from netlib.values import dataclass

HOST_GATEWAY = "host-gateway"
MOST_SERVERS = 3  # MAXNS of resolv.conf(5)
_COMMENT = re.compile(r";|(?:^|\s)#")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvConf:
    """What a resolv.conf says."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> ResolvConf:
        """What a stub makes of the text: the last `search` or `domain` counts."""
        servers: list[str] = []
        search: tuple[str, ...] = ()
        options: list[str] = []
        for line in text.splitlines():
            # A comment starts a line (resolv.conf(5)); people write them behind values too.
            words = _COMMENT.split(line, maxsplit=1)[0].split()
            if not words:
                continue
            keyword, values = words[0], words[1:]
            if keyword == "nameserver" and values and _is_address(values[0]):
                servers.append(values[0])
            elif keyword in ("search", "domain"):
                search = tuple(values)
            elif keyword == "options":
                options += values
        return cls(
            servers=tuple(dict.fromkeys(servers)),
            search=search,
            options=tuple(dict.fromkeys(options)),
        )

    def text(self, comment: str = "") -> str:
        """The file's text."""
        lines = [f"# {line}" for line in comment.splitlines()]
        lines += [f"nameserver {server}" for server in self.servers]
        # A single dot is no domain at all (docker run --dns-search=.).
        search = [domain for domain in self.search if domain != "."]
        if search:
            lines.append(f"search {' '.join(search)}")
        if self.options:
            lines.append(f"options {' '.join(self.options)}")
        return "".join(f"{line}\n" for line in lines)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def sandbox_resolv_conf(
    *,
    host: ResolvConf,
    resolvers: Iterable[str] = (),
    servers: Iterable[str] = (),
    search: Iterable[str] = (),
    options: Iterable[str] = (),
) -> ResolvConf:
    """The resolv.conf of a sandbox.

    `resolvers` are our own addresses that it asks. Without any (the default bridge) it asks
    `servers`, else those of the host that it can reach: not the host's loopback. `search` and
    `options` replace the host's. With our resolver, a name without dots is first asked as it
    is (ndots:0): `web` is a name here, not the start of one.
    """
    resolvers, options = tuple(resolvers), tuple(options)
    asked = resolvers or tuple(servers) or tuple(s for s in host.servers if _leaves_the_host(s))
    chosen = options or host.options
    if resolvers and not any(option.startswith("ndots:") for option in options):
        chosen = (*(o for o in chosen if not o.startswith("ndots:")), "ndots:0")
    return ResolvConf(
        servers=asked[:MOST_SERVERS],
        search=tuple(search) or host.search,
        options=chosen,
    )


def _leaves_the_host(server: str) -> bool:
    address = ip_address(server)
    # A scope is an interface of the host's, and none of the sandbox's.
    return not (address.is_loopback or "%" in server)


def check_servers(servers: Iterable[str], *, ports: bool = False) -> tuple[str, ...]:
    """`servers`, or InvalidOption for what is no address (`--dns`); `ports`: with #PORT or not.

    A stub can't be told a port (resolv.conf(5)); we can.
    """
    found = tuple(servers)
    for server in found:
        address, mark, port = server.partition("#")
        is_port = port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16
        if not _is_address(address) or (mark and not (ports and is_port)):
            raise InvalidOption(
                f"{server!r} is no address",
                f"give --dns an IP address{', or ADDRESS#PORT' if ports else ''}",
            )
    return found


def check_words(words: Iterable[str], option: str) -> tuple[str, ...]:
    """`words`, or InvalidOption for what would be another line, or two words, in resolv.conf."""
    found = tuple(words)
    for word in found:
        if word.split() != [word] or not word.isprintable():
            raise InvalidOption(f"{option} {word!r} is not one word", f"repeat {option} for each")
    return found


def extra_host(text: str, gateways: Iterable[str]) -> list[tuple[str, str]]:
    """The (address, name) lines of one `--add-host NAME:IP`; `host-gateway`: one per gateway.

    >>> extra_host("db:192.0.2.9", ())
    [('192.0.2.9', 'db')]
    """
    # Docker also takes NAME=IP, and brackets round an IPv6 address.
    cut = min((at for at in (text.find(":"), text.find("=")) if at > 0), default=-1)
    name, address = text[:cut], text[cut + 1 :].removeprefix("[").removesuffix("]")
    if cut > 0 and address == HOST_GATEWAY:
        found = [(gateway, name) for gateway in gateways]
        if not found:
            raise InvalidOption(
                f"{text!r} names the host's gateway, and the sandbox has none",
                "connect it to a network whose gateway the host holds, or give an address",
            )
        return found
    if cut <= 0 or not _is_address(address) or name.split() != [name]:
        raise InvalidOption(f"{text!r} is no host", "write NAME:IP or NAME:host-gateway")
    return [(address, name)]


_ALWAYS = (
    ("127.0.0.1", ("localhost",)),
    ("::1", ("localhost", "ip6-localhost", "ip6-loopback")),
    ("fe00::0", ("ip6-localnet",)),
    ("ff00::0", ("ip6-mcastprefix",)),
    ("ff02::1", ("ip6-allnodes",)),
    ("ff02::2", ("ip6-allrouters",)),
)


def hosts_text(
    *,
    addresses: Iterable[str] = (),
    names: Iterable[str] = (),
    extra: Iterable[tuple[str, str]] = (),
    comment: str = "",
) -> str:
    """A sandbox's hosts file: loopback, its own `addresses` with its `names`, then `extra`."""
    own = tuple(dict.fromkeys(name for name in names if name))
    lines = [*_ALWAYS, *((address, own) for address in addresses if own)]
    lines += [(address, (name,)) for address, name in extra]
    text = "".join(f"# {line}\n" for line in comment.splitlines())
    return text + "".join(f"{address}\t{' '.join(found)}\n" for address, found in lines)


def parse_hosts(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """The (address, names) lines of a hosts file."""
    found = []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if len(words) > 1 and _is_address(words[0]):
            found.append((words[0], tuple(words[1:])))
    return found
