"""Several processes and threads on one state: whatever the order, nothing clashes or is lost."""

from __future__ import annotations

import os
import random
import sys
import threading
import traceback
from pathlib import Path

import pytest
from support.host import Host

from netlib import Net
from netlib.errors import Conflict, Exhausted, NamespaceGone, NetError, NotFound
from netlib.store import under

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(200)]
NETWORKS, SANDBOXES = ("front", "back", "side"), ("a", "b", "c", "d")
# What Ensure makes: with iptables our chains, in tables of the system's.
RESIDUE = [r"^nft table (inet netlib|ip6? (filter|nat|mangle|raw))", r"^sysctl .*forwarding=1"]
PROCESSES, VERBS = 6, 10


def do_something(net: Net, choice: random.Random) -> None:
    """One verb of all, on things of all."""
    network, box = choice.choice(NETWORKS), choice.choice(SANDBOXES)
    port = f"{choice.randrange(8000, 8004)}:80"
    verb = choice.choice(
        ["create", "remove", "connect", "connect", "connect", "disconnect", "publish",
         "unpublish", "update", "repair", "gc", "check", "box", "rmbox"]
    )  # fmt: skip
    match verb:
        case "create":
            net.create(network, ipv6=choice.random() < 0.5)
        case "remove":
            net.remove(network, force=choice.random() < 0.5)
        case "connect":
            net.connect(network, box, publish=[port] if choice.random() < 0.5 else [])
        case "disconnect":
            net.disconnect(network, box)
        case "publish":
            net.publish(box, [port])
        case "unpublish":
            net.unpublish(box, ["80"])
        case "update":
            net.update(network, options={"icc": choice.choice(["true", "false"])})
        case "repair":
            assert [(f.subject, str(e)) for f, e in net.repair().failed] == []
        case "gc":
            net.collect_garbage()
        case "check":
            net.check()
        case "box":
            net.create_sandbox(box)
        case "rmbox":
            net.remove_sandbox(box)


def work(state_dir: Path, seed: int) -> None:
    """Some verbs; that things are taken, gone or in use is what others may bring about."""
    choice = random.Random(seed)
    with Net(state_dir) as net:
        for _ in range(VERBS):
            try:
                do_something(net, choice)
            except (Conflict, NotFound, Exhausted):
                continue
            except NetError as error:
                if not is_others(error):
                    raise


def is_others(error: BaseException) -> bool:
    """A sandbox ended, or a network is being made or removed at this moment."""
    hint = error.hint if isinstance(error, NetError) else ""
    return isinstance(error, NamespaceGone) or "net repair" in hint


def in_processes(state_dir: Path, seeds: list[int]) -> list[int]:
    """The seeds of those that failed."""
    children: dict[int, int] = {}
    for seed in seeds:
        child = os.fork()
        if not child:
            status = 1
            try:
                work(state_dir, seed)
                status = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            os._exit(status)
        children[child] = seed
    return [seed for child, seed in children.items() if os.waitpid(child, 0)[1]]


def is_sound(net: Net) -> None:
    """Check is clean, no address is there twice, and claims and endpoints agree."""
    assert net.check() == ()
    state = net.engine.state
    taken = [
        (e.network, a.ip) for r in state.endpoints() for e in [r.endpoint] for a in e.addresses
    ]
    assert len(set(taken)) == len(taken)
    assert len(state.store.range(*under("lease/"))) == len(taken)
    assert len(state.store.range(*under("member/"))) == len(state.endpoints())


def test_a_process_and_its_forked_child_each_hear_their_own_answers(host: Host) -> None:
    """By one Net that was used before the fork: sockets that both have would mix them up."""
    with Net(host.state_dir) as net:
        net.create("front")
        boxes = [f"box-{number}" for number in range(21)]
        for box in boxes:
            net.create_sandbox(box)
        net.connect("front", boxes.pop(), publish=["20100:80"])
        child = os.fork()
        status = 1
        try:
            for number, box in list(enumerate(boxes))[bool(child) :: 2]:
                net.connect("front", box, publish=[f"{20000 + number}:80"])
                net.disconnect("front", box)
                net.connect("front", box)
            if not child:
                net.close()
            status = 0
        finally:
            if not child:
                os._exit(status)
            failed = os.waitpid(child, 0)[1]
        assert not failed
        assert len(net.endpoints()) == len(boxes) + 1
        is_sound(net)


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize("round_", range(2))
def test_processes_that_do_anything_at_once(
    host: Host, backend: str, round_: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then check is clean without repair, and all can be removed without a trace."""
    monkeypatch.setenv("NETLIB_FIREWALL", backend)
    with Net(host.state_dir) as net:
        net.create("front")
        for name in SANDBOXES:
            net.create_sandbox(name)
    failed = in_processes(host.state_dir, [100 * round_ + n for n in range(PROCESSES)])
    assert failed == []
    with Net(host.state_dir) as net:
        is_sound(net)
        for box in net.sandboxes():
            net.remove_sandbox(box.name)
        for record in net.engine.state.networks():
            net.remove(record.network.id)
        is_sound(net)
        assert list(net.engine.kernel.marked()) == []
    assert host.leftovers(RESIDUE) == []


def test_threads_of_one_net(host: Host) -> None:
    """One object, six threads, any verbs."""
    failures: list[BaseException] = []
    with Net(host.state_dir) as net:
        net.create("front")
        for name in SANDBOXES:
            net.create_sandbox(name)

        def run(seed: int) -> None:
            choice = random.Random(seed)
            for _ in range(VERBS):
                try:
                    do_something(net, choice)
                except (Conflict, NotFound, Exhausted):
                    continue
                except BaseException as error:
                    if not is_others(error):
                        failures.append(error)

        threads = [threading.Thread(target=run, args=(1000 + n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failures == []
        is_sound(net)
