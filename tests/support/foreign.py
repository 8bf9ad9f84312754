"""Firewalls of others, imitated by the rules that they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from support.host import Host

# What a host with such a firewall lets in: its own services, and neighbour discovery.
_SERVICES = (7000, 7001)


@dataclass(frozen=True)
class ForeignFirewall:
    """Rules that are there before ours, or come later. `owner`: only its owner can let us pass."""

    name: str
    set_up: Callable[[Host], None]
    variant: str = ""  # of iptables; empty: a table of nft
    owner: bool = False
    before_iptables: bool = False  # its chain sees packets before those of iptables do

    def __str__(self) -> str:
        return self.name


def _restore(host: Host, variant: str, rules: list[str]) -> None:
    for program, kind in ((f"iptables-{variant}", "icmp"), (f"ip6tables-{variant}", "ipv6-icmp")):
        rows = [row.replace("ICMP", kind) for row in rules]
        if kind == "ipv6-icmp":
            rows = [row.replace("icmp-host-prohibited", "icmp6-adm-prohibited") for row in rows]
        text = "\n".join(["*filter", *rows, "COMMIT", ""])
        host.run(f"{program}-restore", "--noflush", stdin=text)


def _policy_drop(variant: str) -> ForeignFirewall:
    return ForeignFirewall(
        f"policy-drop-{variant}",
        lambda host: _restore(host, variant, [":FORWARD DROP [0:0]"]),
        variant,
    )


_DOCKER = [
    ":FORWARD DROP [0:0]",
    ":DOCKER-USER - [0:0]",
    ":DOCKER-FORWARD - [0:0]",
    ":DOCKER-CT - [0:0]",
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -j DOCKER-FORWARD",
    "-A DOCKER-FORWARD -j DOCKER-CT",
    "-A DOCKER-FORWARD -i docker0 -j ACCEPT",
    "-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
]
_LET_IN = [
    "-A {chain} -i lo -j ACCEPT",
    "-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A {chain} -p ICMP -j ACCEPT",
    *(f"-A {{chain}} -p {p} --dport {n} -j ACCEPT" for p in ("tcp", "udp") for n in _SERVICES),
]
_UFW = [
    ":INPUT DROP [0:0]",
    ":FORWARD DROP [0:0]",
    ":ufw-before-input - [0:0]",
    ":ufw-before-forward - [0:0]",
    ":ufw-reject-forward - [0:0]",
    "-A INPUT -j ufw-before-input",
    "-A FORWARD -j ufw-before-forward",
    "-A FORWARD -j ufw-reject-forward",
    *(row.format(chain="ufw-before-input") for row in _LET_IN),
    "-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
]
_RHEL = [
    *(row.format(chain="INPUT") for row in _LET_IN),
    "-A INPUT -j REJECT --reject-with icmp-host-prohibited",
    "-A FORWARD -j REJECT --reject-with icmp-host-prohibited",
]
_REFUSING_CHAIN = [
    ":refuse - [0:0]",
    "-A refuse -p udp -j DROP",
    "-A refuse -j REJECT",
    "-A FORWARD -j refuse",
]


def _shape(name: str, rules: list[str], variant: str) -> ForeignFirewall:
    return ForeignFirewall(
        f"{name}-{variant}", lambda host: _restore(host, variant, rules), variant
    )


def _nft_drop(priority: int) -> ForeignFirewall:
    text = f"""table inet strict {{
        chain forward {{ type filter hook forward priority {priority}; policy drop; }}
    }}"""
    return ForeignFirewall(
        f"nft-drop-at-{priority}",
        lambda host: _nft(host, text),
        owner=True,
        before_iptables=priority < 0,
    )


def _nft(host: Host, text: str) -> None:
    host.run("nft", "-f", "-", stdin=text)


_PORTS = "{ " + ", ".join(str(n) for n in _SERVICES) + " }"
_FIREWALLD = f"""table inet firewalld {{
    chain filter_INPUT {{
        type filter hook input priority filter + 10; policy accept;
        ct state established,related accept
        ct status dnat accept
        iifname "lo" accept
        meta l4proto {{ icmp, ipv6-icmp }} accept
        meta l4proto {{ tcp, udp }} th dport {_PORTS} accept
        ct state invalid drop
        reject with icmpx admin-prohibited
    }}
    chain filter_FORWARD {{
        type filter hook forward priority filter + 10; policy accept;
        ct state established,related accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        reject with icmpx admin-prohibited
    }}
}}"""

FOREIGN = (
    _policy_drop("nft"),
    _policy_drop("legacy"),
    _shape("docker", _DOCKER, "nft"),
    _shape("docker", _DOCKER, "legacy"),
    _shape("ufw", _UFW, "nft"),
    _shape("ufw", _UFW, "legacy"),
    _shape("rhel", _RHEL, "nft"),
    _shape("rhel", _RHEL, "legacy"),
    _shape("refusing-chain", _REFUSING_CHAIN, "nft"),
    _nft_drop(0),
    _nft_drop(-50),
    ForeignFirewall("firewalld", lambda host: _nft(host, _FIREWALLD), owner=True),
)
