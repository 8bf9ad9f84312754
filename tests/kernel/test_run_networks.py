"""Commands on the networks that are always there, and on the network of another sandbox."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from support.host import HOST4, Host, Place
from support.patience import eventually
from support.program import Program
from support.verbs import facts

from netlib.net import Net

pytestmark = pytest.mark.kernel


@pytest.fixture
def net(host: Host) -> Program:
    return Program(host)


def answers(outsider: Place) -> bool:
    """Whether a connection to the host's port 8080 is answered from outside."""

    def connect() -> bool:
        with socket.create_connection((HOST4, 8080), timeout=0.5) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return client.recv(5) == b"HTTP/"

    try:
        return outsider.call(connect)
    except OSError:
        return False


def test_without_a_network_it_is_on_the_default_one(net: Program) -> None:
    """On net0, with a way out and without names."""
    said = net("run -- sh -c 'ip -br addr show eth0; ip route; cat /etc/resolv.conf'").stdout

    assert "172.28.0.2/24" in said
    assert "default via 172.28.0.1" in said
    assert "127.0.0.11" not in said
    assert "net0" in net.host.run("ip", "-br", "link").stdout
    assert net("ls").stdout.splitlines()[1].split()[1:] == ["bridge", "bridge", "local"]


def test_on_host_a_command_has_the_hosts_network_and_names(net: Program) -> None:
    """Its namespace is the host's; publishing is a warning."""
    said = net("run --network host -p 8080:80 -- sh -c 'readlink /proc/self/ns/net; hostname'")

    assert said.stdout.split() == [f"net:[{net.host.netns.inode}]", os.uname().nodename]
    assert "warning: nothing is published on host" in said.stderr
    with Net(net.host.state_dir) as library:
        assert library.sandboxes() == ()
    assert not net.host.leftovers()


def test_in_the_background_warnings_are_told_as_well(net: Program) -> None:
    """To who asked, not to the log."""
    said = net("run -d --name door --network host -p 8080:80 -- sleep 1000")

    assert "warning: nothing is published on host" in said.stderr
    assert net.ask("run -d --network host -p 8080:80 -- sleep 1000")["warnings"]
    assert len(net("stop door").stdout.split()) == 1


def test_host_is_joined_alone(net: Program) -> None:
    """A command is on the host, or it has a network of its own."""
    net("create front")
    assert "no other" in net("run --network host --network front -- true", status=2).stderr


def test_a_sidecar_shares_all_of_a_stack(net: Program) -> None:
    """Addresses, ports and names of the other; it comes and goes without a trace there."""
    outsider = net.host.outsider()
    net("create front --subnet 198.51.100.0/24")
    net("run -d --name web --network front -p 8080:80 -- sleep 60")
    net("run -d --name sidecar --network container:web -- busybox httpd -f -p 80 -h /etc")
    inside = net("run --network container:web -- sh -c 'hostname; cat /etc/hosts'").stdout
    assert inside.startswith("web\n")
    assert "198.51.100.2\tweb" in inside
    assert eventually(lambda: answers(outsider), timeout=10)
    rows = net("ps").stdout
    assert rows.count("198.51.100.2") == 2
    net("stop sidecar")
    assert net("ps -q").stdout.split() == ["web"]
    net("check")
    net("stop web")
    assert "there is no sandbox" in net("run --network container:web -- true", status=3).stderr
    refused = net("run --network container:web --network front -- true", status=2).stderr
    assert "shared as it is" in refused


def test_a_sidecar_of_who_has_ended_is_not_in_the_stack_of_its_successor(net: Program) -> None:
    """Another of that name has a namespace of its own: what is done to one is not to the other."""
    net("create front --subnet 198.51.100.0/24")
    net("run -d --name web --network front -- sleep 60")
    net("run -d --name sidecar --network container:web -- sleep 60")
    net("stop web")
    net("connect front sidecar")
    assert "198.51.100.3" in net("ps").stdout
    net("disconnect front sidecar")
    net("run -d --name web --network front -- sleep 60")
    assert net("ps").stdout.count("198.51.100.") == 1
    assert "on no network" in net("publish sidecar 8080:80", status=3).stderr
    assert "not connected" in net("disconnect front sidecar", status=3).stderr
    assert net("run --network container:sidecar -- hostname").stdout.strip() != "web"


def test_a_link_gives_hosts_entries_and_variables(net: Program, host: Host) -> None:
    """As programs written for links expect, one way; the hosts entry follows the other one."""
    net("run -d --name db --network bridge:expose=5432 -e USER=postgres -- sleep 60")
    web = "run --network bridge:link=db:database --name web"
    said = net(f"{web} -- sh -c 'env; cat /etc/hosts'").stdout

    assert "DATABASE_PORT_5432_TCP=tcp://172.28.0.2:5432" in said
    assert "DATABASE_ENV_USER=postgres" in said
    assert "DATABASE_NAME=/web/database" in said
    assert "172.28.0.2\tdatabase" in said
    assert net("exec db -- env").stdout.count("WEB_") == 0
    net(f"{web} -d -- sleep 60")
    net("stop db")
    hosts = Path(host.state_dir, "sandboxes", "web", "hosts")
    assert "database" not in hosts.read_text()
    net("run -d --name db --network bridge -- sleep 60")
    assert "database" in hosts.read_text()
    net("stop web")
    net("stop db")
    net("check")


def test_the_environment_that_is_given_is_the_commands(net: Program) -> None:
    """Beside what it inherits."""
    assert net("run --network none -e A=1 -e B=x=y -- sh -c 'echo $A $B'").stdout == "1 x=y\n"


def test_a_variable_without_a_value_has_the_callers(
    net: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Docker has it: links tell of it, too; one that the caller lacks is nobody's."""
    monkeypatch.setenv("PASSWORD", "x=y")
    net("run -d --name db --network bridge -e PASSWORD -e NOTHING -- sleep 60")
    net("run -d --name web --network bridge:link=db -- sleep 60")

    told = net("env web").stdout

    assert "DB_ENV_PASSWORD=x=y\n" in told
    assert "NOTHING" not in told
    net("stop web db")


def test_the_default_network_serves_a_published_port(net: Program) -> None:
    """Named or not."""
    outsider = net.host.outsider()
    net("run -d --name web -p 8080:80 -- busybox httpd -f -p 80 -h /etc")
    assert eventually(lambda: answers(outsider), timeout=10)
    net("stop web")


def test_a_dry_run_on_several_networks_is_what_would_be_done(net: Program) -> None:
    """Each network is planned after the one before: one default route, a port once."""
    net("create front --subnet 198.51.100.0/25")
    net("create back --subnet 198.51.100.128/25")
    command = "run --network front --network back:gw-priority=5 -p 8080:80"
    before = facts(net.host)
    shown = net(f"{command} --name box --dry-run -- true").stdout
    assert facts(net.host) == before
    assert net.ask("ps")["sandboxes"] == []
    routes = [line for line in shown.splitlines() if " default " in line]
    assert [line.split()[3:5] for line in routes] == [
        ["add", "default"],  # of the first network, which the second one takes over
        ["replace", "default"],
    ]
    assert "via 198.51.100.129" in routes[-1]
    assert shown.count("tcp . 8080 :") == 1
    done = net(f"{command} -- ip route show default").stdout
    assert "via 198.51.100.129" in done
    assert len(done.splitlines()) == 1
