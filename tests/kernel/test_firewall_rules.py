"""docs/rules.md shows every rule as the kernel lists it."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from support.firewalls import firewall
from support.golden import Golden
from support.host import Host

from netlib.kernel.netfilter.source_guard import SourceGuards
from netlib.plan import Create, Ensure
from netlib.wiring import (
    DnsRedirect,
    FirewallBase,
    Forward,
    Masquerade,
    Noun,
    Publish,
    Segment,
    SourceGuard,
    VxlanMember,
    VxlanPort,
)

pytestmark = pytest.mark.kernel

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "rules.md"
FENCE = re.compile(r"^```(nft|iptables)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# The network of the page: NAT, a resolver, one published port for each family.
EXAMPLE: list[Noun] = [
    Forward(bridge="nl-example"),
    Segment(
        bridge="nl-example",
        prefix=ip_network("198.51.100.0/24"),
        gateway=ip_address("198.51.100.1"),
    ),
    Segment(
        bridge="nl-example",
        prefix=ip_network("2001:db8:a::/64"),
        gateway=ip_address("2001:db8:a::1"),
    ),
    Masquerade(bridge="nl-example", family=4),
    Masquerade(bridge="nl-example", family=6),
    DnsRedirect(bridge="nl-example", gateway=ip_address("198.51.100.1"), port=5353),
    Publish(family=4, protocol="tcp", port=8080, target=ip_address("198.51.100.2"), target_port=80),
    Publish(
        family=6, protocol="tcp", port=8080, target=ip_address("2001:db8:a::2"), target_port=80
    ),
    VxlanPort(port=4789),
    VxlanMember(address=ip_address("192.0.2.1"), port=4789),
    VxlanMember(address=ip_address("2001:db8::1"), port=4789),
]
GUARD = SourceGuard(
    device="nv-example",
    mac="02:00:c6:33:64:02",
    addresses=(ip_address("198.51.100.2"), ip_address("2001:db8:a::2")),
    prefixes=(ip_network("198.51.100.0/24"), ip_network("2001:db8:a::/64")),
)


def make(name: str, host: Host) -> None:
    """The base and the example, in the kernel."""
    with firewall(name, host.state_dir) as backend:
        backend.do([Ensure(FirewallBase())])
        backend.do([Create(noun) for noun in EXAMPLE])


def nft_table(host: Host) -> str:
    """Our two tables as nft lists them; skipped where this nft writes rules in another form."""
    version = host.run("nft", "--version").stdout
    if "v1.0.6" not in version:
        pytest.skip("the golden text is as nft 1.0.6 lists it")
    make("nftables", host)
    guards = SourceGuards()
    guards.do([Create(GUARD)])
    guards.close()
    tables = (("inet", "netlib"), ("bridge", "netlib"))
    return "".join(host.run("nft", "list", "table", *table).stdout for table in tables)


def iptables_save(host: Host, program: str) -> str:
    """Our chains and jumps as iptables-save lists them, without counters and other chains."""
    rows = host.run(f"{program}-legacy-save").stdout.splitlines()
    kept = [re.sub(r" \[\d+:\d+\]", "", r) for r in rows if "NETLIB" in r or r.startswith("*")]
    return "\n".join([*kept, ""])


def test_nftables_as_the_kernel_lists_it(host: Host, golden: Golden) -> None:
    """The base and one network."""
    golden.check("rules-nftables.txt", nft_table(host))


@pytest.mark.parametrize("program", ["iptables", "ip6tables"])
def test_iptables_as_the_kernel_lists_it(host: Host, golden: Golden, program: str) -> None:
    """The same in each family."""
    make("iptables-legacy", host)

    golden.check(f"rules-{program}.txt", iptables_save(host, program))


def blocks(listing: str) -> dict[str, str]:
    """The sets, maps and chains of a listed table by their first line."""
    found = re.findall(r"^\t((?:set|map|chain) \S+) \{\n(.*?)^\t\}$", listing, re.M | re.S)
    return {name: f"{name} {{\n{dedent(body, 1)}}}\n" for name, body in found}


def dedent(text: str, tabs: int) -> str:
    """Lines without their first tabs."""
    return "".join(line[tabs:] for line in text.splitlines(keepends=True))


def test_every_chain_is_on_the_page(host: Host, request: pytest.FixtureRequest) -> None:
    """Beside its explanation, to the letter; and no chain that is none of ours."""
    listed = {k: v for k, v in blocks(nft_table(host)).items() if k.startswith("chain")}
    page = PAGE.read_text()
    if request.config.getoption("--update-golden"):
        for name, text in listed.items():
            page = re.sub(rf"^{name} \{{\n.*?^\}}\n", lambda _, t=text: t, page, flags=re.M | re.S)
        PAGE.write_text(page)
    shown = "".join(text for kind, text in FENCE.findall(page) if kind == "nft")

    assert {name for name, text in listed.items() if text not in shown} == set()
    assert set(re.findall(r"^chain \S+", shown, re.M)) == set(listed)


def test_every_set_is_on_the_page(host: Host) -> None:
    """The table of facts names each set and map."""
    page = PAGE.read_text()
    names = [k.split()[1] for k in blocks(nft_table(host)) if not k.startswith("chain")]

    assert [name for name in names if f"`{name.rstrip('46')}" not in page] == []


def test_every_iptables_chain_is_on_the_page(host: Host) -> None:
    """Chain by chain, beside the chain of nftables that means the same."""
    make("iptables-legacy", host)
    page = PAGE.read_text()
    names = {
        name
        for program in ("iptables", "ip6tables")
        for name in re.findall(r"^:(NETLIB-\S+)", iptables_save(host, program), re.M)
    }

    missing = {name for name in names if f"`{name}`" not in page}
    assert missing == {"NETLIB-M-nl-example", "NETLIB-TCP-1", "NETLIB-TCP-1f", "NETLIB-TCP-1f9"}
