"""Unit costs of networks over many hosts, as docs/scale.md reckons with them.

What one endpoint, one watcher, one host that is kept alive cost an etcd, and what one entry costs
the kernel. Few of each are measured, for what many cost is the sum.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import select
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network

from benchmarks import kernel_entries
from benchmarks.own_etcd import OwnEtcd
from netlib import names, throwaway
from netlib.cluster.keys import UNTOLD
from netlib.cluster.model import SharedEndpoint
from netlib.cluster.records import dump_endpoint, load_shared
from netlib.model import IPAddress, interface
from netlib.store import Absent, Commit, Store, under
from netlib.store.etcd import EtcdStore
from netlib.store.etcd_http import Connection, parse_endpoint
from netlib.store.etcd_requests import Keys

NETWORK = names.new_id()
_POOLS = ip_network("10.0.0.0/8"), ip_network("2001:db8:a::/64")


def endpoint(number: int, hosts: int = 1000) -> SharedEndpoint:
    """One of a network with both families."""
    found = [(pool[10 + number], pool.prefixlen) for pool in _POOLS]
    return SharedEndpoint(
        id=names.new_id(),
        network=NETWORK,
        node=f"{number % hosts:064x}",
        host=ip_address("192.0.2.1") + number % hosts,
        mac=names.mac_at(NETWORK, found[0][0]),
        addresses=tuple(interface(address, length) for address, length in found),
        sandbox=f"sandbox-{number}",
    )


def claim(one: SharedEndpoint) -> Commit:
    """What a host commits to have it: its addresses must be free."""
    leases = [_lease(address.ip) for address in one.addresses]
    return Commit(
        conditions=tuple(Absent(key) for key in leases),
        put={
            f"endpoint/{NETWORK}/{one.id}": dump_endpoint(one),
            **{key: json.dumps({"endpoint": one.id, "node": one.node}) for key in leases},
        },
    )


def release(one: SharedEndpoint) -> Commit:
    """What it commits to give it back."""
    keys = [f"endpoint/{NETWORK}/{one.id}", *(_lease(address.ip) for address in one.addresses)]
    return Commit(put={}, delete=tuple(keys))


def _lease(address: IPAddress) -> str:
    return f"lease/{NETWORK}/{address.version}/{address.packed.hex()}"


# -- etcd ---------------------------------------------------------------------------------------


def show(name: str, value: float, unit: str) -> None:
    """One line of the result."""
    print(f"{name:66} {value:10.2f} {unit}", flush=True)


def samples(name: str, work: Callable[[int], object], runs: int) -> None:
    """Median and 99th percentile of a call, in milliseconds."""
    taken = []
    for number in range(runs + 5):
        began = time.perf_counter()
        work(number)
        taken.append((time.perf_counter() - began) * 1000)
    taken = sorted(taken[5:])
    show(name, statistics.median(taken), "ms")
    show(f"{name}, 99th percentile", taken[int(len(taken) * 0.99)], "ms")


def latency(etcd: OwnEtcd, where: str) -> None:
    """What one call takes whoever makes it, with nobody else there."""
    with etcd.store("/latency/") as store:
        lease = store.grant(600)
        view, made = store.leased(lease), [endpoint(number) for number in range(310)]
        samples(f"{where}: put of one key", lambda n: store.commit(Commit(put={"a": str(n)})), 300)
        samples(f"{where}: get", lambda _: store.get("a"), 300)
        samples(f"{where}: claim of an endpoint", lambda n: view.commit(claim(made[n])), 300)
        samples(f"{where}: release of an endpoint", lambda n: store.commit(release(made[n])), 300)
        samples(f"{where}: keep a lease alive", lambda _: store.keep_alive(lease), 300)


def told(etcd: OwnEtcd, runs: int = 200) -> None:
    """From the begin of a commit to its event in another process."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_listen, args=(theirs, runs))
    child.start()
    with etcd.store("/told/") as store:
        since = store.revision()
        ours.send(since)
        ours.recv()
        taken = []
        for number in range(runs):
            began = time.perf_counter()
            store.commit(Commit(put={"a": str(number)}))
            returned = time.perf_counter()
            heard = ours.recv()  # the clock is the same for both (clock_gettime(2))
            taken.append(((heard - began) * 1000, (heard - returned) * 1000))
    child.join(10)
    for index, name in ((0, "begin of a commit to its event elsewhere"), (1, "…, its return to …")):
        column = sorted(pair[index] for pair in taken)
        show(name, statistics.median(column), "ms")
        show(f"{name}, 99th percentile", column[int(len(column) * 0.99)], "ms")


def _listen(pipe: object, runs: int) -> None:
    store = EtcdStore([OwnEtcd.url], prefix="/told/")
    since = pipe.recv()  # type: ignore[attr-defined]
    store.changes(since)  # the watch is open
    pipe.send(None)  # type: ignore[attr-defined]
    for _ in range(runs):
        for event in store.changes(since, 10) or ():
            since = event.revision
        pipe.send(time.perf_counter())  # type: ignore[attr-defined]


def records(etcd: OwnEtcd, number: int) -> None:
    """What endpoints cost in keys, bytes, time, and to read them all."""
    with etcd.store() as store:
        made = [endpoint(index) for index in range(number)]
        example = claim(made[0])
        size = sum(len(f"/netlib/{key}") + len(value) for key, value in example.put.items())
        show("an endpoint: keys", len(example.put), "")
        show("…, bytes of keys and values", size, "B")
        etcd.compact(store.revision())
        disk, memory, cpu = etcd.disk_bytes(), etcd.memory_kib(), etcd.cpu_ms()
        lease = store.grant(3600)
        view, began = store.leased(lease), time.perf_counter()
        for one in made:
            view.commit(claim(one))
        seconds = time.perf_counter() - began
        show("…, claims one after another, of one client", number / seconds, "/s")
        show("…, etcd's processor time for a claim", (etcd.cpu_ms() - cpu) / number, "ms")
        show("…, database before compaction", (etcd.disk_bytes() - disk) / number, "B")
        etcd.compact(store.revision())
        show("…, database after compaction", (etcd.disk_bytes() - disk) / number, "B")
        show("…, etcd's memory", (etcd.memory_kib() - memory) / number, "KiB")
        cpu, began = etcd.cpu_ms(), time.perf_counter()
        found = store.range(*under(f"endpoint/{NETWORK}/"))
        seconds = time.perf_counter() - began
        assert len(found) == number
        show("read all of a network, for each endpoint", seconds * 1000 / number, "ms")
        show("…, etcd's share of it", (etcd.cpu_ms() - cpu) / number, "ms")
        began = time.perf_counter()
        for record in found:
            load_shared(record.value)
        show("…, decoding it", (time.perf_counter() - began) * 1000 / number, "ms")
        crowd(etcd, 4, 300)
        revision, cpu, began = store.revision(), etcd.cpu_ms(), time.perf_counter()
        store.revoke(lease)
        store.changes(revision, 10)
        show(f"end of a lease with {3 * number} keys, until told", time.perf_counter() - began, "s")
        show("…, etcd's processor time for a key", (etcd.cpu_ms() - cpu) / (3 * number), "ms")


def crowd(etcd: OwnEtcd, clients: int, each: int) -> None:
    """How many claims a second etcd takes from several processes at once."""
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(clients + 1)

    def work(client: int) -> None:
        made = [endpoint(100_000 + client * each + index) for index in range(each)]
        with etcd.store() as store:
            store.revision()
            start.wait(30)
            for one in made:
                store.commit(claim(one))
            for one in made:
                store.commit(release(one))

    children = [fork.Process(target=work, args=(client,)) for client in range(clients)]
    for child in children:
        child.start()
    start.wait(30)
    began = time.perf_counter()
    for child in children:
        child.join(60)
    rate = 2 * clients * each / (time.perf_counter() - began)
    show(f"claims and releases of {clients} clients at once", rate, "/s")


@contextmanager
def watchers(number: int, prefix: str) -> Iterator[list[int]]:
    """So many open watches of everything, read by one thread; how many bytes they were told."""
    deadline = time.monotonic() + 60
    keys = Keys(prefix, UNTOLD).told
    question = json.dumps({"create_request": keys}).encode()
    connections, poll, told_bytes = [], select.epoll(), [0]
    for _ in range(number):
        one = Connection(parse_endpoint(OwnEtcd.url), None, deadline)
        one.start("/v3/watch", question, "", deadline)
        connections.append(one)
    by_number = {one._socket.fileno(): one._socket for one in connections}
    for descriptor in by_number:
        poll.register(descriptor, select.EPOLLIN)
    ending = threading.Event()

    def read() -> None:
        while not ending.is_set():
            for descriptor, _ in poll.poll(0.05):
                told_bytes[0] += len(by_number[descriptor].recv(1 << 16))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield told_bytes
    finally:
        ending.set()
        reader.join()
        for one in connections:
            one.close()


def fan_out(number: int, commits: int, *, elsewhere: bool) -> None:
    """What each watcher costs etcd, at rest and for each commit that it is told."""
    with OwnEtcd("/run") as etcd:
        alone = _commit_cpu(etcd, commits)
        show("a claim and a release, nobody watching: etcd's processor time", alone, "ms")
        memory = etcd.memory_kib()
        with watchers(number, "/elsewhere/" if elsewhere else "/fan/") as told_bytes:
            show(f"{number} watchers{' of others' if elsewhere else ''}: etcd's memory for one",
                 (etcd.memory_kib() - memory) / number, "KiB")  # fmt: skip
            cpu = _commit_cpu(etcd, commits, told_bytes)
            show("…, processor time to tell one a commit", (cpu - alone) / 2 / number, "ms")
            show(
                "…, bytes to tell one a claim and a release", told_bytes[0] / commits / number, "B"
            )


def _commit_cpu(etcd: OwnEtcd, commits: int, told_bytes: list[int] | None = None) -> float:
    made = [endpoint(number) for number in range(commits)]
    with etcd.store("/fan/") as store:
        cpu = etcd.cpu_ms()
        for one in made:
            store.commit(claim(one))
            store.commit(release(one))
        last = -1
        while told_bytes is not None and last != told_bytes[0]:  # until all of it was told
            last = told_bytes[0]
            time.sleep(0.2)
        return (etcd.cpu_ms() - cpu) / commits


def keeping_alive(etcd: OwnEtcd, number: int) -> None:
    """What a host costs that does nothing but live."""
    with etcd.store("/alive/") as store:
        memory = etcd.memory_kib()
        leases = [store.grant(60) for _ in range(number)]
        for node, lease in enumerate(leases):
            store.leased(lease).commit(Commit(put={f"alive/{node:064x}": "1"}))
        show("a lease with one key: etcd's memory", (etcd.memory_kib() - memory) / number, "KiB")
        for name, work in (("keep one alive", store.keep_alive), ("ask for news", _news(store))):
            cpu = etcd.cpu_ms()
            for lease in leases:
                work(lease)
            show(f"{name}: etcd's processor time", (etcd.cpu_ms() - cpu) / number, "ms")


def _news(store: Store) -> Callable[[int], object]:
    return lambda _: store.revision()


def main() -> None:
    """Measure all, or what is named."""
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=__doc__)
    parser.add_argument("--disk", default=".", help="where a disk is to be measured")
    parser.add_argument("parts", nargs="*", help="latency, told, records, watchers, alive, kernel")
    asked = parser.parse_args()
    throwaway.enter(keep=[])
    parts = asked.parts or ["latency", "told", "records", "watchers", "alive", "kernel"]
    if "latency" in parts:
        for folder in (asked.disk, "/run"):
            with OwnEtcd(folder) as etcd:
                latency(etcd, folder)
    with OwnEtcd("/run") as etcd:
        if "told" in parts:
            told(etcd)
        if "records" in parts:
            records(etcd, 5000)
    if "watchers" in parts:
        fan_out(100, 200, elsewhere=False)
        fan_out(400, 100, elsewhere=False)
        fan_out(400, 100, elsewhere=True)
    if "alive" in parts:
        with OwnEtcd("/run") as etcd:
            keeping_alive(etcd, 2000)
    if "kernel" in parts:
        kernel_entries.measure(show)


if __name__ == "__main__":
    main()
