"""Which backend a host gets, what becomes of another's rules, and the chains of others."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from support.firewall_host import network_nouns
from support.firewalls import firewall
from support.foreign import FOREIGN, ForeignFirewall
from support.host import HOST4, Host
from support.host import Place as Machine
from support.patience import eventually
from support.program import Program
from support.traffic import unreachable

from netlib.errors import Unsupported
from netlib.kernel.netfilter import detect, libnftables, policy, variants
from netlib.kernel.netfilter.iptables import Iptables
from netlib.kernel.netfilter.nftables import Nftables
from netlib.kernel.netfilter.none import NoFirewall
from netlib.kernel.netfilter.program import Place
from netlib.plan import Create, Ensure
from netlib.wiring import FirewallBase, Publish

pytestmark = pytest.mark.kernel

PORT = Publish(
    family=4, protocol="tcp", port=8080, target=ip_address("198.51.100.2"), target_port=80
)
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def place(host: Host) -> Iterator[Place]:
    """The host, to run programs in."""
    held = Place()
    yield held
    held.close()


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without libnftables."""
    monkeypatch.setattr(libnftables, "LIBRARY", "libnftables-is-not-here.so")


@pytest.fixture
def no_nft(no_library: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host without nftables at all."""
    for name in os.listdir("/usr/sbin"):
        if re.match(r"ip6?tables|xtables", name):
            (tmp_path / name).symlink_to(f"/usr/sbin/{name}")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_nftables_is_chosen_where_it_works(host: Host) -> None:
    """Nothing is made by choosing."""
    chosen = detect.choose("auto", lock_dir=host.state_dir)

    assert isinstance(chosen, Nftables)
    assert host.leftovers() == []


def test_the_program_stands_in_for_the_library(host: Host, no_library: None) -> None:
    """A host with nft but without libnftables uses nftables all the same."""
    chosen = detect.choose("auto", lock_dir=host.state_dir)
    assert isinstance(chosen, Nftables)

    chosen.do([Ensure(FirewallBase())])
    chosen.do([Create(PORT)])

    assert chosen.observe([PORT]) == [PORT]


def test_iptables_is_chosen_where_nftables_is_not(host: Host, no_nft: None) -> None:
    """The variant is the one that the program iptables runs."""
    chosen = detect.choose("auto", lock_dir=host.state_dir)

    assert isinstance(chosen, Iptables)
    assert chosen.variant == variants.installed_variant(chosen.place)
    with pytest.raises(Unsupported):
        detect.choose("nftables")


def test_a_host_without_any_firewall_is_told(
    host: Host, no_nft: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error names what can be installed, and the way without."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))

    with pytest.raises(Unsupported) as caught:
        detect.choose("auto")
    with pytest.raises(Unsupported):
        detect.choose("iptables")

    assert "--firewall none" in caught.value.hint


def test_none_accepts_facts_and_enforces_nothing(host: Host) -> None:
    """The administrator manages rules himself, and a check finds nothing wrong."""
    chosen = detect.choose("none")

    chosen.do([Ensure(FirewallBase())])
    chosen.do([Create(PORT)])

    assert isinstance(chosen, NoFirewall)
    assert chosen.observe([PORT]) == [PORT]
    assert host.leftovers() == []


SWITCHES = [
    ("nftables", "iptables-nft"),
    ("nftables", "iptables-legacy"),
    ("iptables-nft", "nftables"),
    ("iptables-legacy", "nftables"),
    ("iptables-nft", "iptables-legacy"),
    ("iptables-legacy", "iptables-nft"),
]


@pytest.mark.parametrize(("before", "after"), SWITCHES)
def test_a_switch_takes_all_facts_along(host: Host, before: str, after: str) -> None:
    """What the other backend left goes, after its facts are here; others see none of it."""
    facts = network_nouns()
    with firewall(before, host.state_dir) as old, firewall(after, host.state_dir) as new:
        old.do([Ensure(FirewallBase())])
        old.do([Create(noun) for noun in facts])
        new.do([Ensure(FirewallBase())])
        new.do([Create(facts[0])])

        assert detect.settle(new, host.state_dir) == []

        assert set(new.observe(facts)) == set(facts)
        assert not old.is_there()
        assert detect.others(new, host.state_dir) == []


@pytest.mark.parametrize("before", ["nftables", "iptables-nft", "iptables-legacy"])
def test_switching_to_none_removes_all_rules(host: Host, before: str) -> None:
    """Rules that nobody manages any more would be worse than none."""
    with firewall(before, host.state_dir) as old:
        old.do([Ensure(FirewallBase())])
        old.do([Create(noun) for noun in network_nouns()])

        detect.choose("none", lock_dir=host.state_dir).do([Ensure(FirewallBase())])

        assert not old.is_there()


def test_facts_are_found_where_they_are(host: Host) -> None:
    """With what would remove them; a base without facts, or one's own, is not elsewhere."""
    with (
        firewall("iptables-nft", host.state_dir) as old,
        firewall("nftables", host.state_dir) as new,
    ):
        old.do([Ensure(FirewallBase())])
        assert detect.elsewhere(new, host.state_dir) == {}

        old.do([Create(PORT)])
        assert detect.elsewhere(old, host.state_dir) == {}
        (commands,) = detect.elsewhere(new, host.state_dir).values()
        for command in commands:
            host.run("sh", "-c", command)

        assert not old.is_there()
        assert detect.elsewhere(new, host.state_dir) == {}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("before", "after"), [("iptables", "nftables"), ("nftables", "iptables")])
@pytest.mark.parametrize("closing", ["unpublish web 8080:80", "disconnect front web"])
def test_what_another_firewall_lets_in_is_closed(
    host: Host, before: str, after: str, closing: str
) -> None:
    """A command needs no rules of its own to find those that are there."""
    outsider, old, new = host.outsider(), Program(host, before), Program(host, after)
    old("create front")
    old("run -d --name web --network front -p 8080:80 -- python3 -m netlib.labs.answer 80")
    assert eventually(lambda: _answers(outsider, f"{HOST4}:8080"))

    new(closing)

    assert unreachable(outsider, HOST4, 8080)
    assert new.ask("host")["host"]["base"]
    new("check")
    old("stop web")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("before", ["nftables", "iptables"])
def test_rules_are_left_to_nobody_but_when_it_is_meant(host: Host, before: str) -> None:
    """`none` is refused and changes nothing; a repair hands over, warns, and can be undone."""
    outsider, net, none = host.outsider(), Program(host, before), Program(host, "none")
    net("create front --internal")
    net("create back")
    net("run -d --name web --network back -p 8080:80 -- python3 -m netlib.labs.answer 80")
    assert eventually(lambda: _answers(outsider, f"{HOST4}:8080"))
    rules = _all_rules(host)

    for line in ("create third", "publish web 8081:81", "unpublish web 8080:80", "rm front"):
        refusal = none(line, status=4).stderr
        assert "are in " + before in refusal
        assert "net --firewall none repair" in refusal
    assert before in none("check", status=1).stdout
    dry = none("repair --dry-run").stdout
    assert ("nft delete table inet netlib" if before == "nftables" else "-restore") in dry
    assert _all_rules(host) == rules
    assert none("ls -q -f type=custom").stdout == net("ls -q -f type=custom").stdout

    assert "front, back" in none("repair").stderr
    assert "netlib" not in _all_rules(host).lower()
    none("check")
    none("create third")

    net("repair")
    assert eventually(lambda: _answers(outsider, f"{HOST4}:8080"))
    net("check")
    net("stop web")


def _answers(outsider: Machine, where: str) -> bool:
    return "web" in outsider.run("curl", "-s", "-m", "2", f"http://{where}/", check=False).stdout


def test_ensuring_the_base_settles(host: Host) -> None:
    """The backend that was chosen takes over and passes foreign chains by itself."""
    host.run("iptables-nft", "-P", "FORWARD", "DROP")
    with firewall("iptables-legacy", host.state_dir) as old:
        old.do([Ensure(FirewallBase())])
        old.do([Create(PORT)])
    chosen = detect.choose("nftables", lock_dir=host.state_dir)

    chosen.do([Ensure(FirewallBase())])

    assert chosen.observe([PORT]) == [PORT]
    assert "netlib" in host.run("iptables-nft", "-S", "FORWARD").stdout
    assert "NETLIB" not in host.run("iptables-legacy-save").stdout


@pytest.mark.parametrize("other", FOREIGN, ids=str)
def test_foreign_chains_are_found_and_left_as_they_were(host: Host, other: ForeignFirewall) -> None:
    """Each shape is an obstacle; after an uninstall its rules are what they were."""
    other.set_up(host)
    before = _all_rules(host)
    chosen = detect.choose("nftables", lock_dir=host.state_dir)
    assert isinstance(chosen, Nftables)
    with detect.foreign(chosen) as chains:
        found = chains.obstacles()
    assert found
    assert all(obstacle.ours_to_set != other.owner for obstacle in found)
    assert any(obstacle.hook == "forward" for obstacle in found)

    chosen.do([Ensure(FirewallBase())])
    with detect.foreign(chosen) as chains:
        assert [o for o in chains.obstacles() if o.ours_to_set] == []
    detect.uninstall(chosen, host.state_dir)

    assert _all_rules(host) == before


def test_our_rule_is_put_once_and_last(host: Host) -> None:
    """Only the policy is overruled: what the administrator wrote before it is kept."""
    host.run("iptables-nft", "-A", "FORWARD", "-s", "203.0.113.0/24", "-j", "DROP")
    host.run("iptables-nft", "-P", "FORWARD", "DROP")
    chosen = detect.choose("nftables", lock_dir=host.state_dir)

    chosen.do([Ensure(FirewallBase())])
    chosen.do([Ensure(FirewallBase())])

    rows = host.run("iptables-nft", "-S", "FORWARD").stdout.splitlines()
    assert len(rows) == 4
    assert rows[1] == "-A FORWARD -s 203.0.113.0/24 -j DROP"
    assert all("--comment netlib -j ACCEPT" in row for row in rows[2:])


def test_the_rules_we_name_are_the_rules_we_set(host: Host) -> None:
    """`net host status` shows commands that do the same as we do."""
    host.run("iptables-nft", "-A", "FORWARD", "-j", "REJECT")
    chosen = detect.choose("nftables", lock_dir=host.state_dir)
    assert isinstance(chosen, Nftables)
    with detect.foreign(chosen) as chains:
        for obstacle in chains.obstacles():
            for rule in obstacle.rules:
                host.run(*shlex.split(rule))
        assert chains.obstacles() == []


def test_forward_policies_are_set_and_restored(host: Host, place: Place) -> None:
    """Of the variant in use and of the other where it has rules; IPv4 and IPv6."""
    host.run("iptables-legacy", "-P", "FORWARD", "DROP")
    before = policy.forward_policies(place)
    assert before["iptables-legacy"] == "drop"
    assert before["iptables-nft"] == "accept"

    policy.set_forward_policies(place, dict.fromkeys(before, "drop"))
    assert set(policy.forward_policies(place).values()) == {"drop"}

    policy.set_forward_policies(place, before)
    assert policy.forward_policies(place) == before


def test_asking_for_policies_makes_no_table(host: Host, place: Place) -> None:
    """A status may not change the host."""
    policy.forward_policies(place)

    assert not variants.legacy_is_loaded(place, 4)
    assert host.leftovers() == []


@pytest.mark.parametrize("name", ["auto", "nftables", "iptables"])
def test_a_caller_without_rights_is_told_so(host: Host, name: str) -> None:
    """The error has a class of its own, whatever the backend, and the hint says what to do."""
    code = f"""
import ctypes, sys
from pathlib import Path
from netlib.errors import NotPermitted
from netlib.kernel.netfilter.detect import choose
from netlib.plan import Ensure
from netlib.wiring import FirewallBase
libc = ctypes.CDLL(None, use_errno=True)
for capability in range(64):
    libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capset(header, data) == 0
try:
    backend = choose({name!r}, lock_dir=Path({str(host.state_dir)!r}))
    backend.do([Ensure(FirewallBase())])
except NotPermitted as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert re.search("not permitted; run (it )?as root", done.stdout), done.stderr


def _all_rules(host: Host) -> str:
    ruleset = host.run("nft", "list", "ruleset").stdout
    saved = ""
    for program, family in (("iptables", 4), ("ip6tables", 6)):
        if _legacy(family):
            saved += host.run(f"{program}-legacy-save").stdout
    saved = "\n".join(row for row in saved.splitlines() if not row.startswith("#"))
    return re.sub(r"\[\d+:\d+\]|packets \d+ bytes \d+", "", ruleset + saved)


def _legacy(family: int) -> bool:
    names = f"/proc/thread-self/net/ip{'6' if family == 6 else ''}_tables_names"
    return "filter" in Path(names).read_text()
