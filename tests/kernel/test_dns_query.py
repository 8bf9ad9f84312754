"""What `net dns query` asks on behalf of a sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from dnslib import QTYPE, RD, RR, DNSRecord
from support.host import Host, Place
from support.resolving import DB4, GATEWAY4, GATEWAY6, MY_NET, WEB6, Running, build
from support.upstream import upstream

from netlib.dns.ask import AnswerRecord, query
from netlib.dns.facts import Update
from netlib.errors import InvalidName, InvalidOption, NamespaceGone, NoAnswer

pytestmark = pytest.mark.kernel


@pytest.fixture
def web(host: Host) -> Iterator[Place]:
    """A sandbox on a network with a resolver."""
    web, _ = build(host)
    running = Running()
    many = tuple(f"many TXT {'x' * 200} {n}" for n in range(20))
    running.update(Update(revision=2, networks=(replace(MY_NET, records=many),)))
    yield web
    running.close()


def test_a_sandbox_is_asked_for(web: Place) -> None:
    """From inside its namespace, so the resolver answers what it would be told."""
    told = query("db", servers=[GATEWAY4], path=web.netns.path, inode=web.netns.inode)

    assert (told.code, told.server, told.authoritative) == ("NOERROR", GATEWAY4, True)
    assert told.answers == (AnswerRecord(name="db.", ttl=0, type="A", data=DB4),)
    assert told.milliseconds < 5000


def test_the_first_server_that_answers_is_believed(web: Place) -> None:
    """As a stub goes on to the next one."""
    told = query("web", "aaaa", servers=["nonsense", "127.0.0.1", GATEWAY6], path=web.netns.path)

    assert told.server == GATEWAY6
    assert [record.data for record in told.answers] == [WEB6]


@pytest.mark.parametrize(("address", "name"), [(DB4, "db.my-net."), (WEB6, "web.my-net.")])
def test_an_address_is_asked_for_its_name(web: Place, address: str, name: str) -> None:
    """By its reverse name, which nobody likes to write."""
    for type_ in ("", "ptr"):
        told = query(address, type_, servers=[GATEWAY4], path=web.netns.path)
        assert (told.type, [record.data for record in told.answers]) == ("PTR", [name])


def test_a_long_answer_comes_over_tcp(web: Place) -> None:
    """Nothing is missing."""
    told = query("many", "TXT", servers=[GATEWAY4], path=web.netns.path)
    assert len(told.answers) == 20


@pytest.mark.parametrize("type_", ["TYPE65280", "65280", "HTTPS"])
def test_any_type_can_be_asked_for(web: Place, type_: str) -> None:
    """Also by number."""
    assert query("db", type_, servers=[GATEWAY4], path=web.netns.path).code == "NOERROR"


def test_data_of_another_form_than_its_types_is_shown_as_it_is(host: Host) -> None:
    """Whoever answers may have written anything, and the rest of the answer counts all the same."""
    server = host.outsider()

    def behave(asked: DNSRecord, tcp: bool) -> list[bytes]:
        reply = asked.reply()
        reply.add_answer(*RR.fromZone("odd.example. 5 A 192.0.2.7"))
        odd = RR("odd.example", QTYPE.CAA, ttl=5, rdata=RD(b"\x00\x05\xff\xff\xff\xff\xff"))
        short = RR("odd.example", QTYPE.A, ttl=5, rdata=RD(b"\xc0\x00"))
        for record in (odd, short):
            reply.add_answer(record)
        return [bytes(reply.pack())]

    with upstream(server, "192.0.2.100", behave):
        told = query("odd.example", "ANY", servers=["192.0.2.100"])
    assert [(record.type, record.data) for record in told.answers] == [
        ("A", "192.0.2.7"),
        ("CAA", r"\# 7 0005ffffffffff"),
        ("A", r"\# 2 c000"),
    ]


def test_errors_say_what_is_wrong(web: Place) -> None:
    """A name that is none, a type that is none, a namespace that is gone, nobody there."""
    for name in ("a" * 64, "", "a..b", ".".join(["a" * 60] * 5)):
        with pytest.raises(InvalidName, match="no name that can be asked for"):
            query(name, servers=[GATEWAY4])
    for type_ in ("WHAT", "TYPE65536", "TYPE²"):
        with pytest.raises(InvalidOption, match=type_):
            query("db", type_, servers=[GATEWAY4])
    with pytest.raises(NamespaceGone):
        query("db", servers=[GATEWAY4], path="/run/netns/nosuch")
    with pytest.raises(NoAnswer, match=r"127\.0\.0\.1"):
        query("db", servers=["127.0.0.1"], path=web.netns.path)
    with pytest.raises(NoAnswer, match="no name server"):
        query("db", servers=[])
