"""Links tell what Docker's legacy links tell."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest

from netlib.errors import InvalidPort
from netlib.links import Link, environment, exposed, hosts, openings
from netlib.model import Endpoint, Netns, PublishedPort, Sandbox
from netlib.wiring import Allow, Forward, Wiring

DB = Endpoint(
    id="d" * 64,
    network="n" * 64,
    sandbox=Sandbox(name="db", netns=Netns(name="db")),
    ifname="eth0",
    mac="02:00:5e:00:53:02",
    addresses=(ip_interface("198.51.100.3/24"), ip_interface("2001:db8:1::3/64")),
)
WEB = Endpoint(
    id="e" * 64,
    network="n" * 64,
    sandbox=Sandbox(name="web", netns=Netns(name="web")),
    ifname="eth0",
    mac="02:00:5e:00:53:01",
    addresses=(ip_interface("198.51.100.2/24"),),
)


def link(expose: str = "", alias: str = "database", **env: str) -> Link:
    """A link from web to db."""
    from dataclasses import replace

    target = replace(DB, options={"expose": expose})
    return Link(sandbox="web", alias=alias, target=target, environment=env)


def test_a_port_is_told_of_in_parts_and_as_a_whole() -> None:
    """The variables that programs written for links read."""
    assert environment(link("80")) == {
        "DATABASE_PORT": "tcp://198.51.100.3:80",
        "DATABASE_PORT_80_TCP": "tcp://198.51.100.3:80",
        "DATABASE_PORT_80_TCP_ADDR": "198.51.100.3",
        "DATABASE_PORT_80_TCP_PORT": "80",
        "DATABASE_PORT_80_TCP_PROTO": "tcp",
        "DATABASE_NAME": "/web/database",
    }


def test_a_range_has_its_ends_besides_each_port() -> None:
    """Only neighbours of one protocol are a range, and TCP comes first."""
    found = environment(link("53/udp,7000-7002,7004"))

    assert found["DATABASE_PORT"] == "tcp://198.51.100.3:7000"
    assert found["DATABASE_PORT_7000_TCP_START"] == "tcp://198.51.100.3:7000"
    assert found["DATABASE_PORT_7000_TCP_PORT_START"] == "7000"
    assert found["DATABASE_PORT_7000_TCP_END"] == "tcp://198.51.100.3:7002"
    assert found["DATABASE_PORT_7000_TCP_PORT_END"] == "7002"
    assert found["DATABASE_PORT_7001_TCP_ADDR"] == "198.51.100.3"
    assert found["DATABASE_PORT_53_UDP"] == "udp://198.51.100.3:53"
    assert [name for name in found if name.endswith("_START")] == [
        "DATABASE_PORT_7000_TCP_START", "DATABASE_PORT_7000_TCP_PORT_START",
    ]  # fmt: skip


def test_dashes_of_an_alias_become_underscores_in_variables_only() -> None:
    """As shells need it."""
    assert environment(link(alias="my-db.local")) == {"MY_DB.LOCAL_NAME": "/web/my-db.local"}
    assert hosts([link(alias="my-db")])[0] == ("198.51.100.3", "my-db")


def test_the_others_environment_is_told_but_for_what_is_everybodys() -> None:
    """HOME and PATH are not."""
    assert environment(link(HOME="/root", PATH="/bin", PASSWORD="x")) == {
        "DATABASE_NAME": "/web/database",
        "DATABASE_ENV_PASSWORD": "x",
    }


def test_hosts_know_the_alias_and_the_name_at_every_address() -> None:
    """In both families."""
    assert hosts([link()]) == [
        ("198.51.100.3", "database"),
        ("198.51.100.3", "db"),
        ("2001:db8:1::3", "database"),
        ("2001:db8:1::3", "db"),
    ]


def test_published_ports_are_exposed() -> None:
    """By the number that they have inside."""
    from dataclasses import replace

    published = PublishedPort(host_port=8080, port=80, count=2)
    assert exposed(replace(DB, ports=(published,))) == [("tcp", 80), ("tcp", 81)]
    with pytest.raises(InvalidPort):
        exposed(replace(DB, options={"expose": "http"}))


def test_a_link_opens_just_the_linked_ports_and_only_where_members_may_not_talk() -> None:
    """From the one address to the other."""
    closed = Wiring([Forward(bridge="net0", within="published")])
    opened = list(openings(closed, WEB, [link("80-81,53/udp")]))

    ends = {"source": ip_address("198.51.100.2"), "target": ip_address("198.51.100.3")}
    assert opened == [
        Allow(**ends, protocol="tcp", port=80, count=2),
        Allow(**ends, protocol="udp", port=53),
    ]
    assert not list(openings(Wiring([Forward(bridge="net0")]), WEB, [link("80")]))
