"""Names made from ids: the only place where devices and chains get theirs.

A name follows from an id alone, so what a crash left behind can be found again.
"""

from __future__ import annotations

import os
import re

from netlib.errors import InvalidName
from netlib.model import IPAddress

# IFNAMSIZ is 16 with the closing NUL (linux/if.h).
DEVICE_NAME_BYTES = 15
# XT_EXTENSION_MAXNAMELEN is 29 with the closing NUL (linux/netfilter/x_tables.h).
CHAIN_NAME_BYTES = 28
MARK = "netlib:"
ID_DIGITS = 64
_SHORT, _REALM = 12, 8  # digits of an id in names, and of a realm

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NO_DEVICES = (".", "..", "all", "default")
_DEVICE = re.compile(r"[^\s/:%]+")


def new_id(realm: str = "") -> str:
    """64 random hexadecimal digits, the form of Docker's ids.

    A network's and an endpoint's have those of their state's realm after the first 12, but for
    the built-in networks' ids.
    """
    digits = os.urandom(32).hex()
    return digits[:_SHORT] + realm + digits[_SHORT + len(realm) :]


def new_realm() -> str:
    """What tells one state's things from those of another state on the same host."""
    return os.urandom(_REALM // 2).hex()


def built_in_id(name: str) -> str:
    """The id of a built-in network: it is known before the network is made."""
    import hashlib  # 3 ms, and few names need it

    return hashlib.sha256(f"{MARK}{name}".encode()).hexdigest()


def bridge(network_id: str) -> str:
    """The bridge device of a network."""
    return f"nl-{network_id[:12]}"


def veth(endpoint_id: str) -> str:
    """The host's end of an endpoint's veth pair."""
    return f"nv-{endpoint_id[:12]}"


def vxlan(network_id: str) -> str:
    """The VXLAN port of an overlay network."""
    return f"nx-{network_id[:12]}"


def shim(network_id: str) -> str:
    """The host's own device on a macvlan network."""
    return f"nh-{network_id[:12]}"


def dummy(network_id: str) -> str:
    """The parent of a network that leads nowhere."""
    return f"nd-{network_id[:12]}"


def chain(letter: str, bridge: str) -> str:
    """An iptables chain of the network behind a bridge; `letter` tells its use."""
    return f"NETLIB-{letter}-{bridge}"


def owner(network_id: str, endpoint_id: str = "") -> str:
    """The mark in a device's ifalias: whose it is."""
    ids = [network_id, endpoint_id] if endpoint_id else [network_id]
    return MARK + "/".join(one[: _SHORT + _REALM] for one in ids)


def realms_of(owner: str) -> set[str]:
    """The realms in such a mark: on a cluster's network an endpoint's is another."""
    return {one[_SHORT : _SHORT + _REALM] for one in owner.removeprefix(MARK).split("/")}


def mac_of(endpoint_id: str) -> str:
    """A stable, locally administered unicast MAC address (IEEE 802, bits 1 and 0 of byte 0)."""
    digits = endpoint_id[:12]
    first = int(digits[:2], 16) & 0xFC | 0x02
    return ":".join([f"{first:02x}", *(digits[i : i + 2] for i in range(2, 12, 2))])


def port_mac_of(endpoint_id: str) -> str:
    """Likewise, for a port of a bridge that others have: so high that the bridge never takes it.

    A bridge has the lowest MAC address of its ports, unless it was given one: with that of a
    port that comes, all who know the host by it would lose it (br_stp_recalculate_bridge_id).
    """
    other_end = mac_of(endpoint_id)
    return f"fe{other_end[2:-2]}{int(other_end[-2:], 16) ^ 1:02x}"  # whose first byte may be fe


def mac_at(network_id: str, address: IPAddress) -> str:
    """The MAC address that goes with an address of a network, on whatever host it is.

    An address that moves, or is given away again, so leaves no neighbour with a wrong entry. An
    IPv4 address is in it whole: two of a network never get the same.
    """
    import hashlib

    hashed = hashlib.sha256(f"{network_id} {address}".encode()).digest()
    if address.version == 4:
        of_network = hashlib.sha256(network_id.encode()).digest()
        hashed = of_network[:2] + address.packed
    return bytes([hashed[0] & 0xFC | 0x02, *hashed[1:6]]).hex(":")


def check_name(name: str, what: str) -> str:
    """`name`, or InvalidName: at most 253 letters, digits, `_`, `.`, `-`, no sign first."""
    if not _NAME.fullmatch(name) or len(name) > 253:
        raise InvalidName(
            f"{name!r} is no name for {'an' if what[0] in 'aeiou' else 'a'} {what}",
            "use letters, digits, '_', '.' and '-', first a letter or digit, 253 at most",
        )
    return name


def check_alias(name: str) -> str:
    """`name`, or InvalidName for what DNS has no room for (RFC 1035 section 2.3.4)."""
    check_name(name, "alias")
    if not all(0 < len(label) < 64 for label in name.split(".")):
        raise InvalidName(
            f"{name!r} is no name for an alias", "use 1 to 63 characters between two dots"
        )
    return name


def check_device(name: str) -> str:
    """`name`, or InvalidName where Linux would refuse it for a device (dev_valid_name).

    `all` and `default` are what sysctls call every device, and those to come.
    """
    is_possible = _DEVICE.fullmatch(name) and name.isprintable() and name not in _NO_DEVICES
    if not is_possible or len(name.encode()) > DEVICE_NAME_BYTES:
        raise InvalidName(
            f"{name!r} is no name for a network device",
            f"use at most {DEVICE_NAME_BYTES} bytes without blanks, '/', ':' or '%', and not "
            "'all' or 'default'",
        )
    return name
