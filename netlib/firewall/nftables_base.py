"""The nftables base: table, sets, maps, chains and rules that never change with the facts.

docs/rules.md explains every rule. Three ideas carry it: facts are elements; "was it
published?" is `ct status dnat`; what we allow carries a bit of the connection mark.
"""

from __future__ import annotations

import zlib

from netlib.firewall.base import Marks

TABLE = "inet netlib"
USER_CHAIN = "NETLIB-USER"

# The fingerprint's set: what the base looked like when it was loaded.
FINGERPRINT = "fingerprint"

# Also what the packer of elements knows their types by. What is looked up for the first packet
# of a connection only counts what it met, at no cost that can be measured.
CONTAINERS = """
  set fingerprint { type mark; }
  set bridges { type ifname; }
  set vxlan { type inet_service; }
  set members4 { type ipv4_addr . inet_service; }
  set members6 { type ipv6_addr . inet_service; }
  set mutual { type ifname; }
  set gateways4 { type ifname . ipv4_addr; }
  set gateways6 { type ifname . ipv6_addr; }
  set subnets4 { type ifname . ipv4_addr; flags interval; }
  set subnets6 { type ifname . ipv6_addr; flags interval; }
  map same { type ifname . ifname : verdict; counter; }
  map from { type ifname : verdict; counter; }
  map inbound { type nf_proto . ifname : verdict; counter; }
  map host { type ifname : verdict; counter; }
  map leave { type nf_proto . ifname : verdict; counter; }
  map outbound4 { type ifname : ipv4_addr; }
  map outbound6 { type ifname : ipv6_addr; }
  map dns4 { type ifname . ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; \
counter; }
  map dns6 { type ifname . ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; \
counter; }
  set resolvers4 { type ipv4_addr . inet_proto . inet_service; }
  set resolvers6 { type ipv6_addr . inet_proto . inet_service; }
  map at4 { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; counter; }
  map at6 { type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service; counter; }
  map any4 { type inet_proto . inet_service : ipv4_addr . inet_service; counter; }
  map any6 { type inet_proto . inet_service : ipv6_addr . inet_service; counter; }
  map from4 { type inet_proto . ipv4_addr . inet_service . ipv4_addr : ipv4_addr . \
inet_service; flags interval; counter; }
  map from6 { type inet_proto . ipv6_addr . inet_service . ipv6_addr : ipv6_addr . \
inet_service; flags interval; counter; }
  map range4 { type inet_proto . ipv4_addr . inet_service . ipv4_addr : ipv4_addr; flags \
interval; counter; }
  map range6 { type inet_proto . ipv6_addr . inet_service . ipv6_addr : ipv6_addr; flags \
interval; counter; }
  set guard4 { type inet_proto . ipv4_addr . inet_service; flags interval; counter; }
  set guard6 { type inet_proto . ipv6_addr . inet_service; flags interval; counter; }
  set linked4 { type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags interval; counter; }
  set linked6 { type ipv6_addr . ipv6_addr . inet_proto . inet_service; flags interval; counter; }
  set unmasked4 { type ifname . ipv4_addr; flags interval; }
  set unmasked6 { type ifname . ipv6_addr; flags interval; }
  set open4 { type inet_proto . ipv4_addr . inet_service . ipv4_addr; flags interval; counter; }
  set open6 { type inet_proto . ipv6_addr . inet_service . ipv6_addr; flags interval; counter; }
"""

# Before the filter's own priority, so that the mark is set before a foreign chain asks for
# it. priority dstnat is refused in output, hence its number.
_HOOKS = {
    "guard": "type filter hook prerouting priority raw; policy accept;",
    "unguarded": "type filter hook output priority raw; policy accept;",
    "prerouting": "type nat hook prerouting priority dstnat; policy accept;",
    "output": "type nat hook output priority -100; policy accept;",
    "forward": "type filter hook forward priority mangle - 10; policy accept;",
    "input": "type filter hook input priority mangle - 10; policy accept;",
    "postrouting": "type nat hook postrouting priority srcnat; policy accept;",
}

# `l4` before the --from maps: nft 1.0.6 wants to see a transport protocol before it rewrites
# a port from an interval map that is loaded in the same file.
_RULES = {
    "guard": """
        ip daddr 127.0.0.0/8 iifname @bridges drop
        udp dport @vxlan goto tunnel""",
    "unguarded": "udp dport @vxlan notrack",
    "tunnel": """
        iifname @bridges goto fenced
        ip saddr . udp dport @members4 ip daddr . udp dport @members4 notrack accept
        ip6 saddr . udp dport @members6 ip6 daddr . udp dport @members6 notrack accept
        goto fenced""",
    "fenced": """
        fib daddr type != unicast drop
        ip daddr . udp dport @members4 drop
        ip6 daddr . udp dport @members6 drop""",
    "prerouting": """
        dnat ip to iifname . ip daddr . meta l4proto . th dport map @dns4
        dnat ip6 to iifname . ip6 daddr . meta l4proto . th dport map @dns6
        ip daddr 127.0.0.0/8 return
        fib daddr type local goto publish""",
    "output": "fib daddr type local goto publish",
    "publish": """
        meta nfproto ipv6 goto publish6
        dnat ip to meta l4proto . ip daddr . th dport map @at4
        dnat ip to meta l4proto . th dport map @any4
        dnat ip to meta l4proto . ip daddr . th dport . ip saddr map @range4
        meta l4proto {l4} dnat ip to meta l4proto . ip daddr . th dport . ip saddr map @from4
        meta l4proto . ip daddr . th dport @guard4 drop""",
    "publish6": """
        ip6 daddr ::1 return
        dnat ip6 to meta l4proto . ip6 daddr . th dport map @at6
        dnat ip6 to meta l4proto . th dport map @any6
        dnat ip6 to meta l4proto . ip6 daddr . th dport . ip6 saddr map @range6
        meta l4proto {l4} dnat ip6 to meta l4proto . ip6 daddr . th dport . ip6 saddr map @from6
        meta l4proto . ip6 daddr . th dport @guard6 drop""",
    "forward": """
        jump NETLIB-USER
        ct state vmap {{ established : accept, related : accept, invalid : jump invalid }}
        iifname . oifname vmap @same
        iifname vmap @from
        iifname @mutual oifname @mutual goto allow
        meta nfproto . oifname vmap @inbound
        iifname @bridges goto allow""",
    "invalid": """
        iifname @bridges drop
        oifname @bridges drop""",
    "linked": """
        ip saddr . ip daddr . meta l4proto . th dport @linked4 goto allow
        ip6 saddr . ip6 daddr . meta l4proto . th dport @linked6 goto allow
        goto published""",
    "published": """
        ct status dnat goto allow
        drop""",
    "routed": """
        ct status dnat goto allow
        meta l4proto . ip daddr . th dport . ip saddr @open4 goto allow
        meta l4proto . ip6 daddr . th dport . ip6 saddr @open6 goto allow
        icmp type echo-request goto allow
        icmpv6 type echo-request goto allow
        drop""",
    "allow": """
        ct state untracked meta mark set meta mark | {allowed} accept
        ct mark set ct mark | {allowed} accept""",
    "input": """
        udp dport @vxlan accept
        ct state established,related accept
        iif != lo ip daddr . meta l4proto . th dport @resolvers4 iifname . ip daddr \
!= @gateways4 drop
        iif != lo ip6 daddr . meta l4proto . th dport @resolvers6 iifname . ip6 daddr \
!= @gateways6 drop
        iifname vmap @host
        iifname @bridges ct status dnat goto allow
        iifname . ip daddr @gateways4 meta l4proto {{ tcp, udp }} th dport 53 goto allow
        iifname . ip6 daddr @gateways6 meta l4proto {{ tcp, udp }} th dport 53 goto allow""",
    "host_gateway": """
        iifname . ip daddr @gateways4 goto allow
        iifname . ip6 daddr @gateways6 goto allow
        ip6 daddr {{ fe80::/10, ff02::/16 }} icmpv6 type \
{{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit }} goto allow
        drop""",
    "postrouting": """
        ct status dnat goto hairpin
        iifname != @bridges return
        ip daddr 224.0.0.0/4 return
        ip6 daddr ff00::/8 return
        oifname . ip saddr @subnets4 return
        oifname . ip6 saddr @subnets6 return
        iifname . ip daddr @unmasked4 return
        iifname . ip6 daddr @unmasked6 return
        meta nfproto . iifname vmap @leave""",
    "hairpin": """
        oifname . ip saddr @subnets4 masquerade fully-random
        oifname . ip6 saddr @subnets6 masquerade fully-random
        ip saddr 127.0.0.0/8 oifname @bridges masquerade fully-random
        meta nfproto . iifname vmap @leave""",
    "masq": "masquerade fully-random",
    "masq_fixed": """
        snat ip to iifname map @outbound4 fully-random
        snat ip6 to iifname map @outbound6 fully-random""",
}


def rule_counts() -> dict[str, int]:
    """How many rules each chain of ours has."""
    return {name: len(rules.strip().splitlines()) for name, rules in _RULES.items()}


def fingerprint(marks: Marks) -> str:
    """What tells this base from another release's, as an element of its set."""
    return f"{zlib.crc32(base_without_fingerprint(marks).encode()):#010x}"


def base(marks: Marks) -> str:
    """The commands that make the base, or make it again: facts and NETLIB-USER stay.

    One transaction, a command or a brace on each line. No `delete table`, which would take
    NETLIB-USER along.
    """
    return "\n".join(
        [
            base_without_fingerprint(marks),
            f"flush set {TABLE} {FINGERPRINT}",
            f"add element {TABLE} {FINGERPRINT} {{ {fingerprint(marks)} }}",
        ]
    )


def base_without_fingerprint(marks: Marks) -> str:
    """The base's table, sets, maps, chains and rules."""
    values = {"allowed": f"{marks.allowed:#x}", "l4": "{ tcp, udp, sctp }"}
    lines = [f"table {TABLE} {{", *CONTAINERS.strip().splitlines(), f"chain {USER_CHAIN} {{ }}"]
    lines += [f"chain {name} {{ {_HOOKS.get(name, '')} }}" for name in _RULES]
    lines += ["}", *(f"flush chain {TABLE} {name}" for name in _RULES), f"table {TABLE} {{"]
    for name, rules in _RULES.items():
        lines += [f"chain {name} {{", *rules.format(**values).strip().splitlines(), "}"]
    return "\n".join([*(line.strip() for line in lines), "}"])
