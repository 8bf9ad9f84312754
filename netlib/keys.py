"""What the store's keys are, and what each of them says.

network/<id>                        a network and its recorded wiring
name/<name>                         the id of the network of that name
pool/<scope>/<4|6>/<first, hex>     a network's prefix, unique on the host or its LAN
endpoint/<network>/<id>             an endpoint and its recorded wiring
member/<network>/<sandbox>/<endpoint>   one that joins them, one for each interface there
interface/<sandbox>/<ifname>        <network>/<endpoint> that has this interface, or is without
                                    one: then `:` and the endpoint's id stand for its name
device/<name>/<group>/<network>     a network that hangs off a device of the host, see driver.Option
single/<driver>                     the only network that this driver makes
mac/<network>/<mac>                 the sandbox that asked for this MAC address
linked/<sandbox>/<network>/<endpoint>   the sandbox whose endpoint has a link to this one
sandbox/<name>                      a sandbox
namespace/<inode>                   the name of the sandbox with this network namespace
lease/<network>/<address, hex>      who holds an address, since when, in which boot
cursor/<network>/<first, hex>       the address that was given last in a subnet
port/<4|6>/<protocol>/<port>/<address, hex, or *>   the endpoint that publishes it
operation/<id>                      since when a daemon is at it, and its answer
host/identity                       the network namespace and boot that all this is about
host/realm                          digits that the ids of what this state makes share
host/forwarding/<4|6>               for whom forwarding was switched on
host/forward-policy                 the policies of FORWARD before we set them
cluster/<what>                      what this host has and knows as a member, see cluster.copies
node/<id>                           copy of a node of the cluster
offer/<network>                     copy of a network of the cluster's
peer/<network>/<endpoint>           copy of an endpoint elsewhere of a network that is here
place/<network>/<address, hex>      which of those has an address
clash/<network>/<endpoint>          an endpoint here whose address another host's has got
behind/<network>/why                why a network here is not as the cluster has it
look/<network>                      that the agent is to look at what this host had, and has, of it
"""

from __future__ import annotations

import re

from netlib.ipam import lease_key
from netlib.model import Endpoint, Family, IPAddress, IPNetwork
from netlib.store import Absent, under

IDENTITY_KEY = "host/identity"
REALM_KEY = "host/realm"
FORWARD_POLICY_KEY = "host/forward-policy"
MEMBERSHIP_KEY = "cluster/membership"
OFFERS = "offer/"
# Nobody waits for news of these: they come with others that are told of.
UNTOLD = ("place/",)
_PART = re.compile("[A-Za-z0-9._:@-]*")


def network_key(network_id: str) -> str:
    """Where a network is kept."""
    return f"network/{network_id}"


def name_key(name: str) -> str:
    """Where a network's name is kept."""
    return f"name/{name}"


def endpoint_key(network_id: str, endpoint_id: str) -> str:
    """Where an endpoint is kept."""
    return f"endpoint/{network_id}/{endpoint_id}"


def endpoints_of(network_id: str = "") -> tuple[str, str]:
    """The range of a network's endpoints, or of all."""
    return under(f"endpoint/{network_id}/" if network_id else "endpoint/")


def no_members(network_id: str) -> Absent:
    """The condition that a network has no endpoint."""
    return Absent(*endpoints_of(network_id))


def members(network_id: str, sandbox: str) -> tuple[str, str]:
    """The range in which it is kept that a sandbox is on a network."""
    return under(f"member/{network_id}/{part(sandbox)}/")


def member_key(endpoint: Endpoint) -> str:
    """Where it is kept that an endpoint joins its sandbox and its network."""
    return f"member/{endpoint.network}/{part(endpoint.sandbox.name)}/{endpoint.id}"


def interfaces_of(sandbox: str) -> tuple[str, str]:
    """The range of what the interfaces of a sandbox are."""
    return under(f"interface/{part(sandbox)}/")


def interface_key(sandbox: str, ifname: str) -> str:
    """Where it is kept what an interface of a sandbox is."""
    return f"interface/{part(sandbox)}/{part(ifname)}"


def place_key(endpoint: Endpoint) -> str:
    """Where it is kept that a sandbox has an endpoint, which may be without an interface."""
    # No device can be called like that (dev_valid_name in net/core/dev.c refuses colons).
    return interface_key(endpoint.sandbox.name, endpoint.ifname or f":{endpoint.id[:12]}")


def mac_key(network_id: str, mac: str) -> str:
    """Where it is kept who asked for a MAC address: the others follow from ids, and never meet."""
    return f"mac/{network_id}/{mac}"


def linkers_of(sandbox: str, network_id: str = "") -> tuple[str, str]:
    """The range of who is linked to a sandbox, or of who is on one network."""
    return under(f"linked/{part(sandbox)}/" + (f"{network_id}/" if network_id else ""))


def link_keys(endpoint: Endpoint) -> tuple[str, ...]:
    """Where it is kept to whom an endpoint is linked."""
    return tuple(
        f"linked/{part(target)}/{endpoint.network}/{endpoint.id}" for target in endpoint.links
    )


def devices_of(name: str, group: str = "") -> tuple[str, str]:
    """The range of what hangs off a device, or of one group of that."""
    return under(f"device/{part(name)}/" + (f"{part(group)}/" if group else ""))


def device_key(name: str, group: str, network_id: str) -> str:
    """Where it is kept that a network hangs off a device."""
    return f"device/{part(name)}/{part(group)}/{network_id}"


def single_key(driver: str) -> str:
    """Where the only network of a driver is kept."""
    return f"single/{part(driver)}"


def sandbox_key(name: str) -> str:
    """Where a sandbox is kept."""
    return f"sandbox/{part(name)}"


def namespace_key(inode: int) -> str:
    """Where it is kept which sandbox a network namespace is."""
    return f"namespace/{inode}"


def leases_of(network_id: str) -> tuple[str, str]:
    """The range of a network's leases, in the order of addresses."""
    return under(f"lease/{network_id}/")


def address_key(network_id: str, address: IPAddress) -> str:
    """Where an address's lease is kept."""
    return f"lease/{network_id}/{lease_key(address)}"


def cursor_key(network_id: str, prefix: IPNetwork) -> str:
    """Where a subnet's last given address is kept."""
    return f"cursor/{network_id}/{lease_key(prefix.network_address)}"


def pools_of(scope: str, family: int) -> tuple[str, str]:
    """The range of a scope's prefixes, in the order of addresses."""
    return under(f"pool/{part(scope)}/{family}/")


def pool_key(scope: str, prefix: IPNetwork) -> str:
    """Where a network's prefix is kept."""
    return f"pool/{part(scope)}/{lease_key(prefix.network_address)}"


def pool_end(scope: str, prefix: IPNetwork) -> str:
    """The end of the range of prefixes that start inside this one."""
    return f"pool/{part(scope)}/{lease_key(prefix.broadcast_address)}\0"


def forwarding_key(family: Family) -> str:
    """Where it is kept for whom we switched forwarding on."""
    return f"host/forwarding/{family}"


def operation_key(operation: str) -> str:
    """Where it is kept what became of a request to a daemon."""
    return f"operation/{part(operation)}"


def part(text: str) -> str:
    """A sandbox's or interface's name as one part of a key: no slash, ASCII."""
    if _PART.fullmatch(text):
        return text
    return "".join(
        c if c.isascii() and (c.isalnum() or c in "._:@-") else f"%{ord(c):x}%" for c in text
    )
