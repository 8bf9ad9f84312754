"""What is not known here is asked of others, with real packets."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from dnslib import EDNS0, RR, DNSRecord
from support.host import OUTSIDER4, OUTSIDER6, Host, Place
from support.names import query, rcode, values
from support.patience import eventually
from support.resolving import DB, GATEWAY4, GATEWAY6, MY_NET, WEB, Running, ask, ask_tcp, build
from support.upstream import Upstream, echo, records, silence, upstream

from netlib.dns import forward
from netlib.dns.facts import Update
from netlib.dns.upstream import NEXT_SECONDS, PATIENCE_SECONDS

pytestmark = pytest.mark.kernel


@pytest.fixture
def outside(host: Host) -> Place:
    """Where the name servers are."""
    return host.outsider()


@pytest.fixture
def boxes(host: Host, outside: Place) -> tuple[Place, Place]:
    """The sandboxes web and db."""
    return build(host)


@pytest.fixture
def web(boxes: tuple[Place, Place]) -> Place:
    """The sandbox that asks."""
    return boxes[0]


@pytest.fixture
def db(boxes: tuple[Place, Place]) -> Place:
    """Another one."""
    return boxes[1]


@pytest.fixture
def running(web: Place, tmp_path: Path) -> Iterator[Running]:
    """The resolver."""
    running = Running(tmp_path / "resolv.conf")
    yield running
    running.close()


def use(running: Running, *servers: str) -> None:
    """Let the network ask these servers."""
    running.update(Update(revision=2, networks=(replace(MY_NET, servers=servers),)))


@pytest.mark.parametrize("gateway", [GATEWAY4, GATEWAY6])
def test_an_unknown_name_is_asked_of_the_networks_server(
    running: Running, web: Place, outside: Place, gateway: str
) -> None:
    """The answer comes back with the client's id and case, not authoritative."""
    with upstream(outside, OUTSIDER4, echo()) as server:
        answer = ask(web, query("WWW.Example.Com", ident=7), gateway)

    assert answer is not None
    assert values(answer) == ["203.0.113.7"]
    reply = DNSRecord.parse(answer)
    assert (reply.header.id, str(reply.q.qname)) == (7, "WWW.Example.Com.")
    assert (reply.header.aa, reply.header.ra, reply.header.rd) == (0, 1, 1)
    assert server.asked == [("WWW.Example.Com.", False)]


def test_what_was_answered_is_kept(running: Running, web: Place, outside: Place) -> None:
    """Also that a name does not exist, by its SOA; and for a client that writes it otherwise."""
    soa = RR.fromZone("example.com. 60 IN SOA ns.example.com. me.example.com. 1 2 3 4 60")

    def nothing(asked: DNSRecord, tcp: bool) -> list[bytes]:
        reply = asked.reply()
        reply.header.rcode = 3
        reply.add_auth(*soa)
        return [bytes(reply.pack())]

    with upstream(outside, OUTSIDER4, nothing) as server:
        codes = [rcode(ask(web, query(name))) for name in ("a.example.com", "A.EXAMPLE.com")]
        assert codes == ["NXDOMAIN", "NXDOMAIN"]
        assert len(server.asked) == 1
        server.behaviour = echo()
        assert [values(ask(web, query("b.example.com"))) for _ in range(3)] == [["203.0.113.7"]] * 3
        assert len(server.asked) == 2


def test_equal_questions_in_flight_are_asked_once(
    running: Running, web: Place, outside: Place
) -> None:
    """Each client gets the one answer."""

    def slow(asked: DNSRecord, tcp: bool) -> list[bytes]:
        time.sleep(0.2)
        return echo()(asked, tcp)

    with upstream(outside, OUTSIDER4, slow) as server:
        answers = ask_tcp(web, *(query("www.example.com", ident=n) for n in range(5)))

    assert [values(answer) for answer in answers] == [["203.0.113.7"]] * 5
    assert sorted(answer[1] for answer in answers) == [0, 1, 2, 3, 4]
    assert len(server.asked) == 1


@pytest.mark.parametrize("code", [2, 5, 4], ids=["SERVFAIL", "REFUSED", "NOTIMP"])
def test_a_server_that_will_not_answer_is_passed_over(
    running: Running, web: Place, host: Host, outside: Place, code: int
) -> None:
    """The next one is asked at once; when all say so, the client is told."""
    use(running, f"{OUTSIDER4}#5301", f"{OUTSIDER4}#5302")
    with (
        upstream(outside, OUTSIDER4, records(code=code), 5301) as first,
        upstream(outside, OUTSIDER4, echo(), 5302) as second,
    ):
        began = time.monotonic()
        assert values(ask(web, query("www.example.com"))) == ["203.0.113.7"]
        assert time.monotonic() - began < 1
        second.behaviour = records(code=code)
        expected = {2: "SERVFAIL", 5: "REFUSED", 4: "NOTIMP"}[code]
        assert rcode(ask(web, query("other.example.com"))) == expected
        assert len(first.asked) == len(second.asked) == 2


def test_a_name_that_does_not_exist_is_not_asked_for_again(
    running: Running, web: Place, outside: Place
) -> None:
    """NXDOMAIN is an answer: the next server is for those that fail."""
    use(running, f"{OUTSIDER4}#5301", f"{OUTSIDER4}#5302")
    with (
        upstream(outside, OUTSIDER4, records(code=3), 5301),
        upstream(outside, OUTSIDER4, echo(), 5302) as second,
    ):
        assert rcode(ask(web, query("www.example.com"))) == "NXDOMAIN"
        assert second.asked == []


@pytest.mark.parametrize(("name", "ttl"), [("later", 5), ("later.example.com", 900)])
def test_that_a_name_like_ours_is_missing_is_said_for_seconds(
    running: Running, web: Place, outside: Place, name: str, ttl: int
) -> None:
    """A stub that keeps answers would not ask again when there is such a sandbox."""

    def missing(asked: DNSRecord, tcp: bool) -> list[bytes]:
        reply = asked.reply()
        reply.header.rcode = 3
        reply.add_auth(*RR.fromZone(". 900 IN SOA a.example. b.example. 1 2 3 4 900"))
        return [bytes(reply.pack())]

    with upstream(outside, OUTSIDER4, missing) as server:
        for kept in (False, True):
            answer = ask(web, query(name))
            assert rcode(answer) == "NXDOMAIN"
            assert answer is not None
            (soa,) = DNSRecord.parse(answer).auth
            assert ttl - 4 <= soa.ttl <= ttl, kept
        assert len(server.asked) == 1


def test_a_port_that_nobody_listens_at_costs_no_time(
    running: Running, web: Place, outside: Place
) -> None:
    """The ICMP error is heard."""
    use(running, f"{OUTSIDER4}#5301", f"{OUTSIDER4}#5302")
    with upstream(outside, OUTSIDER4, echo(), 5302):
        began = time.monotonic()
        assert values(ask(web, query("www.example.com"))) == ["203.0.113.7"]
        assert time.monotonic() - began < 1


@pytest.mark.slow
def test_a_silent_server_leaves_time_for_the_others(
    running: Running, web: Place, outside: Place
) -> None:
    """Three servers, the last answers: before a stub's five seconds are over."""
    use(running, *(f"{OUTSIDER4}#{port}" for port in (5301, 5302, 5303)))
    with (
        upstream(outside, OUTSIDER4, silence, 5301),
        upstream(outside, OUTSIDER4, silence, 5302),
        upstream(outside, OUTSIDER4, echo(), 5303),
    ):
        began = time.monotonic()
        assert values(ask(web, query("www.example.com"))) == ["203.0.113.7"]
        assert 1.9 < time.monotonic() - began < 4


@pytest.mark.slow
def test_a_dead_server_costs_its_time_once(running: Running, web: Place, outside: Place) -> None:
    """From then on the others are asked first; `stats` tells of it."""
    dead = f"{OUTSIDER4}#5301"
    use(running, dead, f"{OUTSIDER4}#5302")
    with (
        upstream(outside, OUTSIDER4, silence, 5301) as first,
        upstream(outside, OUTSIDER4, echo(), 5302) as second,
    ):
        assert values(ask(web, query("www.example.com"))) == ["203.0.113.7"]
        (silent,) = running.server.stats()["silent"]
        assert silent == {"server": dead, "sandbox": "", "times": 1}
        began = time.monotonic()
        for number in range(10):
            assert values(ask(web, query(f"{number}.example.com"))) == ["203.0.113.7"]
        assert time.monotonic() - began < NEXT_SECONDS
        assert len(second.asked) == 11
        assert [name for name, _ in first.asked] == ["www.example.com.", "0.example.com."]


@pytest.mark.slow
@pytest.mark.parametrize("listens", [True, False], ids=["silent", "unreachable"])
def test_a_server_that_is_back_is_asked_first_again(
    running: Running, web: Place, outside: Place, listens: bool
) -> None:
    """Nobody waits for the trial by which that is found out."""
    use(running, f"{OUTSIDER4}#5301", f"{OUTSIDER4}#5302")
    numbers = itertools.count()

    def fresh() -> list[str]:
        return values(ask(web, query(f"{next(numbers)}.example.com")))

    with upstream(outside, OUTSIDER4, echo("203.0.113.2"), 5302), contextlib.ExitStack() as late:
        if listens:
            first = late.enter_context(upstream(outside, OUTSIDER4, silence, 5301))
        assert fresh() == ["203.0.113.2"]
        if listens:
            first.behaviour = echo("203.0.113.1")
        else:
            late.enter_context(upstream(outside, OUTSIDER4, echo("203.0.113.1"), 5301))
        began = time.monotonic()
        assert fresh() == ["203.0.113.2"], "it is not known yet"
        assert eventually(lambda: fresh() == ["203.0.113.1"])
        assert time.monotonic() - began < NEXT_SECONDS
        assert running.server.stats()["silent"] == []


@pytest.mark.slow
@pytest.mark.parametrize("others", [(), (5302,)], ids=["alone", "with a dead one"])
def test_a_slow_server_loses_no_question(
    running: Running, web: Place, outside: Place, others: tuple[int, ...]
) -> None:
    """Its answer counts when the next one has been asked already."""
    use(running, *(f"{OUTSIDER4}#{port}" for port in (5301, *others)))

    def slow(asked: DNSRecord, tcp: bool) -> list[bytes]:
        time.sleep(NEXT_SECONDS + 0.3)
        return echo()(asked, tcp)

    with upstream(outside, OUTSIDER4, slow, 5301), upstream(outside, OUTSIDER4, silence, 5302):
        for name in ("a.example.com", "b.example.com"):
            assert values(ask(web, query(name))) == ["203.0.113.7"]


@pytest.mark.slow
def test_a_question_that_nobody_can_answer_moves_no_server(
    running: Running, web: Place, outside: Place
) -> None:
    """Who answers others meanwhile is there: one sandbox can't turn all away from it."""
    use(running, f"{OUTSIDER4}#5301", f"{OUTSIDER4}#5302")

    def choosy(asked: DNSRecord, tcp: bool) -> list[bytes]:
        return [] if str(asked.q.qname).startswith("lost.") else echo("203.0.113.1")(asked, tcp)

    with (
        upstream(outside, OUTSIDER4, choosy, 5301) as first,
        upstream(outside, OUTSIDER4, records(code=3), 5302),
    ):
        client = web.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with client:
            client.settimeout(5)
            client.connect((GATEWAY4, 53))
            client.send(query("lost.example.com"))
            eventually(lambda: len(first.asked) == 1)
            assert values(ask(web, query("a.example.com"))) == ["203.0.113.1"]
            assert rcode(client.recv(512)) == "NXDOMAIN"
        assert running.server.stats()["silent"] == []
        assert values(ask(web, query("b.example.com"))) == ["203.0.113.1"]


@pytest.mark.slow
def test_a_server_is_dead_for_the_sandbox_where_it_is(
    running: Running, web: Place, db: Place
) -> None:
    """One address is another server in each: what is silent in one may answer in the next."""
    own = ("127.0.0.1", "127.0.0.2")
    endpoints = tuple(replace(each, servers=own) for each in (WEB, DB))
    running.update(Update(revision=2, endpoints=endpoints))
    for place in (web, db):
        running.namespaces[place.name] = place.netns.path
    with (
        upstream(web, "127.0.0.1", silence),
        upstream(web, "127.0.0.2", echo("203.0.113.1")),
        upstream(db, "127.0.0.1", echo("203.0.113.2")),
    ):
        assert values(ask(web, query("www.example.com"))) == ["203.0.113.1"]
        (silent,) = running.server.stats()["silent"]
        assert (silent["server"], silent["sandbox"]) == ("127.0.0.1", "web")
        began = time.monotonic()
        assert values(ask(db, query("www.example.com"))) == ["203.0.113.2"]
        assert values(ask(web, query("a.example.com"))) == ["203.0.113.1"]
        assert time.monotonic() - began < NEXT_SECONDS


@pytest.mark.slow
def test_nobody_answers_in_time(running: Running, web: Place, outside: Place) -> None:
    """SERVFAIL comes before a stub gives up; local names are answered meanwhile."""
    with upstream(outside, OUTSIDER4, silence) as server:
        began = time.monotonic()
        local, failed = ask_tcp(web, query("www.example.com"), query("db"))
        assert values(local) == ["198.51.100.3"], "answers come as they are ready"
        assert rcode(failed) == "SERVFAIL"
        assert 4 < time.monotonic() - began < 5
        assert len(server.asked) == 2, "one server alone is asked twice"


def test_a_truncated_answer_is_asked_for_over_tcp(
    running: Running, web: Place, outside: Place
) -> None:
    """The whole is kept; the client is told to come over TCP too, if it can't take it."""
    many = [f"big.example.com. 60 IN A 203.0.113.{n}" for n in range(1, 101)]

    def behave(asked: DNSRecord, tcp: bool) -> list[bytes]:
        return records(*many)(asked, tcp) if tcp else records(tc=1)(asked, tcp)

    with upstream(outside, OUTSIDER4, behave) as server:
        small = ask(web, query("big.example.com"))
        (whole,) = ask_tcp(web, query("big.example.com"))

    assert small is not None
    assert small[2] & 2, "TC"
    assert values(small) == []
    assert len(values(whole)) == 100
    assert server.asked == [("big.example.com.", False), ("big.example.com.", True)]


@pytest.mark.parametrize("gives_up", [False, True])
def test_a_server_far_away_is_waited_for_over_tcp(
    running: Running, web: Place, outside: Place, gives_up: bool
) -> None:
    """It may be asked over UDP again before its answer can be there."""
    asked_again = threading.Event()

    def behave(asked: DNSRecord, tcp: bool) -> list[bytes]:
        if tcp:
            assert asked_again.wait(5)
            return [] if gives_up else records("big.example.com. 60 IN A 203.0.113.2")(asked, tcp)
        if len(server.asked) > 2:
            timer = threading.Timer(0.2, asked_again.set)  # the second part comes first
            timer.start()
        return records("big.example.com. 60 IN A 203.0.113.1", tc=1)(asked, tcp)

    began = time.monotonic()
    with upstream(outside, OUTSIDER4, behave) as server:
        told = ask(web, query("big.example.com"))
    assert values(told) == ["203.0.113.1" if gives_up else "203.0.113.2"]
    assert time.monotonic() - began < 4, "no longer than it takes"


@pytest.mark.parametrize("is_silent", [False, True])
@pytest.mark.parametrize("others", [(), ("203.0.113.53",)])
def test_a_part_of_an_answer_is_better_than_none(
    running: Running, web: Place, outside: Place, is_silent: bool, others: tuple[str, ...]
) -> None:
    """There are networks where name servers are reached over UDP only; the client is told."""
    ended = threading.Event()

    def behave(asked: DNSRecord, tcp: bool) -> list[bytes]:
        if not tcp:
            return records("big.example.com. 60 IN A 203.0.113.1", tc=1)(asked, tcp)
        if is_silent:
            ended.wait(10)
        return []

    use(running, OUTSIDER4, *others)
    began = time.monotonic()
    with upstream(outside, OUTSIDER4, behave) as server:
        part = ask(web, query("big.example.com"))
        ended.set()

    assert part is not None
    assert part[2] & 2, "TC"
    assert values(part) == ["203.0.113.1"]
    assert server.asked[:2] == [("big.example.com.", False), ("big.example.com.", True)]
    assert time.monotonic() - began < PATIENCE_SECONDS - 1


def test_forged_answers_are_not_believed(running: Running, web: Place, outside: Place) -> None:
    """A wrong id, a wrong question, no answer at all: the true one is waited for."""

    def behave(asked: DNSRecord, tcp: bool) -> list[bytes]:
        (true,) = echo("203.0.113.7")(asked, tcp)
        other = DNSRecord.question("evil.example.com", "A")
        other.header.id = asked.header.id
        wrong_id = bytes([true[0] ^ 1]) + true[1:]
        (wrong_question,) = echo("203.0.113.66")(other, tcp)
        return [b"", b"junk", wrong_id, wrong_question, bytes(asked.pack()), true]

    with upstream(outside, OUTSIDER4, behave):
        assert values(ask(web, query("www.example.com"))) == ["203.0.113.7"]


def test_each_query_has_its_own_id_and_port(running: Running, web: Place, outside: Place) -> None:
    """Neither can be guessed from the last (RFC 5452)."""
    with upstream(outside, OUTSIDER4, echo(ttl=0)) as server:
        for _ in range(30):
            assert ask(web, query("www.example.com", ident=1)) is not None
        idents = [asked.header.id for asked in server.queries]

    assert len(set(idents)) > 25
    assert len(set(server.ports)) > 25
    for numbers in (idents, server.ports):
        steps = {(b - a) % 65536 for a, b in itertools.pairwise(numbers)}
        assert len(steps) > 25


def test_edns_is_ours_on_both_sides(running: Running, web: Place, outside: Place) -> None:
    """The server sees our size and the client's DO; the client's options go no further."""
    with upstream(outside, OUTSIDER4, echo()) as server:
        plain = ask(web, query("a.example.com"))
        edns = ask(web, query("b.example.com", edns=4096))

    assert plain is not None
    assert edns is not None
    assert (len(server.queries[0].ar), len(server.queries[1].ar)) == (0, 1)
    assert server.queries[1].ar[0].rclass == 1232
    assert len(DNSRecord.parse(plain).ar) == 0
    assert len(DNSRecord.parse(edns).ar) == 1


def test_a_server_from_before_edns_is_asked_without(
    running: Running, web: Place, outside: Place
) -> None:
    """FORMERR to a query with OPT (RFC 6891 section 7)."""

    def old(asked: DNSRecord, tcp: bool) -> list[bytes]:
        return records(code=1)(asked, tcp) if asked.ar else echo()(asked, tcp)

    with upstream(outside, OUTSIDER4, old):
        assert values(ask(web, query("www.example.com", edns=1232))) == ["203.0.113.7"]


@pytest.mark.parametrize("server", [f"{OUTSIDER6}", "fe80::2%eth0"])
def test_servers_with_ipv6(running: Running, web: Place, outside: Place, server: str) -> None:
    """A global address, and a link-local one that needs the host's interface."""
    use(running, server)
    scope = outside.call(lambda: socket.if_nametoindex("eth0")) if "%" in server else 0
    with upstream(outside, server.partition("%")[0], echo(), scope=scope):
        assert values(ask(web, query("www.example.com"))) == ["203.0.113.7"]


def test_the_hosts_own_servers_are_read_again_when_they_change(
    running: Running, web: Place, host: Host, outside: Place, tmp_path: Path
) -> None:
    """Without servers of the network's: also one on the host's loopback, for every sandbox."""
    conf = tmp_path / "resolv.conf"
    use(running)
    conf.write_text(f"nameserver {OUTSIDER4}\n")
    with (
        upstream(outside, OUTSIDER4, echo("203.0.113.1")),
        upstream(host, "127.0.0.53", echo("203.0.113.2")),
    ):
        assert values(ask(web, query("www.example.com"))) == ["203.0.113.1"]
        fresh = tmp_path / "new"
        fresh.write_text("nameserver 127.0.0.53\n")
        fresh.replace(conf)
        # Nothing that the other said is kept.
        eventually(lambda: values(ask(web, query("www.example.com"))) == ["203.0.113.2"])
        conf.unlink()
        assert rcode(ask(web, query("other.example.com"))) == "SERVFAIL"


@pytest.mark.parametrize("text", [None, "", "# by hand\nsearch example.com\n"])
def test_a_host_without_servers_is_asked_itself(
    running: Running, web: Place, host: Host, tmp_path: Path, text: str | None
) -> None:
    """As its stubs do: there a name server may run for which nobody wrote a resolv.conf."""
    if text is not None:
        (tmp_path / "resolv.conf").write_text(text)
    use(running)
    with upstream(host, "127.0.0.1", echo("203.0.113.2")):
        assert values(ask(web, query("www.example.com"))) == ["203.0.113.2"]
    assert rcode(ask(web, query("other.example.com"))) == "SERVFAIL"


def test_it_never_asks_itself(running: Running, web: Place, outside: Place, tmp_path: Path) -> None:
    """A server that is our own gateway would be a circle: it is as if there were none."""
    conf = tmp_path / "resolv.conf"
    conf.write_text(f"nameserver {OUTSIDER4}\n")
    use(running, GATEWAY4)
    with upstream(outside, OUTSIDER4, echo()):
        assert values(ask(web, query("www.example.com"))) == ["203.0.113.7"]
    conf.write_text(f"nameserver {GATEWAY4}\nnameserver {GATEWAY6}\n")
    began = time.monotonic()
    # The file is looked at now and then.
    eventually(lambda: rcode(ask(web, query("other.example.com"))) == "SERVFAIL")
    assert time.monotonic() - began < PATIENCE_SECONDS


def test_an_internal_network_sends_nothing_out(
    running: Running, web: Place, outside: Place
) -> None:
    """NXDOMAIN at once; its own names are answered."""
    running.update(Update(revision=2, networks=(replace(MY_NET, internal=True),)))
    with upstream(outside, OUTSIDER4, echo()) as server:
        assert rcode(ask(web, query("www.example.com"))) == "NXDOMAIN"
        assert values(ask(web, query("db"))) == ["198.51.100.3"]
        assert server.asked == []


def test_an_alias_of_ours_is_followed_outside(running: Running, web: Place, outside: Place) -> None:
    """The client gets our CNAME and the target's address in one answer."""
    net = replace(MY_NET, records=("docs CNAME www.example.com",))
    running.update(Update(revision=2, networks=(net,)))
    with upstream(outside, OUTSIDER4, echo()) as server:
        answer = ask(web, query("docs"))
        kept = ask(web, query("docs"))

    for each in (answer, kept):
        assert each is not None
        found = DNSRecord.parse(each)
        assert [(str(rr.rname), str(rr.rdata)) for rr in found.rr] == [
            ("docs.", "www.example.com."),
            ("www.example.com.", "203.0.113.7"),
        ]
        assert str(found.q.qname) == "docs."
    assert len(server.asked) == 1


def test_an_answer_that_can_not_be_read_harms_nobody(
    running: Running, web: Place, outside: Place
) -> None:
    """A name in it leads nowhere: who asked by an alias of ours is told so, and others go on."""
    net = replace(MY_NET, records=("docs CNAME www.example.com",))
    running.update(Update(revision=2, networks=(net,)))

    def nonsense(asked: DNSRecord, tcp: bool) -> list[bytes]:
        (answer,) = records("www.example.com 60 IN CNAME other.example.com")(asked, tcp)
        return [answer[:-20] + (2).to_bytes(2) + b"\xff\xff"]

    def short(asked: DNSRecord, tcp: bool) -> list[bytes]:
        (answer,) = echo()(asked, tcp)
        return [answer[:-6] + b"\0\3" + answer[-3:]]

    with upstream(outside, OUTSIDER4, nonsense) as server:
        for behaviour, code in ((nonsense, "SERVFAIL"), (short, "NOERROR")):
            server.behaviour = behaviour
            for _ in range(2):
                assert rcode(ask(web, query("docs"))) == code
                assert values(ask(web, query("db"))) == ["198.51.100.3"]
            running.do(running.server.resolver.cache.clear)


def test_an_error_about_edns_is_no_answer(running: Running, web: Place, outside: Place) -> None:
    """BADVERS has NOERROR in the header: the rest of the code is in the OPT record (RFC 6891)."""
    use(running, f"{OUTSIDER4}#5301", f"{OUTSIDER4}#5302")

    def badvers(asked: DNSRecord, tcp: bool) -> list[bytes]:
        reply = asked.reply()
        reply.add_ar(EDNS0(ext_rcode=1))
        return [bytes(reply.pack())]

    with upstream(outside, OUTSIDER4, badvers, 5301), upstream(outside, OUTSIDER4, echo(), 5302):
        asked = query("www.example.com", edns=1232)
        assert values(ask(web, asked))[0] == "203.0.113.7"


def test_too_many_in_flight_are_refused(
    running: Running, web: Place, outside: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sandbox can't use up what is there for all."""
    monkeypatch.setattr(forward, "MOST_PER_ASKER", 10)
    server: Upstream
    with upstream(outside, OUTSIDER4, silence) as server:
        client = web.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with client:
            client.settimeout(2)
            client.connect((GATEWAY4, 53))
            for n in range(15):
                client.send(query(f"n{n}.example.com", ident=n))
            refused = [client.recv(512) for _ in range(5)]
        assert {rcode(answer) for answer in refused} == {"REFUSED"}
        eventually(lambda: len(server.asked) == 10)
        assert values(ask(web, query("db"))) == ["198.51.100.3"], "names of ours need nobody"


def test_the_sandboxs_own_server_is_asked(running: Running, web: Place, outside: Place) -> None:
    """Before the network's, and from where the sandbox is."""
    running.namespaces["web"] = web.netns.path
    running.update(Update(revision=2, endpoints=(replace(WEB, servers=("::1",)),)))
    with (
        upstream(outside, OUTSIDER4, echo("203.0.113.1")),
        upstream(web, "::1", echo("203.0.113.2")),
    ):
        assert values(ask(web, query("www.example.com"))) == ["203.0.113.2"]
