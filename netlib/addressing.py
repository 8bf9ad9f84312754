"""Addresses for a new endpoint: those asked for, and the next free one of each other family."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from netlib import keys
from netlib.driver import Capabilities
from netlib.errors import AddressTaken, Exhausted, InvalidAddress
from netlib.ipam import check_static, choose
from netlib.model import Endpoint, Family, IPAddress, IPInterface, IPNetwork, Network, Subnet
from netlib.model import interface as with_prefix
from netlib.records import Lease, dump
from netlib.state import Leases
from netlib.subnets import parse_address
from netlib.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An address, the subnet it is from, and whether the next choice starts after it."""

    address: IPInterface
    prefix: IPNetwork
    moves_cursor: bool


class Addresses(Protocol):
    """Who holds a network's addresses: the state says it, or where hosts share it the cluster."""

    def lease(self, network_id: str, address: IPAddress) -> Lease | None:
        """Who holds an address."""

    def leases(self, network_id: str) -> Leases:
        """All that are held."""

    def cursor(self, network_id: str, subnet: Subnet) -> IPAddress | None:
        """The address of a subnet after which the next is looked for."""


def choose_addresses(
    state: Addresses, network: Network, capabilities: Capabilities, asked: Iterable[IPAddress | str]
) -> tuple[Choice, ...]:
    """One address of each family that the network has, in the subnets' order.

    Raises InvalidAddress, AddressTaken naming the holder, Exhausted.
    """
    wanted = [parse_address(a) if isinstance(a, str) else a for a in asked]
    if capabilities.addressing == "none" or not network.subnets:
        if wanted:
            raise InvalidAddress(
                f"network {network.name} gives no addresses", "leave the address out"
            )
        return ()
    by_family: dict[Family, IPAddress] = {}
    for address in wanted:
        if by_family.setdefault(address.version, address) != address:
            raise InvalidAddress(
                f"{by_family[address.version]} and {address} are of one family",
                "ask for at most one address of each",
            )
    for family, address in by_family.items():
        if family not in network.families():
            raise InvalidAddress(
                f"network {network.name} has no IPv{family} subnet for {address}",
                f"its subnets are {', '.join(str(s.prefix) for s in network.subnets)}",
            )
    return tuple(
        _static(state, network, by_family[family])
        if family in by_family
        else _next(state, network, family)
        for family in network.families()
    )


def lease_puts(
    network_id: str,
    choices: Iterable[Choice],
    endpoint: Endpoint,
    boot_id: str,
    now: float,
) -> dict[str, str]:
    """The records that claim the addresses for an endpoint."""
    lease = dump(
        Lease(endpoint=endpoint.id, sandbox=endpoint.sandbox.name, boot_id=boot_id, since=now)
    )
    return {keys.address_key(network_id, choice.address.ip): lease for choice in choices}


def _static(state: Addresses, network: Network, address: IPAddress) -> Choice:
    subnet = next((s for s in network.subnets if address in s.prefix), None)
    if subnet is None:
        raise InvalidAddress(
            f"{address} is in no subnet of {network.name}",
            f"its subnets are {', '.join(str(s.prefix) for s in network.subnets)}",
        )
    check_static(subnet, address)
    lease = state.lease(network.id, address)
    if lease is not None:
        raise AddressTaken(
            f"{address} on {network.name} is held by {lease.sandbox}",
            "choose another address, or disconnect that sandbox",
        )
    return Choice(
        address=with_prefix(address, subnet.prefix.prefixlen),
        prefix=subnet.prefix,
        moves_cursor=False,
    )


def _next(state: Addresses, network: Network, family: Family) -> Choice:
    """The next free address of the first subnet of a family that has one."""
    leases = state.leases(network.id)
    full: list[Exhausted] = []
    for subnet in network.subnets:
        if subnet.family == family:
            try:
                address = choose(subnet, leases, state.cursor(network.id, subnet))
            except Exhausted as error:
                full.append(error)
            else:
                return Choice(
                    address=with_prefix(address, subnet.prefix.prefixlen),
                    prefix=subnet.prefix,
                    moves_cursor=True,
                )
    raise Exhausted(
        f"network {network.name} is full: {'; '.join(error.message for error in full)}",
        f"see who holds them: net inspect {network.name}; free what has ended: net gc; "
        f"or make room: net update --subnet CIDR {network.name}",
    )
