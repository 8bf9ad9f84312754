"""The iptables base: chains and rules that never change with the facts, for one family.

The same meaning as the nftables base, chain by chain; docs/rules.md explains both. Rules
are written as iptables-save prints them, so that what is there can be compared as text.
"""

from __future__ import annotations

from netlib.firewall.base import Marks
from netlib.model import Family

USER_CHAIN = "NETLIB-USER"

# Chains that hold facts: made empty, and never flushed.
_FACT_CHAINS = {
    "filter": (
        "SAME",
        "FROM",
        "MUTUAL",
        "MUTUAL-OUT",
        "TO",
        "OUT",
        "OPEN",
        "LINKS",
        "HOST",
        "GATEWAYS",
        "DNSOK",
    ),
    "nat": ("DNS", "TCP", "UDP", "SCTP", "RANGES", "HAIRPIN", "LEAVE"),
    "raw": ("GUARD", "FENCE", "TUNNELS", "MEMBERS", "BETWEEN", "SHUT", "UNTRACKED"),
}

TABLES = ("raw", "nat", "filter")

Chain = tuple[str, str]  # table and name


def fact_chains(family: Family) -> list[Chain]:
    """The chains that hold facts, NETLIB-USER among them."""
    found = [
        (table, f"NETLIB-{name}")
        for table, names in _FACT_CHAINS.items()
        for name in names
        if name != "GUARD" or family == 4  # only IPv4 can be routed to a loopback address
    ]
    return [("filter", USER_CHAIN), *found]


def jumps(family: Family) -> list[tuple[Chain, str]]:
    """The rule in each built-in chain that leads to us."""
    found = [
        (("filter", "FORWARD"), "-j NETLIB-FORWARD"),
        (("filter", "INPUT"), "-j NETLIB-INPUT"),
        (("nat", "PREROUTING"), "-j NETLIB-PRE"),
        (("nat", "OUTPUT"), "-j NETLIB-LOCAL"),
        (("nat", "POSTROUTING"), "-j NETLIB-POST"),
        (("raw", "PREROUTING"), "-p udp -j NETLIB-TUNNELS"),
        (("raw", "OUTPUT"), "-p udp -j NETLIB-UNTRACKED"),
    ]
    if family == 4:
        found.append((("raw", "PREROUTING"), "-d 127.0.0.0/8 -j NETLIB-GUARD"))
    return found


def rules(family: Family, marks: Marks) -> dict[Chain, list[str]]:
    """The chains of the base with their rules."""
    allowed = f"{marks.allowed:#x}/{marks.allowed:#x}"
    refused = f"{marks.refused:#x}/{marks.refused:#x}"
    ours = f"-m connmark --mark {allowed} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    published = [
        "-m conntrack --ctstate DNAT -j NETLIB-ALLOW",
        "-m conntrack --ctstate RELATED,ESTABLISHED -j NETLIB-ALLOW",
    ]
    echo = (
        "-p icmp -m icmp --icmp-type 8"
        if family == 4
        else "-p ipv6-icmp -m icmp6 --icmpv6-type 128"
    )
    # No IPv6 route_localnet exists, so an answer to ::1 would never come back.
    loopback = ["-d 127.0.0.0/8 -j RETURN"] if family == 4 else ["-d ::1/128 -j RETURN"]
    here = "-m addrtype --dst-type LOCAL"
    # With IPv6 all but multicast is UNICAST, and kinds that need the routing table are not to be
    # asked for with others (addr_type6 in net/netfilter/xt_addrtype.c).
    ends_here = (
        ("! --dst-type UNICAST",)
        if family == 4
        else ("--dst-type LOCAL", "--dst-type ANYCAST", "--dst-type MULTICAST")
    )
    neighbours = [
        f"-d {prefix} -p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j NETLIB-ALLOW"
        for prefix in ("fe80::/10", "ff02::/16")
        for kind in (135, 136, 133)  # RFC 4861: solicit, advertise, router solicit
        if family == 6
    ]
    chains = {
        "filter": {
            "FORWARD": [
                f"-j {USER_CHAIN}",
                ours,
                *(f"-j NETLIB-{name}" for name in ("SAME", "FROM", "MUTUAL", "TO", "OUT")),
            ],
            "LINKED": ["-j NETLIB-LINKS", "-j NETLIB-PUBLISHED"],
            "PUBLISHED": [*published, "-j DROP"],
            "ROUTED": [*published, "-j NETLIB-OPEN", f"{echo} -j NETLIB-ALLOW", "-j DROP"],
            "ALLOW": [
                "-m conntrack --ctstate INVALID -j DROP",
                f"-m conntrack --ctstate UNTRACKED -j MARK --set-xmark {allowed}",
                "-m conntrack --ctstate UNTRACKED -j ACCEPT",
                f"-j CONNMARK --set-xmark {allowed}",
                "-j ACCEPT",
            ],
            "INPUT": [
                ours,
                f"-m mark --mark {refused} -j DROP",
                "-j NETLIB-DNSOK",
                "-j NETLIB-HOST",
                "-p udp -m udp --dport 53 -j NETLIB-GATEWAYS",
                "-p tcp -m tcp --dport 53 -j NETLIB-GATEWAYS",
            ],
            "GATED": [
                *neighbours,
                # Answers to the host itself, whichever of its addresses asked.
                "-m conntrack --ctstate RELATED,ESTABLISHED -j NETLIB-ALLOW",
                "-j NETLIB-GATEWAYS",
                "-j DROP",
            ],
        },
        "nat": {
            "PRE": ["-j NETLIB-DNS", *loopback, f"{here} -j NETLIB-PUBLISH"],
            "LOCAL": [*(loopback if family == 6 else ()), f"{here} -j NETLIB-PUBLISH"],
            "PUBLISH": [
                *(f"-p {name} -j NETLIB-{name.upper()}" for name in ("tcp", "udp", "sctp")),
                "-j NETLIB-RANGES",
            ],
            "POST": ["-m conntrack --ctstate DNAT -j NETLIB-HAIRPIN", "-j NETLIB-LEAVE"],
        },
        "raw": {
            "TUNNEL": [
                "-j NETLIB-FENCE",
                "-j NETLIB-MEMBERS",
                "-j NETLIB-FENCED",
            ],
            "FENCED": [*(f"-m addrtype {kind} -j DROP" for kind in ends_here), "-j NETLIB-SHUT"],
            "MEMBER": [f"{here} -j CT --notrack", "-j ACCEPT"],
        },
    }
    return {
        (table, f"NETLIB-{name}"): lines
        for table, group in chains.items()
        for name, lines in group.items()
    }
