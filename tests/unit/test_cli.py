"""The command line on a host in memory: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import fcntl
import json
import os
import re
import warnings
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from support.shell import Shell

from netlib.cluster.model import Node
from netlib.errors import KernelError, NetWarning, NotPermitted, StoreError
from netlib.frontends.cli.catalogue import COMMANDS
from netlib.frontends.cli.program import program
from netlib.frontends.cli.session import Session
from netlib.kernel.fake import FakeKernel
from netlib.kernel.netfilter.foreign import Obstacle
from netlib.net import Net
from netlib.plan import Stage
from netlib.records import dump
from netlib.store import Commit
from netlib.store.memory import MemoryStore


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


@pytest.fixture
def shell(kernel: FakeKernel, tmp_path: Path) -> Iterator[Shell]:
    with Net(tmp_path, store=MemoryStore(), kernel=kernel) as net:
        yield Shell(net)


@pytest.fixture
def web(shell: Shell) -> Shell:
    """A shell on a host with a network, front, and a sandbox on it, web."""
    shell("create front --subnet 192.0.2.0/24")
    shell("sandbox create web")
    shell("connect front web -p 8080:80")
    return shell


# -- networks -----------------------------------------------------------------------------------


def test_create_prints_the_id(shell: Shell) -> None:
    """A program can keep what `net create` prints."""
    said = shell("create my-net")

    assert re.fullmatch(r"[0-9a-f]{64}\n", said.out)
    assert shell("ls -q --no-trunc -f type=custom").out == said.out


def test_create_takes_all_that_docker_takes(shell: Shell) -> None:
    """Hands that know Docker's options find them."""
    shell(
        "create -d bridge --subnet 192.0.2.0/24 --gateway 192.0.2.254 --ip-range 192.0.2.64/26"
        " --aux-address printer=192.0.2.70 --subnet 2001:db8::/64 --ipv6 --attachable"
        " --opt com.docker.network.driver.mtu=1400 --label team=blue --label bare front"
    )
    (network,) = shell("ls --json -f type=custom").document["networks"]

    assert network["subnets"][0] == {
        "subnet": "192.0.2.0/24",
        "gateway": "192.0.2.254",
        "ranges": ["192.0.2.64-192.0.2.127"],
        "reserved": {"printer": "192.0.2.70"},
    }
    assert network["ipv6"]
    assert network["attachable"]
    assert network["options"]["mtu"] == "1400"
    assert network["labels"] == {"team": "blue", "bare": ""}


def test_ls_shows_four_columns(shell: Shell) -> None:
    """The columns of `docker network ls`; an id of digits and an `e` is no number."""
    made = shell("create front").out

    head, *rows = shell("ls").lines
    assert re.split(r"  +", head) == ["NETWORK ID", "NAME", "DRIVER", "SCOPE"]
    assert [row.split()[1] for row in rows] == ["bridge", "host", "none", "front"]
    assert rows[-1].split() == [made[:12], "front", "bridge", "local"]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ("", "bridge host none one two three"),
        ("-f name=t", "host two three"),
        ("-f name=one -f name=two", "none one two"),
        ("-f name=t -f label=team=blue", "two"),
        ("-f label=team", "one two"),
        ("-f label=team=blue -f label=stage", ""),
        ("-f driver=bridge", "bridge one two three"),
        ("-f driver=macvlan", ""),
        ("-f scope=local", "bridge host none one two three"),
        ("-f scope=global", ""),
        ("-f type=custom", "one two three"),
        ("-f type=builtin", "bridge host none"),
        ("-f dangling=true", "two three"),
        ("-f dangling=false", "bridge host none one"),
    ],
)
def test_filters_of_ls(shell: Shell, filters: str, names: str) -> None:
    """Values of one key widen what is listed, different keys and labels narrow it."""
    shell("create --label team=red one")
    shell("create --label team=blue two")
    shell("create three")
    shell("sandbox create web")
    shell("connect one web")

    listed = shell(f"ls --json {filters}").document["networks"]
    assert [network["name"] for network in listed] == names.split()


def test_filter_by_id(shell: Shell) -> None:
    """The beginning of an id is enough."""
    made = shell("create front").out.strip()

    assert shell(f"ls --no-trunc -q -f id={made[:6]}").lines == [made]


@pytest.mark.parametrize("bad", ["colour=red", "name", "scope=far", "dangling=perhaps", "type=x"])
def test_a_filter_that_makes_no_sense(shell: Shell, bad: str) -> None:
    """It is refused, with what is possible, instead of letting everything or nothing through."""
    said = shell(f"ls --filter {bad}", status=2)

    assert "hint:" in said.err


def test_inspect_prints_a_list(web: Shell) -> None:
    """As with Docker, a plain JSON list; under --json the versioned document."""
    (network,) = web("inspect front").document

    assert network["name"] == "front"
    assert network["subnets"][0]["used"] == 1
    assert network["subnets"][0]["free"] == 252
    assert network["endpoints"][0]["sandbox"] == "web"
    assert network["endpoints"][0]["addresses"] == ["192.0.2.2/24"]
    assert "wiring" not in network
    assert web("inspect -v front").document[0]["wiring"]
    assert web("inspect front --json").document["networks"][0]["id"] == network["id"]


def test_inspect_shows_those_that_are_there(web: Shell) -> None:
    """One wrong name does not hide the others, but shows in the exit status."""
    said = web("inspect front frond", status=3)

    assert [network["name"] for network in said.document] == ["front"]
    assert "did you mean front?" in said.err


def test_rm_names_what_it_removed_and_what_not(web: Shell) -> None:
    """Each network is tried; the exit status tells of the first that stayed."""
    web("create back")

    said = web("rm front back nope", status=4)
    assert said.lines == ["back"]
    assert "network front is used by web" in said.err
    assert "there is no network 'nope'" in said.err
    assert web("rm -f front").lines == ["front"]


def test_rm_tells_all_failures_to_programs(web: Shell) -> None:
    """The document has what went well, and every error."""
    document = web("rm --json front nope", status=4).document

    assert document["removed"] == []
    assert document["error"]["code"] == "in-use"
    assert [error["code"] for error in document["errors"]] == ["in-use", "no-such-network"]


def test_prune_spares_who_is_used_and_who_does_not_fit(web: Shell) -> None:
    """Only networks that nobody is on go, and of them only those that the filters name."""
    web("create --label keep=yes back")
    web("create other")

    assert web("prune --filter label!=keep").lines == ["other"]
    assert web("prune --filter until=1h").lines == []
    assert web("prune").lines == ["back"]
    assert web("ls -q -f type=custom").lines == web("ls -q -f name=front").lines


def test_update_changes_and_takes_away(shell: Shell) -> None:
    """An empty value takes a label away; what can't change is refused with the reason."""
    shell("create --label team=red front")

    shell("update --label team= --label stage=test -o mtu=1400 front")
    (network,) = shell("inspect front").document
    assert network["labels"] == {"stage": "test"}
    assert network["options"]["mtu"] == "1400"
    assert "these can" in shell("update -o bridge_name=br7 front", status=2).err
    assert "Nothing to change" in shell("update front", status=2).err
    assert "together with a new --subnet" in shell("update --gateway 192.0.2.1 front", status=2).err


def test_an_outbound_address_that_the_host_has_not_is_warned_of(
    shell: Shell, kernel: FakeKernel
) -> None:
    """What leaves with it would never be answered; said once, when it is asked for."""
    kernel.holding[ip_address("203.0.113.8")] = "eth0"
    with pytest.warns(NetWarning, match=r"has no address 203\.0\.113\.9: what leaves"):
        shell("create -o outbound_ipv4=203.0.113.9 front")
    with warnings.catch_warnings(action="error"):
        shell("update -o mtu=1400 front")
        shell("update -o outbound_ipv4=203.0.113.8 front")
    with pytest.warns(NetWarning, match=r"203\.0\.113\.9"):
        shell("update -o outbound_ipv4=203.0.113.9 front")


# -- endpoints and ports ------------------------------------------------------------------------


def test_connect_takes_all_options(shell: Shell) -> None:
    """Everything that an endpoint can be told arrives at it."""
    shell("create --subnet 192.0.2.0/24 --subnet 2001:db8::/64 --ipv6 front")
    shell("sandbox create web")
    shell("sandbox create db")
    shell(
        "connect --ip 192.0.2.9 --ip6 2001:db8::9 --mac 02-00-5E-00-53-01 --alias w --alias x"
        " --link db:database --ifname lan0 --gw-priority 7 -p 8080:80 front web"
    )
    (endpoint,) = shell("inspect front").document[0]["endpoints"]

    assert endpoint["addresses"] == ["192.0.2.9/24", "2001:db8::9/64"]
    assert endpoint["mac"] == "02:00:5e:00:53:01"
    assert endpoint["aliases"] == ["w", "x"]
    assert endpoint["links"] == {"db": "database"}
    assert endpoint["interface"] == "lan0"
    assert endpoint["gateway_priority"] == 7
    assert endpoint["ports"][0]["host_port"] == 8080


def test_options_may_follow_the_names(web: Shell) -> None:
    """`net connect my-net web -p 8080:80` is how people type it."""
    web("sandbox create db")
    web("connect front db -p 5432:5432 --json")

    assert web("port db").lines == ["5432/tcp -> 0.0.0.0:5432", "5432/tcp -> [::]:5432"]


def test_ps_shows_ports_as_docker_does(web: Shell) -> None:
    """Both families, as people know it."""
    head, row = web("ps").lines

    assert head.split() == ["SANDBOX", "PID", "STATE", "NETWORKS", "ADDRESSES", "PORTS"]
    assert re.split(r"  +", row) == [
        "web", "-", "present", "front", "192.0.2.2", "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("network", "spec", "told"),
    [
        ("six", "8082:80", ["[::]:8082"]),  # nobody expects IPv4 there
        ("six", "192.0.2.1:8082:80", ["192.0.2.1:8082"]),  # by a relay, as it is asked for
        ("front", "8082:80/sctp", ["0.0.0.0:8082"]),  # no relay speaks it
        ("front", "8082:80", ["0.0.0.0:8082", "[::]:8082"]),
    ],
)
def test_ports_are_told_where_they_are_reached(
    web: Shell, network: str, spec: str, told: list[str]
) -> None:
    """A host address that leads nowhere would send people looking for a fault."""
    web("create --subnet 2001:db8::/64 six")
    web("sandbox create db")
    web(f"connect {network} db -p {spec}")

    assert [line.partition(" -> ")[2] for line in web("port db").lines] == told
    assert web("ps").out.count(":8082") == len(told)


def test_container_names_a_sandbox(web: Shell) -> None:
    """Docker's word for sharing the stack of another one."""
    web("create back")
    web("connect back container:web")

    assert "back" in web("ps").out
    web("disconnect back container:web")
    assert "shared as it is" in web("run --network container:web -p 80 -- true", status=2).err


def test_ps_shows_where_routed_ports_are(shell: Shell) -> None:
    """A routed network uses no port of the host: its ports are at the sandbox's own address."""
    shell("create -o gateway_mode=routed --subnet 198.51.100.0/24 routed")
    shell("sandbox create web")
    shell("connect routed web -p 80:80")

    assert shell("port web").lines == ["80/tcp -> 198.51.100.2:80"]


def test_ps_shows_who_has_ended(web: Shell, kernel: FakeKernel) -> None:
    """A sandbox whose namespace is gone stays visible until `net gc`."""
    assert web.net is not None
    kernel.remove_namespace(web.net.sandboxes()[0].netns)

    assert web("ps").lines[1].split()[2] == "ended"
    assert web("gc").lines == ["web"]
    assert web("ps -q").lines == []


def test_publish_and_unpublish(web: Shell) -> None:
    """Hot; ranges and protocols as the contract has them."""
    assert web("publish web 127.0.0.1:5000:5000 7000-7002:7000-7002/udp").lines == [
        "127.0.0.1:5000:5000/tcp",
        "7000-7002:7000-7002/udp",
    ]
    assert "7000-7002/udp -> 0.0.0.0:7000-7002" in web("port web").lines
    assert web("unpublish web 5000").lines == ["127.0.0.1:5000:5000/tcp"]
    assert "does not publish" in web("unpublish web 5000", status=3).err


def test_from_limits_the_port_before_it(web: Shell) -> None:
    """Each --from belongs to one port, wherever else options stand."""
    web(
        "publish --json web 9001:1 --from 198.51.100.0/24 --from=203.0.113.7 9002:2"
        " 9003:3 --from 2001:db8::/32"
    )
    ports = {port["port"]: port["sources"] for port in web("port web --json").document["ports"]}

    assert ports[1] == ["198.51.100.0/24", "203.0.113.7/32"]
    assert ports[2] == []
    assert ports[3] == ["2001:db8::/32"]


def test_from_works_with_connect(shell: Shell) -> None:
    """In both forms of -p."""
    shell("create front")
    shell("sandbox create web")
    shell(
        "connect front web -p8080:80 --from 198.51.100.0/24 --publish=81:81 --from 203.0.113.0/24"
    )
    ports = {port["port"]: port["sources"] for port in shell("port web --json").document["ports"]}

    assert ports == {80: ["198.51.100.0/24"], 81: ["203.0.113.0/24"]}


@pytest.mark.parametrize("line", ["--from 192.0.2.0/24 web 80", "web 80 -q --from 192.0.2.0/24"])
def test_from_without_a_port(web: Shell, line: str) -> None:
    """It is not silently dropped."""
    assert web(f"publish {line}", status=2)


# -- dry runs -----------------------------------------------------------------------------------


def test_every_command_that_changes_something_can_be_tried() -> None:
    """--dry-run is everywhere but where it would be nonsense."""
    reading = {"ls", "inspect", "port", "ps", "check", "rules", "completion", "driver ls",
               "sandbox ls", "exec", "host status", "env", "graph", "daemon", "events",
               "cni conflist", "cluster status", "node ls", "node inspect", "dns query",
               "dns stats", "dns log", "lab ls", "lab run"}  # fmt: skip

    without = {
        name
        for name, command in leaves()
        if not any(parameter.name == "dry_run" for parameter in command.params)
    }
    assert without == reading


@pytest.mark.parametrize(
    ("line", "shows"),
    [
        ("create back", "ip link add nl-"),
        ("connect back web", "ip link add nv-"),
        ("disconnect front web", "ip link del nv-"),
        ("publish web 81:81", "nft add element"),
        ("unpublish web 80", "nft delete element"),
        ("update -o mtu=1400 front", "mtu 1400"),
        ("rm -f front", "ip link del nl-"),
        ("prune", "ip link del nl-"),
        ("repair", "nothing to do"),
        ("gc", "nothing to do"),
        ("sandbox create db", "ip netns add db"),
        ("sandbox rm web", "ip netns delete web"),
        ("run --network front -- true", "ip link add nv-"),
    ],
)
def test_dry_run_prints_commands_and_changes_nothing(web: Shell, line: str, shows: str) -> None:
    """The plan as a script, and the state as it was."""
    if "back" not in line or "connect" in line:
        web("create back")
    before = web("ps --json").out + web("ls --json").out

    command, _, rest = line.partition(" ")
    first, _, others = rest.partition(" ")
    words = f"sandbox {first} --dry-run {others}" if command == "sandbox" else (
        f"{command} --dry-run {rest}"
    )  # fmt: skip
    assert shows in web(words).out
    assert web("ps --json").out + web("ls --json").out == before


def test_dry_run_refuses_what_would_be_refused(web: Shell) -> None:
    """A plan that could not be carried out is an error, not a plan."""
    web("create --dry-run front", status=4)
    web("rm --dry-run front", status=4)


# -- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        ("create -bad", 2, "usage"),
        ("create", 2, "usage"),
        ("nonsense", 2, "usage"),
        ("create b@d", 2, "invalid-name"),
        ("create --subnet 192.0.2.0/99 x", 2, "invalid-address"),
        ("create --subnet 192.0.2.0/24 --gateway 198.51.100.1 x", 2, "invalid-address"),
        ("create -o nonsense=1 x", 2, "invalid-option"),
        ("create -o mtu=huge x", 2, "invalid-option"),
        ("create -o mtu x", 2, "invalid-option"),
        ("create -d nonsense x", 3, "unknown-driver"),
        ("create --subnet 192.0.2.0/25 x", 4, "pool-overlap"),
        ("create front", 4, "name-taken"),
        ("rm nope", 3, "no-such-network"),
        ("rm front", 4, "in-use"),
        ("connect nope web", 3, "no-such-network"),
        ("connect front nobody", 3, "no-such-sandbox"),
        ("connect front web", 4, "already-connected"),
        ("connect small db", 5, "exhausted"),
        ("connect front db --ip 192.0.2.2", 4, "address-taken"),
        ("connect front db --ip 198.51.100.1", 2, "invalid-address"),
        ("connect front db --mac 01:00:5e:00:00:01", 2, "invalid-address"),
        ("connect front db --ifname a/b", 2, "invalid-name"),
        ("connect front db --ifname all", 2, "invalid-name"),
        ("create -o bridge.name=default back", 2, "invalid-name"),
        ("connect front db -p 8080:80", 4, "port-taken"),
        ("connect front db -p 99999:80", 2, "invalid-port"),
        ("publish web 8080:81", 4, "port-taken"),
        ("publish db 81:81", 3, "not-connected"),
        ("disconnect front db", 3, "not-connected"),
        ("sandbox create web", 4, "name-taken"),
        ("sandbox create host", 2, "invalid-name"),
        ("sandbox rm nobody", 3, "no-such-sandbox"),
        ("stop web", 2, "invalid-request"),
        ("stop nobody", 3, "no-such-sandbox"),
        ("exec nobody -- true", 3, "no-such-sandbox"),
        ("run --network nope -- true", 3, "no-such-network"),
        ("run --network container:web -p 80 -- true", 2, "invalid-request"),
        ("run --name b@d -- true", 2, "invalid-name"),
        ("run --dns nonsense -- true", 2, "invalid-address"),
        ("run --add-host db -- true", 2, "invalid-request"),
        ("run --network front:ip -- true", 2, "invalid-option"),
        ("run --hostname -x- -- true", 2, "invalid-name"),
        ("run", 2, "usage"),
        ("inspect --firewall ipfw front", 2, "usage"),
    ],
)
def test_errors_have_a_status_a_code_and_a_hint(
    web: Shell, line: str, status: int, code: str
) -> None:
    """What happened in one line, what to do in the next, and a status that scripts can use."""
    web("sandbox create db")
    web("sandbox create small-member")
    web("create --subnet 198.51.100.0/30 small")
    web("connect small small-member")

    said = web(line, status=status)
    error, hint = said.err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert not said.out

    document = web(f"--json {line}", status=status).document
    assert document["version"] == 1
    assert document["error"]["code"] == code
    assert document["error"]["message"]
    assert document["error"]["hint"]


@pytest.mark.parametrize("line", ["", "sandbox", "driver"])
def test_nothing_more_typed(shell: Shell, line: str) -> None:
    """The help, on stderr and with the status of wrong usage: scripts notice."""
    said = shell(line, status=2)

    assert said.err.startswith("Usage: net")
    assert "error:" not in said.err
    assert said.out == ""


def test_usage_errors_name_the_commands_help(shell: Shell) -> None:
    """Wherever the parser found the fault."""
    for line in ("create --subnet", "create", "create --nonsense x"):
        assert "see: net create --help" in shell(line, status=2).err


def test_what_dockers_hands_type_leads_on(shell: Shell) -> None:
    """`docker network` is all of `net`; a format is JSON."""
    assert "'network': leave the word out" in shell("network ls", status=2).err
    assert "--json" in shell("ls --format json", status=2).err
    for option, key in (("--link db:sql", "link"), ("--ip 192.0.2.2", "ip")):
        said = shell(f"run {option} -- true", status=2).err
        assert f"--network bridge:{key}=" in said


def test_what_is_missing_is_one_line(shell: Shell) -> None:
    """Choices, too."""
    (message, _hint) = shell("host forwarding", status=2).err.splitlines()
    assert message == "error: Missing argument 'on|off'. Choose from: on, off"


def test_a_wrong_command_suggests_the_right_one(shell: Shell) -> None:
    """Typing errors happen."""
    assert "Did you mean connect?" in shell("conect front web", status=2).err


def test_common_options_stand_anywhere(web: Shell) -> None:
    """Before or after the command's name."""
    assert web("--json ls").document == web("ls --json").document
    assert web("--json sandbox ls").document == web("sandbox --json ls").document


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotPermitted("no", "be root"), 6),
        (StoreError("no", "mend it"), 7),
        (KernelError("no", "mend it"), 1),
    ],
)
def test_statuses_of_a_failing_host(
    shell: Shell, kernel: FakeKernel, error: Exception, status: int
) -> None:
    """What the kernel refuses comes out with its own status, and leaves nothing behind."""
    kernel.failing = lambda _: error  # type: ignore[assignment, return-value]

    shell("create front", status=status)
    kernel.failing = None
    assert shell("ls -q -f type=custom").lines == [] or status == 7


def test_no_traceback_without_debug(
    shell: Shell, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours is told in two lines; --debug shows where it is."""
    monkeypatch.setattr(Net, "listing", lambda *_: 1 / 0)

    assert shell("ls", status=1).err.splitlines() == [
        "error: ZeroDivisionError: division by zero",
        "hint: run it again with --debug, and report what it shows",
    ]
    assert "Traceback" in shell("ls --debug", status=1).err
    assert shell("ls --json", status=1).document["error"]["code"] == "unforeseen"


def test_interrupt_has_the_status_of_shells(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """128 + SIGINT, and no word."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Net, "listing", interrupted)
    said = shell("ls", status=130)
    assert "error" not in said.err


# -- health -------------------------------------------------------------------------------------


def test_check_finds_what_is_missing_and_repair_mends_it(web: Shell, kernel: FakeKernel) -> None:
    """Exit status 1 with the commands that would mend it, 0 when there is nothing to say."""
    assert web("check").out == ""
    kernel.flush_firewall()

    said = web("check", status=1)
    assert "network front" in said.lines
    assert "nft " in said.out
    document = web("check --json front", status=1).document
    assert document["findings"][0]["subject"] == "network front"
    assert "nft " in "".join(document["findings"][0]["script"])
    assert web("repair").lines[0] == "mended  network front"
    web("check")


def test_rules_say_why_and_what_is_missing(web: Shell, kernel: FakeKernel) -> None:
    """Every fact with its reason; one that the kernel lost is named."""
    assert any("web publishes it on front" in line for line in web("rules").lines)
    kernel.flush_firewall()

    (lost,) = [line for line in web("rules front").lines if "publish *:8080" in line]
    assert "*:8080/tcp -> 192.0.2.2:80" in lost
    assert "missing" in lost
    facts = web("rules front --json").document["facts"]
    assert {fact["presence"] for fact in facts if not fact["fact"].startswith("relay")} == {
        "missing"
    }
    assert {fact["sandbox"] for fact in facts} == {None, "web"}


# -- the host -----------------------------------------------------------------------------------


def test_forwarding_is_switched_back_only_by_who_switched_it_on(
    shell: Shell, kernel: FakeKernel
) -> None:
    """On is kept for the next boot; off asks for --force where others did it or need it."""
    assert shell("host forwarding on --ipv6").lines == [
        "IPv4 forwarding is on",
        "IPv6 forwarding is on",
    ]
    assert kernel.switched.after_boot == (4, 6)
    assert "IPv4 forwarding  on (by net host at" in shell("host status").out
    shell("create front")
    assert "needed by front" in shell("host forwarding off", status=4).err
    with pytest.warns(NetWarning, match="needed by front"):
        shell("host forwarding off --force")
    shell("host forwarding on --ipv6")
    shell("rm front")
    assert shell("host forwarding off --ipv6").lines[0] == "IPv4 forwarding is off"
    assert kernel.switched.after_boot == ()

    kernel.switched.set_forwarding(4, on=True)
    assert "not by netlib" in shell("host").out
    assert shell("host forwarding off --json", status=4).document["error"]["code"] == "not-ours"
    assert shell("host forwarding off --force").lines == ["IPv4 forwarding is off"]
    assert shell("host forwarding off").lines == []


def test_forwarding_that_a_network_switched_on(shell: Shell) -> None:
    """The status names it, and `off` may take it back when the network is gone."""
    shell("create front")
    (v4, v6) = shell("host status --json").document["host"]["forwarding"]
    assert (v4["on"], v4["network"], v4["users"]) == (True, "front", ["front"])
    assert not v6["on"]

    shell("rm front")
    assert shell("host forwarding off").lines == ["IPv4 forwarding is off"]


def test_forward_policy_goes_back_to_what_it_was(shell: Shell, kernel: FakeKernel) -> None:
    """However often it was changed meanwhile."""
    before = dict(kernel.switched.chains)

    assert shell("host forward-policy accept").lines == ["ip6tables-nft: FORWARD accept"]
    shell("host forward-policy drop")
    assert set(kernel.switched.chains.values()) == {"drop"}
    assert "was accept" in shell("host").out
    shell("host forward-policy leave")
    assert kernel.switched.chains == before
    assert shell("host forward-policy leave").lines == []


@pytest.mark.parametrize("what", ["forwarding on", "forwarding off --force", "forward-policy drop"])
def test_nothing_else_changes_while_the_host_is_switched(
    kernel: FakeKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A network that needs forwarding and is made meanwhile would be left without it."""
    seen: list[bool] = []

    def look(*_: object, **__: object) -> None:
        with (tmp_path / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                seen.append(True)
            else:
                seen.append(False)

    for name in ("set_forwarding", "keep", "set_policies"):
        monkeypatch.setattr(kernel.switched, name, look)
    with Net(tmp_path, kernel=kernel) as net:
        Shell(net)("create front")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NetWarning)
            Shell(net)(f"host {what}")
    assert seen
    assert all(seen)


def test_host_dry_runs(shell: Shell, kernel: FakeKernel) -> None:
    """The commands that would be run, and nothing else."""
    said = shell("host forwarding on --dry-run --ipv6")
    assert said.lines == [
        "host  sysctl -w net.ipv4.ip_forward=1",
        "host  sysctl -w net.ipv6.conf.all.forwarding=1",
        "host  echo 'net.ipv4.ip_forward = 1' >>/etc/sysctl.d/60-netlib.conf",
        "host  echo 'net.ipv6.conf.all.forwarding = 1' >>/etc/sysctl.d/60-netlib.conf",
    ]
    assert kernel.switched.forwarding() == ()
    shell("host forwarding on --ipv6")
    assert shell("host forwarding off --dry-run").lines == [
        "host  sysctl -w net.ipv4.ip_forward=0",
        "host  sed -i '/^net.ipv4.ip_forward /d' /etc/sysctl.d/60-netlib.conf",
    ]
    assert shell("host forwarding off --dry-run --ipv6").lines[2:] == [
        "host  rm /etc/sysctl.d/60-netlib.conf"
    ]
    assert shell("host forward-policy accept --dry-run").lines == [
        "host  ip6tables-nft -P FORWARD ACCEPT"
    ]


def test_host_status_names_what_is_in_the_way(shell: Shell, kernel: FakeKernel) -> None:
    """With the rule that would let us pass, and who may run it."""
    kernel.switched.in_the_way.append(
        Obstacle(where="nft table inet filter chain forward", hook="forward",
                 why="its policy is drop", rules=("nft insert rule ...",), ours_to_set=False)
    )  # fmt: skip

    assert "in the way: nft table inet filter chain forward" in shell("host").out
    assert "its owner may run: nft insert rule" in shell("host").out


def test_a_port_at_an_address_that_is_not_there_is_warned_of(web: Shell) -> None:
    """It may come, as that of a failover does; or it was typed wrong."""
    with pytest.warns(NetWarning, match="no address 203.0.113.9: .* reached when it has"):
        web("publish web 203.0.113.9:8081:81")
    web("sandbox create db")
    with pytest.warns(NetWarning, match="no address 203.0.113.9"):
        web("connect front db -p 203.0.113.9:8082:81 -p 127.0.0.1:8083:81")


CHANGES = [
    "create back", "update front --label a=b", "connect front db", "disconnect front web",
    "publish web 8081:81", "unpublish web 8080:80", "rm front",
]  # fmt: skip


@pytest.mark.parametrize("line", CHANGES)
def test_rules_of_another_firewall_are_not_left_to_nobody(
    web: Shell, kernel: FakeKernel, line: str
) -> None:
    """With none every change is refused while there are any; looking goes on."""
    web("sandbox create db")
    kernel.firewall = "none"
    kernel.switched.other_firewalls = {"iptables-nft": ("iptables-nft-save | ...",)}
    before = web("inspect front").out
    assert web.net is not None
    again = Shell(Net(web.net.state_dir, store=web.net.engine.state.store, kernel=kernel))

    refusal = again(f"{line} --json", status=4).document["error"]

    assert refusal["code"] == "another-firewall"
    assert "net --firewall none repair" in refusal["hint"]
    assert again(f"{line} --dry-run", status=4).out == ""
    assert again("inspect front").out == before
    assert "rules of netlib's are in iptables-nft" in again("host").out
    assert "iptables-nft" in again("check", status=1).out
    assert again("repair --dry-run").lines == ["host  iptables-nft-save | ..."]


def test_rules_move_while_nobody_else_is_at_them(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two commands at once would both make what is not there yet."""
    held: list[bool] = []
    do = kernel.do

    def watched(stage: Stage) -> None:
        if kernel.switched.other_firewalls:
            with open(tmp_path / "lock", "rb") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    held.append(True)
        do(stage)

    monkeypatch.setattr(kernel, "do", watched)
    kernel.switched.other_firewalls = {"iptables-nft": ()}
    with Net(tmp_path, kernel=kernel) as net:
        Shell(net)("create front")

    assert held == [True]
    assert not kernel.switched.other_firewalls


def test_handing_over_names_the_networks_that_are_open(web: Shell, kernel: FakeKernel) -> None:
    """And the way back."""
    kernel.firewall = "none"
    kernel.switched.other_firewalls = {"nftables": ("nft ...",)}

    with pytest.warns(NetWarning, match="from front, .*net --firewall auto repair"):
        web("repair")

    assert "none; netlib filters nothing" in web("host").out


# -- help, completion, colours ------------------------------------------------------------------


def leaves(group: object = program, path: str = "") -> Iterator[tuple[str, object]]:
    import click

    assert isinstance(group, click.Group)
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def test_help_of_the_catalogue_is_that_of_the_commands() -> None:
    """`net --help` loads no command, so its words are kept twice: they must be the same."""
    import click

    context = click.Context(program)
    for name, entry in COMMANDS.items():
        command = program.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str() == entry.help


def test_help_lists_commands_under_headings(shell: Shell) -> None:
    """A new user sees what there is, grouped."""
    text = shell("--help").out

    for entry in COMMANDS.values():
        assert f"\n{entry.heading}:\n" in text
        assert entry.help in text


@pytest.mark.parametrize("name", sorted(name for name, _ in leaves()))
def test_help_of_every_command_has_an_example(shell: Shell, name: str) -> None:
    """The fastest way to learn a command."""
    text = shell(f"{name} --help").out

    assert f"  net {name}" in text[text.index("Example") :]


@pytest.mark.parametrize("name", ["", *sorted(name for name, _ in leaves() if name != "run")])
def test_h_is_help(shell: Shell, name: str) -> None:
    """For hands that know it from Docker."""
    assert shell(f"{name} -h").out == shell(f"{name} --help").out


def test_h_of_run_is_the_hostname(web: Shell) -> None:
    """As Docker's: without a value it is wrong usage, and the hint leads to the help."""
    assert "net run --help" in web("run -h", status=2).err
    assert "-h, --hostname NAME" in web("run --help").out


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_completion_code(shell: Shell, kind: str) -> None:
    """What a shell sources."""
    assert "_NET_COMPLETE" in shell(f"completion {kind}").out


def test_completion_offers_names(web: Shell) -> None:
    """Networks where a network is to be typed."""
    from click.shell_completion import ShellComplete

    from netlib.frontends.cli.session import Session

    complete = ShellComplete(program, {"obj": Session(given=web.net)}, "net", "_NET_COMPLETE")

    assert [item.value for item in complete.get_completions(["rm"], "fr")] == ["front"]
    assert [item.value for item in complete.get_completions(["connect", "front"], "")] == ["web"]
    assert "connect" in [item.value for item in complete.get_completions([], "con")]
    assert web.net is not None
    node = Node(id="a0" * 32, name="host-1", address=ip_address("192.0.2.1"),
                data_address=ip_address("192.0.2.1"))  # fmt: skip
    web.net.engine.state.store.commit(Commit(put={f"node/{node.id}": dump(node)}))
    assert [i.value for i in complete.get_completions(["node", "rm"], "h")] == ["host-1"]


def test_columns_line_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is painted, empty or short; no blanks at the ends of lines."""
    from netlib.frontends.cli import output

    painted = "\x1b[31mended\x1b[0m"
    rows = [("a", painted, "x"), ("long name", "up", "")]

    assert output.table(("N", "STATE", "P"), rows).splitlines() == [
        "N          STATE    P",
        f"a          {painted}    x",
        "long name  up",
    ]
    assert output.table(("N", "STATE"), []) == "N    STATE"


def test_colours_only_on_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe gets none, NO_COLOR and dumb terminals neither."""
    import io

    from netlib.frontends.cli.output import paint

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert paint("x", "red", io.StringIO()) == "x"
    assert paint("x", "red", Terminal()) != "x"
    monkeypatch.setenv("TERM", "dumb")
    assert paint("x", "red", Terminal()) == "x"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("x", "red", Terminal()) == "x"


# -- the process --------------------------------------------------------------------------------


def test_read_only_state(tmp_path: Path) -> None:
    """A state that can't be opened ends with status 7 or 6, and says where it is."""
    blocked = tmp_path / "file"
    blocked.write_text("")

    said = Shell()(f"--state-dir {blocked}/below create front", status=7)
    assert str(blocked) in said.err


def test_state_folder_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NETLIB_STATE_DIR moves the state, --state-dir wins over it."""
    monkeypatch.setenv("NETLIB_STATE_DIR", str(tmp_path / "environment"))

    assert Shell()("ls -q -f type=custom").lines == []
    assert os.listdir(tmp_path) == ["environment"]
    Shell()(f"ls --state-dir {tmp_path / 'option'}")
    assert sorted(os.listdir(tmp_path)) == ["environment", "option"]


def test_json_is_versioned(web: Shell) -> None:
    """Every document tells which schema it follows."""
    for line in ("ls", "ps", "inspect front", "port web", "rules", "check", "driver ls",
                 "sandbox ls", "gc", "repair", "prune", "completion bash"):  # fmt: skip
        assert json.loads(web(f"{line} --json").out)["version"] == 1


# -- links and warnings ---------------------------------------------------------------------------


def test_env_prints_what_a_link_tells(shell: Shell) -> None:
    """As lines that env(1) takes, or as an object."""
    shell("sandbox create -e USER=postgres db")
    shell("sandbox create web")
    shell("connect -o expose=5432 bridge db")
    shell("connect --link db:database bridge web")

    lines = shell("env web").lines
    assert "DATABASE_PORT_5432_TCP_PROTO=tcp" in lines
    assert "DATABASE_ENV_USER=postgres" in lines
    found = shell("env web --json").document["environment"]
    assert [f"{key}={value}" for key, value in found.items()] == lines
    assert shell("env db").out == ""
    assert "there is no sandbox" in shell("env nobody", status=3).err


def test_what_is_needless_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr; with --json in the document."""
    session = Session()
    session.warn("needless")
    assert "warning: needless" in capsys.readouterr().err
    session.json = True
    session.warn("needless")
    session.show({"endpoint": None})
    said = capsys.readouterr()
    assert json.loads(said.out)["warnings"] == ["needless"]
    assert not said.err


# -- boot and progress --------------------------------------------------------------------------


def test_boot_brings_networks_back(web: Shell, kernel: FakeKernel) -> None:
    """What the unit runs makes the networks again and gives up the sandboxes that are gone."""
    import netlib

    unit = Path(netlib.__file__).parent / "systemd" / "netlib-repair.service"
    commands = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    assert commands == ["contnet repair", "contnet gc"]
    kernel.reboot()

    for command in commands:
        web(command.removeprefix("contnet "))
    web("check")
    assert web("ps -q").lines == []
    assert web("ls -q -f name=front").lines


def test_progress_is_for_terminals(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long work tells how far it is, on one line that is wiped; never into a file."""
    import contextlib
    import io

    from netlib.frontends.cli.session import Session

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for terminal, expected in ((Terminal(), True), (io.StringIO(), False)):
        with contextlib.redirect_stderr(terminal), Session().progress("removing") as progress:
            progress("front", 0, 2)
            progress("back", 1, 2)
        text = terminal.getvalue()
        assert ("removing 2/2: back" in text) == expected
        assert text.endswith("\r\x1b[K") == expected
    quiet = Terminal()
    with contextlib.redirect_stderr(quiet), Session(json=True).progress("removing") as progress:
        progress("front", 0, 2)
    assert quiet.getvalue() == ""
