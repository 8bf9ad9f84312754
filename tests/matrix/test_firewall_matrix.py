"""The long matrix: the whole table, every backend, br_netfilter on and off, foreign firewalls.

Foreign firewalls are imitated by the rules that they make.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.firewall_host import FirewallHost, firewall_host, network_nouns
from support.firewalls import BACKENDS, firewall
from support.foreign import FOREIGN, ForeignFirewall
from support.reach import Probe, differences
from support.who_reaches_what import probes

from netlib.kernel.netfilter.detect import foreign, settle
from netlib.kernel.netfilter.iptables import Iptables
from netlib.kernel.netfilter.nftables import Nftables
from netlib.plan import Create, Ensure
from netlib.wiring import FirewallBase

pytestmark = [pytest.mark.kernel, pytest.mark.matrix]

Backend = Nftables | Iptables


@contextmanager
def ruled(made: FirewallHost, name: str) -> Iterator[Backend]:
    """A backend that rules the host."""
    with firewall(name, made.host.state_dir) as backend:
        backend.do([Ensure(FirewallBase())])
        backend.do([Create(noun) for noun in network_nouns()])
        yield backend


def ours(made: FirewallHost) -> list[Probe]:
    """The table without what has nothing to do with us: a foreign firewall may refuse it."""
    return [
        probe
        for probe in probes(made)
        if "that is not ours" not in probe.name
        and not (probe.source.name == "x1" and probe.name.startswith("out,"))
    ]


@pytest.mark.parametrize("bridge_netfilter", [False, True], ids=["plain", "br_netfilter"])
@pytest.mark.parametrize("name", BACKENDS)
def test_alone(name: str, bridge_netfilter: bool) -> None:
    """The whole table, and no obstacle is seen where there is none."""
    with firewall_host(bridge_netfilter=bridge_netfilter) as made, ruled(made, name) as backend:
        assert differences(probes(made)) == []
        assert settle(backend, made.host.state_dir) == []
        assert differences(probes(made)) == []


@pytest.mark.parametrize("bridge_netfilter", [False, True], ids=["plain", "br_netfilter"])
@pytest.mark.parametrize("other", FOREIGN, ids=str)
@pytest.mark.parametrize("name", BACKENDS)
def test_beside_a_foreign_firewall(
    name: str, other: ForeignFirewall, bridge_netfilter: bool
) -> None:
    """Once its rule for our mark is there, the whole table holds."""
    with firewall_host(bridge_netfilter=bridge_netfilter) as made:
        other.set_up(made.host)
        with ruled(made, name) as backend:
            if name.startswith("iptables") and other.before_iptables:
                assert differences(ours(made), patience=0.4) != []
                return
            _pass(made, backend, other)

            assert differences(ours(made)) == []


@pytest.mark.parametrize("other", FOREIGN, ids=str)
def test_a_foreign_firewall_that_comes_later(other: ForeignFirewall) -> None:
    """nftables: our chains see packets first, whoever came first. The next Ensure passes it."""
    with firewall_host() as made, ruled(made, "nftables") as backend:
        assert differences(probes(made)) == []
        other.set_up(made.host)
        assert differences(ours(made), patience=0.4) != []

        _pass(made, backend, other)

        assert differences(ours(made)) == []


def _pass(made: FirewallHost, backend: Backend, other: ForeignFirewall) -> None:
    """Do what we may, and for the owner what we told him."""
    same = isinstance(backend, Iptables) and backend.variant == other.variant
    with foreign(backend) as chains:
        seen = chains.obstacles()
    assert bool(seen) != same, "an iptables chain behind our own jump is no obstacle"
    left = settle(backend, made.host.state_dir)
    assert bool(left) == other.owner
    for obstacle in left:
        assert not obstacle.ours_to_set
        for rule in obstacle.rules:
            made.host.run(*shlex.split(rule))
    assert settle(backend, made.host.state_dir) == []
    with foreign(backend) as chains:
        assert chains.obstacles() == []
