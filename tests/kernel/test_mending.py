"""Check finds what others took away, repair puts it back, and nothing of others is touched."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import pytest
from support.host import HOST4, HOST6, NAMED, Host, new_host
from support.names import query, values
from support.netns import end_processes
from support.patience import eventually
from support.resolving import ask
from support.traffic import reachable, serve, unreachable
from support.verbs import facts

from netlib import Net, throwaway
from netlib.dns.client import Resolver
from netlib.errors import AlreadyThere, NoSuchSandbox, WrongHost
from netlib.firewall.iptables_base import fact_chains
from netlib.firewall.nftables_base import CONTAINERS
from netlib.kernel import host_facts
from netlib.ports import parse
from netlib.store import Commit, under
from netlib.wiring import Relay

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
FRONT = "198.51.100.0/25"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Stage:
    """A network with a sandbox on it that publishes ports, and the host that all is on."""

    def __init__(self, host: Host, net: Net) -> None:
        self.host, self.net = host, net
        self.outsider = host.outsider()
        net.create("front", subnets=[FRONT, "2001:db8:a::/64"], options={"bridge.name": "front0"})
        self.web = host.sandbox("web")
        net.register_sandbox("web", self.web.netns)
        net.connect("front", "web", publish=["8080:80", "[::1]:9000:80"])
        (record,) = net.engine.state.endpoints_of("web")
        self.port = f"nv-{record.endpoint.id[:12]}"

    def works(self) -> None:
        """Packets pass, from outside, by the relay, and by name."""
        with serve(self.web, 80):
            for family in (HOST4, HOST6):
                assert eventually(lambda at=family: reachable(self.outsider, at, 8080))  # type: ignore[misc]
            assert eventually(lambda: reachable(self.host, "::1", 9000))
        answer = ask(self.web, query("web.front"), "198.51.100.1")
        assert values(answer) == ["198.51.100.2"]

    def on_host(self, *argv: str) -> None:
        """Run a program in the host."""
        self.host.run(*argv)

    def in_web(self, *argv: str) -> None:
        """Run a program in the sandbox."""
        self.web.run(*argv)


@pytest.fixture(params=["nftables", "iptables"])
def stage(
    host: Host, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    """With each firewall."""
    monkeypatch.setenv("NETLIB_FIREWALL", request.param)
    with Net(host.state_dir) as net:
        yield Stage(host, net)


def flush(stage: Stage) -> None:
    if stage.net.engine.kernel.firewall == "nftables":
        stage.on_host("nft", "flush", "ruleset")
    else:
        for program in ("iptables-nft", "ip6tables-nft"):
            for table in ("filter", "nat", "mangle", "raw"):
                stage.host.run(program, "-t", table, "-F", check=False)
        for program in ("iptables-legacy", "ip6tables-legacy"):
            for table in ("filter", "nat", "mangle", "raw"):
                stage.host.run(program, "-t", table, "-F", check=False)


def flush_ports(stage: Stage) -> None:
    if stage.net.engine.kernel.firewall == "nftables":
        stage.on_host("nft", "flush", "map", "inet", "netlib", "any4")
    else:
        stage.on_host("iptables", "-t", "nat", "-F", "NETLIB-TCP")


def kill_relay(stage: Stage) -> None:
    found = [p for p in Path("/proc").iterdir() if is_relay_of(p, stage.host)]
    assert found
    for process in found:
        os.kill(int(process.name), signal.SIGKILL)
    eventually(lambda: not any(is_relay_of(p, stage.host) for p in found))


def is_relay_of(process: Path, host: Host) -> bool:
    """Whether it is the relay process of this host."""
    try:
        name = (process / "comm").read_text().strip()
        return name == "netlib-relay" and (process / "ns/net").stat().st_ino == host.netns.inode
    except OSError:
        return False


LOSSES: dict[str, tuple[Callable[[Stage], None], str]] = {
    "the firewall's rules": (flush, "front"),
    "published ports": (flush_ports, "web on front"),
    "the bridge": (lambda s: s.on_host("ip", "link", "del", "front0"), "front"),
    "the bridge is down": (lambda s: s.on_host("ip", "link", "set", "front0", "down"), "front"),
    "the bridge's address": (
        lambda s: s.on_host("ip", "addr", "del", "198.51.100.1/25", "dev", "front0"), "front"),
    "the bridge's MTU": (
        lambda s: s.on_host("ip", "link", "set", "front0", "mtu", "1300"), "front"),
    "the veth": (lambda s: s.on_host("ip", "link", "del", s.port), "web on front"),
    "the veth's bridge": (
        lambda s: s.on_host("ip", "link", "set", s.port, "nomaster"), "web on front"),
    "an address in the sandbox": (
        lambda s: s.in_web("ip", "-4", "addr", "flush", "dev", "eth0"), "web on front"),
    "the default route": (lambda s: s.in_web("ip", "route", "del", "default"), "web on front"),
    "the IPv6 default route": (
        lambda s: s.in_web("ip", "-6", "route", "del", "default"), "web on front"),
    "the interface is down": (
        lambda s: s.in_web("ip", "link", "set", "eth0", "down"), "web on front"),
    "forwarding": (
        lambda s: s.on_host("sysctl", "-qw", "net.ipv4.conf.all.forwarding=0"), "network front"),
    "the relay": (kill_relay, "web on front"),
}  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_found_and_mended(stage: Stage, loss: str) -> None:
    """By a fresh process; and packets pass again."""
    take, subject = LOSSES[loss]
    take(stage)
    with Net(stage.host.state_dir) as net:
        findings = net.check()
        assert any(subject in finding.subject for finding in findings), findings
        report = net.repair()
        assert (report.failed, report.skipped) == ((), ())
        assert net.check() == ()
        assert any(isinstance(noun, Relay) for noun in net.engine.kernel.marked())
    stage.works()


@pytest.mark.parametrize("sysctl", ["route_localnet", "rp_filter"])
def test_a_sysctl_of_the_bridge_is_found_and_mended(stage: Stage, sysctl: str) -> None:
    """As an administrator, or a tool of theirs, might set it."""
    path = f"net.ipv4.conf.front0.{sysctl}"
    stage.on_host("sysctl", "-qw", f"{path}=0")
    assert [f.subject for f in stage.net.check()] == ["network front"]
    stage.net.repair()
    assert stage.net.check() == ()
    assert stage.host.run("sysctl", "-n", path).stdout.strip() != "0"


def test_the_resolver_and_its_keeper_come_back(stage: Stage) -> None:
    """Both killed: check says that names are not answered, repair has them answered again."""
    stats = Resolver(stage.host.state_dir).stats()
    assert stats is not None
    server = int(stats["pid"])
    keeper = int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(keeper, signal.SIGKILL)
    with suppress(ProcessLookupError):  # it may have followed its keeper already
        os.kill(server, signal.SIGKILL)
    with Net(stage.host.state_dir) as net:
        if net.check() != ():  # looking may have revived it already
            assert net.repair().failed == ()
        assert net.check() == ()
    stage.works()


def test_repair_changes_nothing_where_nothing_is_wrong(stage: Stage) -> None:
    """Said twice it does nothing, and connections stay."""
    before = facts(stage.host)
    assert stage.net.repair().mended == ()
    assert stage.net.collect_garbage() == ()
    assert facts(stage.host) == before


# -- reboot ---------------------------------------------------------------------------------------


def test_networks_come_back_after_a_reboot(stage: Stage) -> None:
    """Another boot, an empty host, the same disk: networks are made anew, dead sandboxes go."""
    stage.net.create_sandbox("old")
    stage.net.connect("front", "old", addresses=["198.51.100.77"])
    with rebooted(stage.host) as host, Net(stage.host.state_dir) as net:
        findings = net.check()
        assert {f.subject for f in findings} >= {"network front", "web on front", "old on front"}
        report = net.repair()
        assert report.failed == ()
        assert {f.subject for f in report.skipped} == {"web on front", "old on front"}
        assert all("net gc" in f.note for f in report.skipped)
        assert {box.name for box in net.collect_garbage()} == {"web", "old"}
        assert net.check() == ()
        assert [r.key for r in net.engine.state.store.range(*under("port/"))] == []
        assert [r.key for r in net.engine.state.store.range(*under("lease/"))] == []
        assert not list((stage.host.state_dir / "sandboxes").glob("*"))

        outsider = host.outsider()
        web = host.sandbox("web")
        net.register_sandbox("web", web.netns)
        net.connect("front", "web", publish=["8080:80"])
        with serve(web, 80):
            assert eventually(lambda: reachable(outsider, HOST4, 8080))
        net.remove_sandbox("web")
        net.remove("front")


@contextmanager
def rebooted(host: Host) -> Iterator[Host]:
    """The host after a reboot: nothing runs, nothing is set up, and the boot has another id."""
    end_processes({host.netns.inode})
    for name in os.listdir(NAMED):
        host.run("ip", "netns", "del", name)
    boot_id = host.state_dir / "boot_id"
    boot_id.write_text("6b1f6f6e-0000-4000-8000-000000000002\n")
    throwaway.bind(str(boot_id), str(BOOT_ID))
    host_facts._boot_id.cache_clear()  # no process outlives a boot
    try:
        with new_host() as again:
            yield again
    finally:
        throwaway.unmount(str(BOOT_ID))
        host_facts._boot_id.cache_clear()


def test_the_state_of_another_namespace_is_refused(host: Host) -> None:
    """In the same boot: nothing is done there, and the error says where it belongs."""
    with Net(host.state_dir) as net:
        net.create("front", subnets=[FRONT])
    with new_host() as other, Net(host.state_dir) as net:
        for verb in (
            lambda: net.create("back"),
            lambda: net.remove("front"),
            lambda: net.create_sandbox("web"),
            net.repair,
            net.collect_garbage,
        ):
            with pytest.raises(WrongHost, match="another network namespace"):
                verb()
        assert other.leftovers() == []


# -- of others ------------------------------------------------------------------------------------

# Link-local addresses of the kernel's come and go with the carrier. Of one request the flag is set
# before the mode is (do_setlink in net/core/rtnetlink.c).
FOREIGN = """
link add theirs0 type bridge
link set theirs0 addrgenmode none
link set theirs0 up
addr add 203.0.113.1/24 dev theirs0
link add veth-a type veth peer name veth-b
link set veth-a master theirs0 alias theirs
"""
FOREIGN_NFT = """
table inet theirs {
  set ports { type inet_service; elements = { 22 } }
  chain input { type filter hook input priority 0; policy accept; tcp dport @ports accept; }
}
"""


def test_nothing_of_others_is_touched(stage: Stage) -> None:
    """A bridge, links, a table, rules and a namespace of others survive whatever we do."""
    host, net = stage.host, stage.net
    before = set(host.leftovers())
    host.run("ip", "-batch", "-", stdin=FOREIGN)
    host.run("nft", "-f", "-", stdin=FOREIGN_NFT)
    host.run("iptables", "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
    host.run("ip6tables", "-t", "mangle", "-N", "THEIRS")
    host.run("ip", "netns", "add", "theirs")
    # A network of ours on a bridge of theirs.
    net.create("guest", subnets=["198.51.100.128/25"], options={"bridge.name": "theirs0"})
    net.remove("guest")
    theirs = foreign(host) - before
    assert any("theirs0" in fact for fact in theirs)
    assert any("THEIRS" in fact for fact in theirs)
    host.run("ip", "link", "del", stage.port)
    net.repair()
    net.collect_garbage()
    net.create("unused")
    net.prune()
    net.remove("front", force=True)
    net.remove_sandbox("web")
    net.collect_garbage()
    assert theirs - foreign(host) == set()
    assert "theirs" in host.run("ip", "netns").stdout


PARTS = {
    "ifname": '"nl-theirs"',
    "ipv4_addr": "203.0.113.77",
    "ipv6_addr": "2001:db8:77::7",
    "inet_proto": "tcp",
    "inet_service": "7777",
    "nf_proto": "ipv4",
}


def strangers(stage: Stage) -> list[tuple[list[str], list[str]]]:
    """How others would add to each of our containers or chains, and what check is to name then."""
    if stage.net.engine.kernel.firewall == "nftables":
        found = re.findall(r"(set|map) (\w+) { type ([^;:]*?)(?: : ([^;]*?))?;", CONTAINERS)
        return [
            (
                ["nft", f"add element inet netlib {name} {{ {joined(key)}{value} }}"],
                [name, joined(key).split(" . ")[0]],
            )
            for _, name, key, to in found
            # Whom a cluster's member takes for others is that cluster's, which this host is not in.
            if name not in ("fingerprint", "vxlan", "members4", "members6")
            for value in [" : accept" if to == "verdict" else f" : {joined(to)}" if to else ""]
        ]
    rule = {"iptables": "-s 203.0.113.77/32", "ip6tables": "-s 2001:db8:77::7/128"}
    return [
        ([program, "-t", table, "-A", chain, *rule[program].split(), "-j", "ACCEPT"], [chain])
        for program, family in (("iptables", 4), ("ip6tables", 6))
        for table, chain in fact_chains(4 if family == 4 else 6)
        if chain != "NETLIB-USER"
    ]


def joined(kinds: str) -> str:
    """A value of these types."""
    return " . ".join(PARTS[kind] for kind in kinds.split(" . "))


def test_what_others_put_among_our_rules_is_told_and_taken_away(stage: Stage) -> None:
    """Each single thing, in whatever container or chain it is; and what is ours stays."""
    net = stage.net
    for command, named in strangers(stage):
        stage.on_host(*command)
        plans = [finding.plan.text(net.engine.kernel.firewall) for finding in net.check()]
        assert plans, command
        assert any(all(word in plan for word in named) for plan in plans), (command, plans)
        net.repair()
        assert net.check() == (), command
    stage.works()


def foreign(host: Host) -> set[str]:
    """All facts of the host; of the firewall's those that do not speak of us."""
    lines = {
        f"{program} {line}"
        for program in ("iptables", "ip6tables")
        for line in host.run(f"{program}-save").stdout.splitlines()
        if line.startswith("-A") and "NETLIB" not in line and "netlib" not in line
    }
    return lines | {fact for fact in host.leftovers() if "counter" not in fact}


def test_two_states_of_one_host_leave_each_other_alone(stage: Stage, tmp_path: Path) -> None:
    """Garbage collection with another folder is not the end of what this one made."""
    with Net(tmp_path / "other") as other:
        assert other.check() == ()
        assert other.plan.collect_garbage().stages == ()
        other.collect_garbage()
        assert stage.net.check() == ()
        other.create("theirs", subnets=["203.0.113.0/25"])
        box = other.create_sandbox("other-web")
        other.connect("theirs", "other-web", publish=["9090:80"])
        for net in (other, stage.net):
            assert net.check() == ()
            net.collect_garbage()
            net.repair()
        assert other.check() == ()
        assert stage.net.check() == ()
        stage.works()
        # What is left of its own is still found.
        other.engine.state.store.commit(Commit(put={}, delete_ranges=(under("endpoint/"),)))
        assert [f.subject for f in other.check()] != []
        other.repair()
        other.collect_garbage()
        assert other.check() == ()
        assert stage.net.check() == ()
        assert box.name in {b.name for b in other.sandboxes()}
        other.remove("theirs")


def test_the_number_of_a_namespace_may_be_given_again(stage: Stage) -> None:
    """The kernel reuses inode numbers at once: the new sandbox is not taken for the dead one."""
    net, host = stage.net, stage.host
    first = net.create_sandbox("first")
    net.connect("front", "first")
    host.run("ip", "netns", "del", "first")
    made = []
    for number in range(20):
        made.append(net.create_sandbox(f"next{number}"))
        if made[-1].netns.inode == first.netns.inode:
            break
    for box in made:
        assert net.engine.state.sandbox(box.name).netns == box.netns
        net.connect("front", box.name)
    with pytest.raises(NoSuchSandbox, match="ended"):
        net.connect("front", "first")
    assert [box.name for box in net.collect_garbage()] == ["first"]
    assert net.check() == ()
    for box in made:
        assert net.engine.state.sandbox_in(box.netns.inode) == box


def test_a_foreign_chain_that_came_into_the_way_is_passed(host: Host) -> None:
    """Somebody sets FORWARD's policy to DROP: check says so, and repair adds the one rule."""
    outsider = host.outsider()
    with Net(host.state_dir, firewall="nftables") as net:
        net.create("front", subnets=[FRONT])
        web = host.sandbox("web")
        net.register_sandbox("web", web.netns)
        net.connect("front", "web")
        host.run("iptables-nft", "-P", "FORWARD", "DROP")
        with serve(outsider, 80):
            assert unreachable(web, "192.0.2.100", 80)
            (finding,) = net.check()
            assert finding.subject == "firewall"
            assert "iptables-nft chain FORWARD is in the way" in finding.note

            assert [one.subject for one in net.repair().mended] == ["firewall"]

            assert reachable(web, "192.0.2.100", 80)
        assert net.check() == ()


@pytest.mark.parametrize("firewall", ["nftables", "iptables"])
def test_rules_of_earlier_that_somebody_loads_again_are_mended_at_once(
    host: Host, firewall: Literal["nftables", "iptables"]
) -> None:
    """Ports of an administrator's old copy lie where others are now, also limited to sources."""
    with Net(host.state_dir, firewall=firewall) as net:
        net.create("front", subnets=[FRONT])
        for name in ("web", "db"):
            net.register_sandbox(name, host.sandbox(name).netns)
            net.connect("front", name)
        only = ["203.0.113.0/25"]
        net.publish("web", ["7000-7003:7000-7003", "8081:80"])
        net.publish("web", [parse("8080:80", only)])
        load_again = _saved(host, firewall)
        for port in ("7000-7003", "80"):
            net.unpublish("web", [port])
        load_again()
        assert [finding.subject for finding in net.check()] == ["host"]
        with suppress(AlreadyThere):  # nftables puts it beside what is limited
            net.publish("web", ["8080:80"])
        net.publish("db", [parse("8082:80", only)])
        net.repair()
        net.publish("db", ["7002-7005:7002-7005", "8081:81"])

        load_again()
        assert net.check() != ()
        repaired = net.repair()

        assert repaired.failed == ()
        assert repaired.mended[0].subject == "host"
        assert net.check() == ()


def _saved(host: Host, firewall: str) -> Callable[[], None]:
    """Save all rules of the host as they are now, to be loaded in place of those of then."""
    if firewall == "nftables":
        saved = {"nft -f -": "flush ruleset\n" + host.run("nft", "list", "ruleset").stdout}
    else:
        saved = {
            f"{program}-restore": host.run(f"{program}-save").stdout
            for program in ("iptables", "ip6tables")
        }

    def load() -> None:
        for program, text in saved.items():
            host.run(*program.split(), stdin=text)

    return load
