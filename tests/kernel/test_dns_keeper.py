"""The processes: a keeper that holds the sockets, a server without rights that may die."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import resource
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.host import OUTSIDER4, Host, Place
from support.names import query, rcode, values
from support.patience import eventually
from support.resolving import (
    DB4,
    EVERYTHING,
    GATEWAY4,
    GATEWAY6,
    MY_NET,
    WEB,
    WEB4,
    ask,
    ask_tcp,
    build,
)
from support.upstream import silence, upstream

from netlib import throwaway
from netlib.dns import server, sockets, spawn, within, word
from netlib.dns.channel import Channel, connect
from netlib.dns.client import Resolver
from netlib.dns.facts import EndpointNames, Update
from netlib.dns.held import HELD
from netlib.dns.keeper import Keeper
from netlib.dns.place import LOCK, LOG, SOCKET, AlreadyKept
from netlib.dns.place import Place as Place_
from netlib.dns.sockets import Bound
from netlib.errors import KernelError, NamespaceGone, ResolverDown

pytestmark = pytest.mark.kernel


@pytest.fixture
def web(host: Host) -> Place:
    """The sandbox that asks."""
    return build(host)[0]


@pytest.fixture
def resolver(host: Host, web: Place) -> Iterator[Resolver]:
    """A resolver of its own processes, that answers for the network; updates are pushed."""
    resolver = Resolver(host.state_dir, source="", resolv_conf="/nonexistent")
    assert resolver.listen_network("n1", [GATEWAY4, GATEWAY6]) == {GATEWAY4: 53, GATEWAY6: 53}
    resolver.update(EVERYTHING)
    yield resolver
    if (host.state_dir / LOG).exists():  # what went wrong, for a test that failed
        print((host.state_dir / LOG).read_text())


def stats(resolver: Resolver) -> dict[str, object]:
    """Which must be there."""
    found = resolver.stats()
    assert found is not None
    return found


def test_names_resolve_when_update_returns(resolver: Resolver, web: Place) -> None:
    """Over IPv4 and IPv6; a change shows in the next query, each time."""
    assert values(ask(web, query("db"))) == [DB4]
    assert values(ask(web, query("db"), GATEWAY6)) == [DB4]
    for n in range(2, 60):
        moved = replace(WEB, id="e3", sandbox="fast", aliases=(), addresses=(f"198.51.100.{n}",))
        resolver.update(Update(revision=n, since=n - 1, endpoints=(moved,)))
        assert values(ask(web, query("fast"))) == [f"198.51.100.{n}"]


def test_an_update_that_leaves_a_gap_is_refused(resolver: Resolver, web: Place) -> None:
    """Nobody waits for what can not be served; everything at once mends it."""
    with pytest.raises(ResolverDown, match="since 1 is missing"):
        resolver.update(Update(revision=9, since=8, gone=("e2",)))
    assert values(ask(web, query("db"))) == [DB4]
    resolver.update(replace(EVERYTHING, revision=9))


def test_the_server_has_no_rights(resolver: Resolver) -> None:
    """No capability of any kind, no way to get one, and nobody's user where there is one."""
    status = Path(f"/proc/{stats(resolver)['pid']}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)

    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(fields[kind], 16) == 0, kind
    assert fields["NoNewPrivs"] == "1"
    one_user = (
        len(Path("/proc/self/uid_map").read_text().splitlines()) == 1
        and int(Path("/proc/self/uid_map").read_text().split()[2]) == 1
    )
    if not one_user:
        assert int(fields["CapBnd"], 16) == 0
        assert set(fields["Uid"].split()) == {"65534"}
        assert fields["Groups"].split() == []


def test_the_keeper_speaks_to_its_owner_only(resolver: Resolver, host: Host) -> None:
    """The socket is its owner's."""
    mode = (host.state_dir / SOCKET).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_a_server_that_dies_comes_back(resolver: Resolver, web: Place) -> None:
    """The next query waits in the socket and is answered; nothing is forgotten."""
    first = stats(resolver)
    for n in range(1, 4):
        os.kill(int(str(stats(resolver)["pid"])), signal.SIGKILL)
        assert values(ask(web, query("db"))) == [DB4]
        assert stats(resolver)["restarts"] == n
    assert stats(resolver)["pid"] != first["pid"]
    assert stats(resolver)["revision"] == 1
    resolver.update(Update(revision=2, gone=("e2",), since=1))
    assert rcode(ask(web, query("db"))) == "SERVFAIL"


def test_a_keeper_that_is_killed_has_an_heir(resolver: Resolver, host: Host, web: Place) -> None:
    """Started by the next who speaks to it, and listening where the killed one did."""
    box = host.sandbox("alone")
    resolver.listen_sandbox("alone", box.netns.path, box.netns.inode)
    before = resolver.listening()
    first = stats(resolver)
    os.kill(int(str(first["keeper_pid"])), signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{first['pid']}").exists(), what="the server goes along")

    assert resolver.listening() == before

    endpoint = EndpointNames(id="e9", network="n1", sandbox="alone", addresses=("198.51.100.9",))
    resolver.update(replace(EVERYTHING, endpoints=(*EVERYTHING.endpoints, endpoint)))
    assert values(ask(web, query("db"))) == [DB4]
    assert values(ask(box, query("db"), "127.0.0.11")) == [DB4]


def test_who_wants_something_else_of_an_heir_finds_the_rest_there(
    resolver: Resolver, host: Host, web: Place
) -> None:
    """Whatever is asked of it first: so nobody can have given back what it then takes."""
    os.kill(int(str(stats(resolver)["keeper_pid"])), signal.SIGKILL)
    resolver.listen_at("n2", ["192.0.2.53"], 53)

    assert resolver.listening() == {
        ("network", "n1"): {GATEWAY4: 53, GATEWAY6: 53},
        ("network", "n2"): {"192.0.2.53": 53},
    }
    os.kill(int(str(stats(resolver)["keeper_pid"])), signal.SIGKILL)
    resolver.forget_network("n1")
    assert resolver.listening() == {("network", "n2"): {"192.0.2.53": 53}}


def test_what_an_heir_can_not_have_again_is_tried_once(resolver: Resolver, host: Host) -> None:
    """A sandbox that ended: no keeper after this one looks for it."""
    gone = host.sandbox("gone")
    resolver.listen_sandbox("gone", gone.netns.path, gone.netns.inode)
    resolver.forget_network("n1")
    os.kill(int(str(stats(resolver)["keeper_pid"])), signal.SIGKILL)
    note = host.state_dir / HELD
    note.write_text(note.read_text().replace(str(gone.netns.inode), "1"))

    assert resolver.listening() == {}
    assert not note.exists()


def test_a_server_that_stands_still_goes_along_with_its_keeper(
    resolver: Resolver, host: Host, web: Place
) -> None:
    """Else it had the sockets and the lock for ever, and there was no heir."""
    first = stats(resolver)
    os.kill(int(str(first["pid"])), signal.SIGSTOP)
    assert word.leave(host.state_dir / LOCK)
    os.kill(int(str(first["keeper_pid"])), signal.SIGKILL)
    eventually(lambda: not word.leave(host.state_dir / LOCK), what="nobody hears")

    assert resolver.listening() == {("network", "n1"): {GATEWAY4: 53, GATEWAY6: 53}}
    resolver.update(EVERYTHING)
    assert values(ask(web, query("db"))) == [DB4]


def test_a_keeper_that_stands_still_is_told_of_once(
    resolver: Resolver, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is asked of it, and also when it has so many waiting that no more are taken."""
    connects: list[Path] = []

    def counted(path: Path, _seconds: float) -> Channel:
        connects.append(path)
        return connect(path, 0.2)

    monkeypatch.setattr("netlib.dns.client.connect", counted)
    pid = int(str(stats(resolver)["keeper_pid"]))
    os.kill(pid, signal.SIGSTOP)
    asked: list[Callable[[], object]] = [
        resolver.stats,
        resolver.listening,
        resolver.ensure_keeper,
        lambda: resolver.listen_at("n2", [GATEWAY4], 5353),
    ]
    waiting = []
    for is_crowded in (False, True):
        for ask_it in asked:
            connects.clear()
            with pytest.raises(ResolverDown, match="stands still"):
                ask_it()
            assert len(connects) == 1
        with contextlib.suppress(TimeoutError):
            while not is_crowded:
                waiting.append(connect(host.state_dir / SOCKET, 0))
    for each in waiting:
        each.close()
    os.kill(pid, signal.SIGCONT)
    monkeypatch.undo()
    assert resolver.listening() == {("network", "n1"): {GATEWAY4: 53, GATEWAY6: 53}}


def test_a_keeper_that_stands_still_is_waited_for_once(
    resolver: Resolver, host: Host, web: Place
) -> None:
    """However often the state changes meanwhile; and what it says counts again when it goes on."""
    pid = int(str(stats(resolver)["keeper_pid"]))
    os.kill(pid, signal.SIGSTOP)
    begin = time.monotonic()
    for _ in range(20):
        assert word.leave(host.state_dir / LOCK)
        assert values(ask(web, query("db"))) == [DB4]
    assert time.monotonic() - begin < 2 * server.CATCH_UP_SECONDS + 1

    os.kill(pid, signal.SIGCONT)
    resolver.update(Update(revision=2, since=1, gone=("e2",)))
    assert rcode(ask(web, query("db"))) == "SERVFAIL"


def test_an_heir_waits_for_the_server_of_a_keeper_that_was_killed(host: Host) -> None:
    """It goes along, and holds the sockets and the lock for a moment longer."""
    place = Place_.claim(host.state_dir)
    place.listener.close()  # which leaves its name, as a death does
    assert (host.state_dir / SOCKET).exists()
    timer = threading.Timer(0.1, place.give_back)
    timer.start()
    heir = Place_.claim(host.state_dir)
    timer.join()
    connect(host.state_dir / SOCKET, 1).close()
    heir.unname()
    heir.give_back()


@pytest.mark.slow
@pytest.mark.timeout(40)
def test_a_server_that_hangs_is_replaced(resolver: Resolver, web: Place) -> None:
    """The keeper asks it now and then whether it lives."""
    os.kill(int(str(stats(resolver)["pid"])), signal.SIGSTOP)
    assert values(ask(web, query("db"), timeout=20)) == [DB4]


def test_changes_under_load_lose_no_query(resolver: Resolver, web: Place) -> None:
    """300 updates while queries come one after the other; each is answered rightly."""
    stop, wrong, count = threading.Event(), [], [0]

    def load() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1)
            client.connect((GATEWAY4, 53))
            while not stop.is_set():
                count[0] += 1
                client.send(query("db", ident=count[0] % 65536))
                try:
                    answer = client.recv(512)
                except TimeoutError:
                    wrong.append("lost")
                    continue
                if answer[:2] != (count[0] % 65536).to_bytes(2) or values(answer) != [DB4]:
                    wrong.append(answer.hex())

    thread = threading.Thread(target=lambda: web.call(load))
    thread.start()
    for n in range(2, 302):
        moved = EndpointNames(
            id="e3", network="n1", sandbox="fast", addresses=(f"198.51.100.{n % 200 + 4}",)
        )
        resolver.update(Update(revision=n, since=n - 1, endpoints=(moved,)))
    stop.set()
    thread.join()
    assert wrong == []
    assert count[0] > 300


def test_it_ends_with_the_last_network(resolver: Resolver, host: Host) -> None:
    """Socket, processes and ports go; and all comes back when it is needed again."""
    found = stats(resolver)
    resolver.listen_network("n2", ["198.51.100.129"])
    resolver.forget_network("n1")
    assert stats(resolver)["pid"] == found["pid"], "another network has names"

    resolver.forget_network("n2")

    eventually(lambda: not (host.state_dir / SOCKET).exists())
    eventually(lambda: not Path(f"/proc/{found['pid']}").exists())
    eventually(lambda: not host.run("ss", "-Hlnu", "sport = 53").stdout)
    assert resolver.stats() is None
    resolver.forget_network("n1")  # again: no harm
    resolver.tell()
    assert resolver.listen_network("n1", [GATEWAY4]) == {GATEWAY4: 53}


def test_listening_again_changes_nothing(resolver: Resolver, web: Place) -> None:
    """Only an address that is new is bound."""
    first = stats(resolver)
    assert resolver.listen_network("n1", [GATEWAY4, "198.51.100.129"]) == {
        GATEWAY4: 53,
        GATEWAY6: 53,
        "198.51.100.129": 53,
    }
    assert stats(resolver)["pid"] == first["pid"]
    assert values(ask(web, query("db"))) == [DB4]


def test_a_network_may_have_very_many_gateways(resolver: Resolver) -> None:
    """More sockets than one message can bring, to the keeper and to each of its servers."""
    gateways = [f"198.51.{n // 200 + 101}.{n % 200 + 1}" for n in range(300)]
    assert len(resolver.listen_network("n2", gateways)) == 300
    assert len(resolver.listening()["network", "n2"]) == 300
    for _ in range(2):
        eventually(lambda: len(sockets_of(stats(resolver)["pid"])) >= 2 * 300)
        os.kill(int(str(stats(resolver)["pid"])), signal.SIGKILL)
    resolver.forget_network("n2")


def test_where_port_53_is_taken_another_one_is_used(host: Host, web: Place) -> None:
    """The caller redirects it; who holds 53 keeps it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 53))
        resolver = Resolver(host.state_dir, source="", resolv_conf="/nonexistent")
        ports = resolver.listen_network("n1", [GATEWAY4])
        resolver.update(EVERYTHING)

        assert ports[GATEWAY4] != 53
        assert values(ask(web, query("db"), port=ports[GATEWAY4])) == [DB4]
        assert resolver.listen_network("n1", [GATEWAY4]) == ports


def test_two_at_once_start_one_keeper(host: Host, web: Place) -> None:
    """Whoever comes second speaks with the first one's."""
    resolver = Resolver(host.state_dir, source="", resolv_conf="/nonexistent")
    addresses = [f"198.51.100.{n}" for n in range(100, 108)]
    threads = [
        threading.Thread(target=resolver.listen_network, args=(f"n{address}", [address]))
        for address in addresses
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listening = stats(resolver)["listening"]
    assert isinstance(listening, list)
    assert sorted(each["addresses"][0][0] for each in listening) == addresses


def test_two_at_once_may_ask_for_the_same(
    resolver: Resolver, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when two find a keeper that was killed: the later one finds it done."""
    somebody = Resolver(host.state_dir, source="", resolv_conf="/nonexistent")
    place = ("n2", ["198.51.100.129"], 53)
    bind = sockets.bind_at

    def bind_late(address: str, port: int) -> Bound:
        monkeypatch.undo()
        somebody.listen_at(*place)
        return bind(address, port)

    monkeypatch.setattr(sockets, "bind_at", bind_late)
    resolver.listen_at(*place)
    assert resolver.listening()["network", "n2"] == {"198.51.100.129": 53}


def test_inside_a_sandbox_it_listens_on_loopback(resolver: Resolver, host: Host) -> None:
    """Where the host holds no address of the network: 127.0.0.11, for this sandbox alone."""
    box = host.sandbox("alone")
    endpoint = EndpointNames(id="e9", network="n1", sandbox="alone", addresses=("198.51.100.9",))
    assert resolver.listen_sandbox("alone", box.netns.path, box.netns.inode) == {"127.0.0.11": 53}
    resolver.update(Update(revision=2, since=1, endpoints=(endpoint,)))

    assert values(ask(box, query("db"), "127.0.0.11")) == [DB4]
    assert values(ask(box, query("alone"), "127.0.0.11")) == ["198.51.100.9"]
    resolver.update(Update(revision=3, since=2, gone=("e9",)))
    assert rcode(ask(box, query("db"), "127.0.0.11")) == "REFUSED", "it is on no network now"
    resolver.forget_sandbox("alone")
    assert not box.run("ss", "-Hlnu").stdout


def test_a_sandbox_that_is_not_there_is_an_error(resolver: Resolver, host: Host) -> None:
    """Gone, or another one at that path."""
    with pytest.raises(NamespaceGone):
        resolver.listen_sandbox("x", "/run/netns/nosuch")
    with pytest.raises(NamespaceGone, match="another"):
        resolver.listen_sandbox("x", host.netns.path, inode=1)


def test_a_taken_port_inside_a_sandbox_is_an_error(resolver: Resolver, host: Host) -> None:
    """There nobody redirects; the message names the port, and what can be done."""
    box = host.sandbox("busy")

    def occupy() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("0.0.0.0", 53))
        return sock

    with box.call(occupy), pytest.raises(KernelError, match=r"port 53 .* 127\.0\.0\.11") as error:
        resolver.listen_sandbox("busy", box.netns.path)
    assert "names=false" in error.value.hint


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "both"])
@pytest.mark.parametrize("first", ["program", "resolver"])
def test_a_name_server_in_a_sandbox_may_have_port_53_of_all_other_addresses(
    resolver: Resolver, host: Host, family: socket.AddressFamily, first: str
) -> None:
    """Where it lets others have the port as well; whoever came first, each has its own queries."""
    box = host.sandbox("busy")
    everywhere = "0.0.0.0" if family == socket.AF_INET else "::"

    def occupy() -> list[socket.socket]:
        found = []
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sock = socket.socket(family, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((everywhere, 53))
            if kind == socket.SOCK_STREAM:
                sock.listen()
            sock.settimeout(5)
            found.append(sock)
        return found

    endpoint = EndpointNames(id="e9", network="n1", sandbox="busy", addresses=("198.51.100.9",))
    resolver.update(Update(revision=2, since=1, endpoints=(endpoint,)))
    program = box.call(occupy) if first == "program" else []
    resolver.listen_sandbox("busy", box.netns.path)
    program = program or box.call(occupy)
    with program[0], program[1]:
        for _ in range(20):
            assert values(ask(box, query("db"), "127.0.0.11")) == [DB4]
            (by_tcp,) = ask_tcp(box, query("db"), server="127.0.0.11")
            assert values(by_tcp) == [DB4]
        assert ask(box, query("db"), "127.0.0.1", timeout=0.2) is None
        assert program[0].recv(512) == query("db")
        with box.call(lambda: socket.create_connection(("127.0.0.1", 53), 5)):
            program[1].accept()[0].close()


def test_strangers_are_refused(resolver: Resolver, host: Host) -> None:
    """Who reaches the gateway from elsewhere gets no names."""
    outsider = host.outsider()
    outsider.run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.1")
    assert rcode(ask(outsider, query("db"))) == "REFUSED"
    assert rcode(ask(outsider, query("example.com"))) == "REFUSED"
    assert values(ask(host, query("db"))) == [DB4], "the host may ask"


def test_queries_are_counted_and_shown(resolver: Resolver, web: Place) -> None:
    """By code and by name, and as they come to who reads the log."""
    reader, writer = os.pipe()
    for _ in range(3):
        ask(web, query("db"))
    assert resolver.log_to(writer)
    os.close(writer)
    ask(web, query("nosuch.example"))
    ask(web, query("web", "AAAA"))
    with os.fdopen(reader) as log:
        lines = [json.loads(log.readline()) for _ in range(2)]
    ask(web, query("db"))

    assert lines == [
        {"asker": "web", "name": "nosuch.example.", "kind": "A", "outcome": "nobody SERVFAIL"},
        {"asker": "web", "name": "web.", "kind": "AAAA", "outcome": "here NOERROR"},
    ]
    found = stats(resolver)
    assert found["queries"] == 6
    assert found["answers"] == {"NOERROR": 5, "SERVFAIL": 1}
    assert found["names"] == {"db.": 4, "nosuch.example.": 1, "web.": 1}


def test_the_log_is_told_to_all_who_read_it_as_long_as_the_resolver_runs(
    resolver: Resolver, web: Place
) -> None:
    """Whoever comes later takes it from nobody, and another server goes on with it."""
    seen: queue.SimpleQueue[object] = queue.SimpleQueue()

    def read() -> None:
        for line in resolver.log():
            seen.put(line["name"])

    def heard(name: str) -> bool:
        ask(web, query(name))
        with contextlib.suppress(queue.Empty):
            while seen.get(timeout=0.1) != name:
                pass
            return True
        return False

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    eventually(lambda: heard("web."))
    reader, writer = os.pipe()
    assert resolver.log_to(writer)
    os.close(writer)
    eventually(lambda: heard("db."))
    with os.fdopen(reader) as lines:
        assert json.loads(lines.readline())["name"] == "db."
    eventually(lambda: heard("front."))

    os.kill(int(str(stats(resolver)["pid"])), signal.SIGKILL)
    eventually(lambda: heard("web.my-net."))
    resolver.forget_network("n1")
    thread.join(10)
    assert not thread.is_alive()


def test_questions_in_flight_do_not_end_with_the_server(
    resolver: Resolver, host: Host, web: Place
) -> None:
    """Only they themselves are lost: who asked comes again, as stubs do."""
    with upstream(host.outsider(), OUTSIDER4, silence) as server:
        threading.Thread(
            target=lambda: ask(web, query("www.example.com"), timeout=0.3), daemon=True
        ).start()
        eventually(lambda: server.asked)
        os.kill(int(str(stats(resolver)["pid"])), signal.SIGKILL)
        assert values(ask(web, query("web"))) == [WEB4]


def test_a_thousand_names_fit(resolver: Resolver, web: Place) -> None:
    """In 30 MB; pushed in one update."""
    many = tuple(
        EndpointNames(
            id=f"m{n}",
            network="n1",
            sandbox=f"box{n}",
            short_id=f"{n:012x}",
            aliases=(f"alias{n}",),
            addresses=(f"198.51.{100 + n // 250}.{n % 250 + 1}", f"2001:db8:1::{n + 16:x}"),
        )
        for n in range(1000)
    )
    net = replace(MY_NET, subnets=("198.51.0.0/16",), records=("mail MX 10 box1",))
    resolver.update(Update(revision=2, full=True, networks=(net,), endpoints=many))
    assert values(ask(web, query("box7", "AAAA"))) == ["2001:db8:1::17"]
    assert values(ask(web, query("mail", "MX"))) == ["10 box1."]

    pid = stats(resolver)["pid"]
    resident = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert resident is not None
    assert int(resident[1]) < 30 * 1024


def test_a_keeper_that_can_not_start_says_why(host: Host) -> None:
    """The folder is a file."""
    (host.state_dir / "file").write_text("")
    with pytest.raises(Exception, match="resolver can not be started"):
        Resolver(host.state_dir / "file").ensure_keeper()


def test_a_long_path_is_no_obstacle(host: Host, web: Place) -> None:
    """A unix socket's name has 107 bytes at most, folders have more."""
    folder = host.state_dir / ("x" * 120)
    resolver = Resolver(folder, source="", resolv_conf="/nonexistent")
    assert resolver.listen_network("n1", [GATEWAY4]) == {GATEWAY4: 53}
    assert resolver.stats() is not None


@pytest.mark.slow
def test_an_unused_keeper_ends(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never got a socket does not stay."""
    resolver = Resolver(host.state_dir, source="", resolv_conf="/nonexistent")
    resolver.ensure_keeper()
    assert resolver.stats() is not None
    began = time.monotonic()
    eventually(lambda: resolver.stats() is None, timeout=15)
    assert time.monotonic() - began > 5


def test_what_it_runs_is_ours_alone(resolver: Resolver) -> None:
    """The processes' folder is /, and no descriptor of the caller's is left open in them."""
    found = stats(resolver)
    for pid in (found["pid"], found["keeper_pid"]):
        listing = subprocess.run(
            ["ls", "-l", f"/proc/{pid}/fd", f"/proc/{pid}/cwd"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert re.search(r"cwd -> /$", listing, re.MULTILINE)
        targets = re.findall(r"\d+ -> (\S+)", listing)
        strange = [
            t for t in targets if not re.match(r"socket:|anon_inode:|/dev/null|/run/state", t)
        ]
        assert strange == []


def keeping(host: Host) -> tuple[Keeper, threading.Thread, Resolver]:
    """A keeper in a thread of this process, which answers for the network."""
    keeper = Keeper(Place_.claim(host.state_dir), resolv_conf="/nonexistent", stays=True)
    thread = threading.Thread(target=keeper.run)
    thread.start()
    resolver = Resolver(host.state_dir, source="", resolv_conf="/nonexistent")
    resolver.listen_network("n1", [GATEWAY4])
    resolver.update(EVERYTHING)
    return keeper, thread, resolver


def test_a_daemon_can_be_the_keeper(host: Host, web: Place) -> None:
    """In a thread of its own process; when it stops, the next who asks starts one again."""
    keeper, thread, resolver = keeping(host)
    assert stats(resolver)["keeper_pid"] == os.getpid()
    assert values(ask(web, query("db"))) == [DB4]
    with pytest.raises(AlreadyKept):
        Place_.claim(host.state_dir)

    keeper.stop()
    thread.join(5)
    assert not thread.is_alive()

    assert stats(resolver)["keeper_pid"] != os.getpid()
    resolver.update(EVERYTHING)
    assert values(ask(web, query("db"))) == [DB4]


def test_a_full_disk_takes_nobodys_names(host: Host, web: Place) -> None:
    """What can't be noted or logged is not; the file where word is left has its room already."""
    small = host.state_dir / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "small", small], check=True)
    try:
        resolver = Resolver(small, source="", resolv_conf="/nonexistent")
        resolver.listen_network("n1", [GATEWAY4])
        resolver.update(EVERYTHING)
        with contextlib.suppress(OSError), (small / "filling").open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        first = stats(resolver)
        resolver.listen_at("n2", [GATEWAY4], 5353)
        resolver.forget_network("n2")
        resolver.tell()
        assert values(ask(web, query("db"))) == [DB4]
        assert stats(resolver)["keeper_pid"] == first["keeper_pid"]
        assert stats(resolver)["restarts"] == 0
    finally:
        throwaway.unmount(str(small))


def test_a_keeper_without_a_descriptor_left_says_so(resolver: Resolver, host: Host) -> None:
    """It serves on what it has, and whoever comes when one is free again."""
    pid = int(str(stats(resolver)["keeper_pid"]))
    used = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 20, used + 20))
    with pytest.raises(ResolverDown, match="too many files open"):
        resolver.listen_at("n2", [f"127.0.0.{n}" for n in range(1, 20)], 5353)
    clients = [connect(host.state_dir / SOCKET, 5) for _ in range(30)]
    log = host.state_dir / LOG
    eventually(lambda: "has to wait" in log.read_text(), what="no descriptor is left")
    for client in clients:
        client.close()
    assert resolver.listening() == {("network", "n1"): {GATEWAY4: 53, GATEWAY6: 53}}


def test_a_server_without_a_descriptor_left_makes_room_for_another(
    resolver: Resolver, web: Place
) -> None:
    """Else it never listened where it was to, and nobody noticed."""
    first = stats(resolver)
    keeper = int(str(first["keeper_pid"]))
    few = len(os.listdir(f"/proc/{keeper}/fd")) + 10
    resource.prlimit(keeper, resource.RLIMIT_NOFILE, (few, few))
    os.kill(int(str(first["pid"])), signal.SIGKILL)  # the next one may have no more than that
    with contextlib.ExitStack() as closing:
        for _ in range(40):
            closing.enter_context(web.call(lambda: socket.create_connection((GATEWAY4, 53), 5)))
        assert values(ask(web, query("db"))) == [DB4]
        resolver.listen_at("n1", [GATEWAY4], 5353)
        assert values(ask(web, query("db"), port=5353)) == [DB4]


def test_where_no_thread_is_to_be_had_no_namespace_is_entered(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is an error like others, that a keeper outlives."""

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    box = host.sandbox("alone")
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KernelError, match="no thread to be had") as caught:
        sockets.bind_sandbox(box.netns.path, box.netns.inode)
    assert not isinstance(caught.value, NamespaceGone)
    found = within.open_all([("alone", "192.0.2.53", 2)], lambda _: (box.netns.path, 0))
    assert found == [None]


def test_a_server_that_can_not_be_started_is_started_later(
    host: Host, web: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be no process or memory to be had just when one died."""
    keeper, thread, resolver = keeping(host)
    failed = threading.Event()

    def nothing(*_: str) -> list[str]:
        failed.set()
        return ["/nonexistent"]

    with monkeypatch.context() as patch:
        patch.setattr("netlib.dns.child.python", nothing)
        os.kill(int(str(stats(resolver)["pid"])), signal.SIGKILL)
        assert failed.wait(5)
    assert values(ask(web, query("db"))) == [DB4]

    keeper.stop()
    thread.join(5)


def test_a_server_that_takes_long_to_start_is_not_taken_for_dead(
    host: Host, web: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one with very many names, on a busy machine, was started again and again."""
    gate = host.state_dir / "gate"
    os.mkfifo(gate)

    def at_the_gate(module: str, *arguments: str) -> list[str]:
        command = spawn.python(module, *arguments)
        return ["sh", "-c", f'read line < {gate}; exec "$@"', "sh", *command]

    monkeypatch.setattr("netlib.dns.child.python", at_the_gate)
    monkeypatch.setattr("netlib.dns.child.PING_SECONDS", 0.01)
    place = Place_.claim(host.state_dir)
    keeper = Keeper(place, resolv_conf="/nonexistent", stays=True)
    thread = threading.Thread(target=keeper.run)
    began = time.monotonic()
    thread.start()
    resolver = Resolver(host.state_dir, source="", resolv_conf="/nonexistent")
    resolver.listen_network("n1", [GATEWAY4])
    eventually(lambda: time.monotonic() > began + 0.3, what="many pings could have gone by")
    monkeypatch.setattr("netlib.dns.child.PING_SECONDS", 5.0)  # from now on it may take its time
    gate.write_text("open\n")
    resolver.update(EVERYTHING)
    assert values(ask(web, query("db"))) == [DB4]
    assert stats(resolver)["restarts"] == 0

    keeper.stop()
    thread.join(5)


def test_who_speaks_nonsense_is_dropped(resolver: Resolver, host: Host, web: Place) -> None:
    """And nobody else notices."""
    for nonsense in (b"{}\n", b"[]\n", b"\xff\xfe\n", b'{"do": "forget"}\n', b'{"do": "dance"}\n'):
        with connect(host.state_dir / SOCKET, 5).sock as client:
            client.sendall(nonsense)
            answer = client.recv(4096)
            assert answer == b"" or b"dance" in answer
    assert values(ask(web, query("db"))) == [DB4]


def test_a_network_that_moves_keeps_the_sockets_that_stay(resolver: Resolver, web: Place) -> None:
    """Gateways come and go, and ports change; who asks at one that stays notices nothing."""
    found = stats(resolver)
    inodes = sockets_of(found["pid"])
    resolver.move_to("n1", [GATEWAY4, "198.51.100.129"], 53)
    assert resolver.listening() == {("network", "n1"): {GATEWAY4: 53, "198.51.100.129": 53}}
    assert len(inodes & sockets_of(found["pid"])) == len(inodes) - 2, "only the gone one's closed"
    assert values(ask(web, query("db"))) == [DB4]

    resolver.move_to("n1", [GATEWAY4], 5301)
    assert resolver.listening() == {("network", "n1"): {GATEWAY4: 5301}}
    assert values(ask(web, query("db"), port=5301)) == [DB4]
    os.kill(int(str(found["pid"])), signal.SIGKILL)
    assert values(ask(web, query("db"), port=5301)) == [DB4]


def sockets_of(pid: object) -> set[str]:
    """The inodes of a process's sockets that listen, or take datagrams."""
    folder = Path(f"/proc/{pid}/fd")
    links = {os.readlink(each) for each in folder.iterdir()}
    return {link for link in links if link.startswith("socket:")}
