"""What fails in a cluster, tried on real packets: agents, the store, cables, whole hosts."""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster import LEASE_SECONDS, ClusterHost, RealCluster, real_cluster
from support.etcd import answers
from support.host import Host, Place
from support.patience import eventually

from netlib.errors import AgentDown, StoreError, StoreUnavailable
from netlib.model import Endpoint

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
# A lease may last half as long again in etcd, and is looked at once a second or so.
WITHIN = 3 * LEASE_SECONDS + 3


@pytest.fixture
def cluster(host: Host, tmp_path: Path) -> Iterator[RealCluster]:
    """Two hosts with a network, web on one and db on the other, which know each other."""
    with real_cluster(host, tmp_path, 2) as cluster:
        one, two = cluster.hosts
        cluster.make()
        web, db = one.connect("app", "web"), two.connect("app", "db")
        eventually(lambda: db.mac in one.remotes() and web.mac in two.remotes())
        yield cluster


@pytest.fixture
def one(cluster: RealCluster) -> ClusterHost:
    """The first host, with web."""
    return cluster.hosts[0]


@pytest.fixture
def two(cluster: RealCluster) -> ClusterHost:
    """The second host, with db."""
    return cluster.hosts[1]


def endpoint(host: ClusterHost, name: str) -> Endpoint:
    """A sandbox's endpoint."""
    return host.do(lambda net: net.endpoints(name))[0]


def reaches(place: Place, other: Endpoint) -> bool:
    """Whether one ping gets through."""
    address = str(other.addresses[0].ip)
    return place.run("ping", "-c", "1", "-W", "1", address, check=False).returncode == 0


class Pinging:
    """A ping each 10 ms, until it is asked how many were lost."""

    def __init__(self, place: Place, other: Endpoint) -> None:
        self._process = place.popen("ping", "-i", "0.01", "-q", str(other.addresses[0].ip))
        self._began = time.monotonic()

    def lost(self) -> int:
        """How many had no answer, but the last, whose may be under way."""
        eventually(lambda: time.monotonic() > self._began + 0.5)
        self._process.send_signal(signal.SIGINT)
        said, _ = self._process.communicate(timeout=10)
        found = re.search(r"(\d+) packets transmitted, (\d+) received", said)
        assert found is not None, said
        sent, received = int(found[1]), int(found[2])
        assert sent > 10  # of fifty, on a machine that is busy
        return max(0, sent - received - 1)


def test_agents_are_restarted_without_one_lost_ping(
    cluster: RealCluster, one: ClusterHost, two: ClusterHost
) -> None:
    """One after the other, gently and by SIGKILL; each goes on where the one before it was."""
    pinging = Pinging(one.boxes["web"], endpoint(two, "db"))
    lease = two.do(lambda net: net.engine.state.store.get("cluster/lease"))
    for number in (signal.SIGTERM, signal.SIGKILL):
        for host in cluster.hosts:
            host.end_daemon(number)
            host.start_daemon()
    time.sleep(LEASE_SECONDS)  # none of them lives on by the last breath of the one before
    assert pinging.lost() == 0
    assert two.do(lambda net: net.engine.state.store.get("cluster/lease")) == lease
    assert cluster.alive() == {"host1", "host2"}
    late = two.connect("app", "late")
    eventually(lambda: late.mac in one.remotes())
    cluster.all_agree()


def test_what_happened_while_an_agent_was_away_is_there_when_it_is_back(
    cluster: RealCluster, one: ClusterHost, two: ClusterHost
) -> None:
    """Also entries that somebody took or added meanwhile."""
    db = endpoint(two, "db")
    one.end_daemon()
    late = two.connect("app", "late")
    device = next(
        line.split(":")[1].strip()
        for line in one.place.run("ip", "-o", "link", "show", "type", "vxlan").stdout.splitlines()
    )
    one.place.run("bridge", "fdb", "del", db.mac, "dev", device, "self")
    one.place.run(
        "bridge",
        "fdb",
        "add",
        "02:00:5e:00:53:77",
        "dev",
        device,
        "dst",
        "203.0.113.9",
        "self",
        "permanent",
    )
    one.start_daemon()
    eventually(lambda: {late.mac, db.mac} <= one.remotes().keys())
    eventually(lambda: "02:00:5e:00:53:77" not in one.remotes())
    assert reaches(one.boxes["web"], late)
    cluster.all_agree()


def test_a_tunnel_that_somebody_deletes_is_made_anew(
    cluster: RealCluster, one: ClusterHost, two: ClusterHost
) -> None:
    """By the daemon, with all that is behind it."""
    db = endpoint(two, "db")
    link = one.place.run("ip", "-o", "link", "show", "type", "vxlan").stdout
    one.place.run("ip", "link", "del", link.split(":")[1].strip())
    eventually(lambda: db.mac in one.remotes(), 10)
    eventually(lambda: reaches(one.boxes["web"], db), 10)
    cluster.all_agree()


def test_a_dead_host_is_gone_within_its_lease_and_comes_back(
    cluster: RealCluster, one: ClusterHost, two: ClusterHost
) -> None:
    """Entries, names and addresses; another gets its address only when the lease has ended."""
    db = endpoint(two, "db")
    address = str(db.addresses[0].ip)
    two.end_daemon()
    two.unplug()
    began = time.monotonic()
    eventually(lambda: db.mac not in one.remotes(), WITHIN, what="no entries of a dead host")
    assert time.monotonic() - began < WITHIN
    eventually(lambda: address not in one.neighbours())
    eventually(lambda: one.asked("db", "web") == [])
    assert cluster.alive() == {"host1"}
    assert one.problems() == []

    two.plug()
    two.start_daemon()
    eventually(lambda: db.mac in one.remotes(), WITHIN, what="the host is back")
    eventually(lambda: reaches(one.boxes["web"], db))
    cluster.all_agree()


def test_without_the_store_what_is_there_goes_on(
    cluster: RealCluster, one: ClusterHost, two: ClusterHost
) -> None:
    """Killed, that is: packets, names and local networks; the rest fails soon and cleanly."""
    web, db = endpoint(one, "web"), endpoint(two, "db")
    for name in ("late", "alone"):
        one.box(name)
    pinging = Pinging(one.boxes["web"], db)
    cluster.etcd.kill()
    links = one.place.run("ip", "-o", "link").stdout.count("\n")
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as refused:
        one.do(lambda net: net.connect("app", "late"))
    assert refused.value.exit_status == 7
    assert time.monotonic() - began < 8
    assert one.place.run("ip", "-o", "link").stdout.count("\n") == links
    assert one.problems() == []
    assert one.asked("db", "web") == [str(db.addresses[0].ip)]
    one.do(lambda net: net.create("local"))
    one.do(lambda net: net.connect("local", "alone"))
    two.disconnect("app", "db")  # a sandbox can end at any time
    pinging.lost()

    cluster.etcd.start()
    answers(cluster.etcd)
    eventually(lambda: db.mac not in one.remotes(), WITHIN, what="the cluster is told later")
    eventually(lambda: cluster.alive() == {"host1", "host2"}, WITHIN)

    def connect() -> Endpoint | None:
        try:
            return two.connect("app", "db", str(db.addresses[0].ip))
        except StoreError:
            return None

    again = eventually(connect, WITHIN)
    assert again.mac == db.mac
    eventually(lambda: db.mac in one.remotes(), WITHIN)
    eventually(lambda: reaches(two.boxes["db"], web))
    cluster.all_agree()


def test_packets_do_not_mind_that_the_store_is_restarted(
    cluster: RealCluster, one: ClusterHost, two: ClusterHost
) -> None:
    """Within the lease nothing is taken away, so not one is lost."""
    pinging = Pinging(one.boxes["web"], endpoint(two, "db"))
    cluster.etcd.kill()
    cluster.etcd.start()
    answers(cluster.etcd)
    time.sleep(LEASE_SECONDS)
    assert pinging.lost() == 0
    late = two.connect("app", "late")
    eventually(lambda: late.mac in one.remotes(), WITHIN)
    cluster.all_agree()


def test_a_host_that_loses_the_store_only_is_silenced_and_comes_back(
    cluster: RealCluster, one: ClusterHost, two: ClusterHost
) -> None:
    """The others can't tell it from a dead one; it keeps what it has, and claims nothing."""
    web, db = endpoint(one, "web"), endpoint(two, "db")
    known = two.remotes()
    two.lose_store()
    eventually(lambda: db.mac not in one.remotes(), WITHIN)
    assert two.remotes() == known
    two.box("late")
    with pytest.raises(StoreError):
        two.do(lambda net: net.connect("app", "late"))

    two.find_store()
    eventually(lambda: db.mac in one.remotes(), 2 * WITHIN, what="it is back")
    eventually(lambda: reaches(two.boxes["db"], web))

    def connect() -> object:
        try:
            return two.connect("app", "late")
        except (AgentDown, StoreUnavailable):
            return None

    eventually(connect, WITHIN)
    cluster.all_agree()


def test_a_host_that_loses_its_cable_comes_back(
    cluster: RealCluster, one: ClusterHost, two: ClusterHost
) -> None:
    """Cut off from the store and its peers; meanwhile the others go on."""
    db = endpoint(two, "db")
    # Not one of those that are free meanwhile, db's among them: whose address another one gets by
    # chance does not come back.
    taken = {*one.neighbours(), *two.neighbours()}
    free = next(a for a in (f"10.10.0.{number}" for number in range(200, 220)) if a not in taken)
    two.unplug()
    eventually(lambda: db.mac not in one.remotes(), WITHIN)
    late = one.connect("app", "late", free)
    one.disconnect("app", "web")
    two.plug()
    eventually(lambda: db.mac in one.remotes(), 2 * WITHIN, what="it is back")
    eventually(lambda: late.mac in two.remotes(), WITHIN)
    eventually(lambda: two.peers() == ["late"])
    eventually(lambda: reaches(two.boxes["db"], late))
    cluster.all_agree()


def test_after_a_restore_hosts_put_back_what_they_have(
    cluster: RealCluster, one: ClusterHost, two: ClusterHost, tmp_path: Path
) -> None:
    """Of a store put back from a snapshot; nobody's sandboxes notice."""
    copy = tmp_path / "copy"
    cluster.etcd.ctl("snapshot", "save", str(copy))
    cluster.make("young", "10.20.0.0/24")
    deep, sea = one.connect("young", "deep"), two.connect("young", "sea")
    eventually(lambda: sea.mac in one.remotes("young") and deep.mac in two.remotes("young"))
    late = two.connect("app", "late")
    eventually(lambda: late.mac in one.remotes())
    pinging = Pinging(one.boxes["web"], endpoint(two, "db"))

    put_back(cluster, copy)
    for host in cluster.hosts:
        eventually(lambda h=host: h.offered("young") and not h.problems(), 2 * WITHIN)  # type: ignore[misc]
    keys = lambda folder: [r.key for r in cluster.store.range(folder, folder[:-1] + "0")]  # noqa: E731
    eventually(lambda: len(keys("endpoint/")) == 5, 2 * WITHIN, what="all endpoints")
    time.sleep(2 * LEASE_SECONDS)  # they do not stand by leases of the copy
    assert len(keys("endpoint/")) == 5
    assert len(keys("host/")) == 4
    assert pinging.lost() < 100
    assert reaches(one.boxes["deep"], sea)
    assert late.mac in one.remotes()
    cluster.all_agree()


def put_back(cluster: RealCluster, copy: Path) -> None:
    """Replace all that the etcd has by a copy."""
    member = cluster.etcd
    member.kill()
    shutil.rmtree(member.data)
    member.ctl(
        *("snapshot", "restore", str(copy), f"--name={member.name}"),
        *(f"--data-dir={member.data}", f"--initial-cluster={member.name}={member.peer_url}"),
        f"--initial-advertise-peer-urls={member.peer_url}",
    )
    member.start()
    answers(member)


def test_a_moving_endpoint_is_silent_for_less_than_a_second(
    cluster: RealCluster, one: ClusterHost, two: ClusterHost
) -> None:
    """Its client pings all the time, and has nothing that could be stale."""
    db = endpoint(two, "db")
    address = str(db.addresses[0].ip)
    one.box("target")
    pinging = Pinging(one.boxes["web"], db)
    two.disconnect("app", "db")
    one.do(lambda net: net.connect("app", "target", addresses=[address]))
    eventually(lambda: reaches(one.boxes["web"], db), pause=0.001)
    one.disconnect("app", "target")
    two.do(lambda net: net.connect("app", "db", addresses=[address]))
    eventually(lambda: reaches(one.boxes["web"], db), pause=0.001)
    assert pinging.lost() < 100  # a hundred are one second
    cluster.all_agree()
