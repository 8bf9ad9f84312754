"""Whatever is asked for, `Net` either does it or raises a NetError, and then nothing changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netlib import Net, built_in
from netlib.errors import InvalidName, NetError, StoreError
from netlib.kernel.fake import FakeKernel
from netlib.store import Commit
from netlib.store.memory import MemoryStore
from netlib.verbs.create import ensure_built_in

SUBNET = "192.0.2.0/24"
# What people mistype, and what breaks parsers.
JUNK = st.one_of(
    st.text(max_size=12),
    st.text("0123456789./:-abcdef[]%,= ", max_size=24),
    st.sampled_from([
        "", " ", "\0", "-", "--", "/", "..", "host", "default", "none", "\N{SNOWMAN}", "a" * 300,
        "0", "-1", "1e9", "99999999999999999999", "true", "None",
        "192.0.2.0/24", "192.0.2.0/33", "192.0.2.1", "192.0.2.255", "192.0.2.0", "0.0.0.0/0",
        "0.0.0.0", "255.255.255.255", "127.0.0.1", "224.0.0.1", "::", "::1", "::/0", "fe80::1",
        "fe80::1%eth0", "ff02::1", "2001:db8::/64", "2001:db8::1/128", "::ffff:192.0.2.1",
        "198.51.100.0/31", "198.51.100.0/32", "2001:db8::/127", "192.0.2.9-192.0.2.3", "10-20",
        "80", "0:80", "80:0", "65536:80", "8080:80/tcp", "8080:80/icmp", "1-3:5-6", "3-1:80",
        "[::1]:80:80", "[::1:80", "1.2.3.4:80", "a:b:c:d", ":80", "80:", "::80", "/tcp",
        "eth0", "lo", "all", "eth0.7", "a" * 16, "\N{BLACK HEART SUIT}" * 6,
        "02:00:5e:00:53:01", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "pid:0", "pid:-1", "pid:x",
        "netns:", "netns:..", "netns:a\0b", "docker:", "x:y", "mtu",
        "net.ipv4.conf.eth0.rp_filter=1",
    ]),
)  # fmt: skip
LISTS = st.lists(JUNK, max_size=2)
PAIRS = st.dictionaries(JUNK, JUNK, max_size=2)
OPTIONS = st.dictionaries(
    st.one_of(
        JUNK,
        st.sampled_from([
            "mtu", "bridge.name", "icc", "masquerade", "isolate", "gateway_mode", "routes",
            "host_binding_ipv4", "outbound_ipv4", "outbound_ipv6", "iface_prefix", "metric",
            "sysctls", "host_interface_name", "hairpin", "no_default_route", "dns",
        ]),
    ),
    JUNK,
    max_size=2,
)  # fmt: skip

VERBS: dict[str, st.SearchStrategy[Callable[[Net], object]]] = {
    "create": st.builds(
        lambda name, kw: lambda net: net.create(name, **kw),
        JUNK,
        st.fixed_dictionaries({}, optional={
            "driver": JUNK, "subnets": LISTS, "gateways": LISTS, "ip_ranges": LISTS,
            "aux_addresses": PAIRS, "options": OPTIONS, "labels": PAIRS, "records": LISTS,
            "servers": LISTS,
            "ipv4": st.booleans(), "ipv6": st.booleans(), "internal": st.booleans(),
        }),
    ),
    "connect": st.builds(
        lambda network, sandbox, kw: lambda net: net.connect(network, sandbox, **kw),
        st.just("front") | JUNK,
        st.just("db") | JUNK,
        st.fixed_dictionaries({}, optional={
            "publish": LISTS, "addresses": LISTS, "mac": JUNK, "aliases": LISTS, "links": PAIRS,
            "ifname": JUNK, "options": OPTIONS,
        }),
    ),
    "publish": st.builds(
        lambda box, ports: lambda net: net.publish(box, ports), st.just("web") | JUNK, LISTS
    ),
    "unpublish": st.builds(
        lambda box, ports: lambda net: net.unpublish(box, ports), st.just("web") | JUNK, LISTS
    ),
    "update": st.builds(
        lambda network, kw: lambda net: net.update(network, **kw),
        st.just("front") | JUNK,
        st.fixed_dictionaries({}, optional={
            "options": OPTIONS, "labels": PAIRS, "subnets": LISTS, "gateways": LISTS,
            "ip_ranges": LISTS, "aux_addresses": PAIRS, "add_servers": LISTS,
            "drop_servers": LISTS,
        }),
    ),
    "disconnect": st.builds(
        lambda network, box: lambda net: net.disconnect(network, box), JUNK, JUNK
    ),
    "remove": st.builds(lambda network: lambda net: net.remove(network), JUNK),
    "prune": st.builds(lambda filters: lambda net: net.prune(filters), LISTS),
    "inspect": st.builds(lambda network: lambda net: net.inspect(network), JUNK),
    "check": st.builds(lambda target: lambda net: net.check(target), JUNK),
    "listing": st.builds(lambda filters: lambda net: net.listing(filters), LISTS),
    "create_sandbox": st.builds(
        lambda name, labels: lambda net: net.create_sandbox(name, labels=labels), JUNK, PAIRS
    ),
    "remove_sandbox": st.builds(lambda name: lambda net: net.remove_sandbox(name), JUNK),
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_bad_input_is_a_net_error_and_changes_nothing(verb: str) -> None:
    """Never ValueError, KeyError or the like; the message says something, and check is clean."""

    @settings(max_examples=150)
    @given(VERBS[verb])
    def holds(act: Callable[[Net], object]) -> None:
        kernel, store = FakeKernel(), MemoryStore()
        with Net(store=store, kernel=kernel) as net:
            net.create("front", subnets=[SUBNET, "2001:db8:a::/64"])
            for name in ("web", "db"):
                net.create_sandbox(name)
            net.connect("front", "web", publish=["8081:80"])
            for name in built_in.NAMES:  # made by whoever names one first, and there for good
                ensure_built_in(net.engine, name)
            before, there = store.range(" ", "~"), kernel.marked()
            error = error_of(net, act)
            if error is not None:
                assert error.message
                assert error.exit_status
                assert (store.range(" ", "~"), kernel.marked()) == (before, there)
            assert net.check() == ()

    holds()


def error_of(net: Net, act: Callable[[Net], object]) -> NetError | None:
    """The error of netlib's that it raises, if any; others come through."""
    try:
        act(net)
    except NetError as error:
        return error
    return None


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", "null", '{"network":{},"wiring":[]}'])
@pytest.mark.parametrize("folder", ["network/", "endpoint/", "sandbox/", "host/identity"])
def test_a_damaged_record_is_a_store_error(folder: str, damage: str) -> None:
    """That shows what can't be read, and how to go on."""
    store = MemoryStore()
    kernel = FakeKernel()
    with Net(store=store, kernel=kernel) as net:
        net.create("front", subnets=[SUBNET])
        net.create_sandbox("web")
        net.connect("front", "web")
    (record, *_) = store.range(folder, folder + "~")
    store.commit(Commit(put={record.key: damage}))
    with Net(store=store, kernel=kernel) as net:
        verbs = [net.collect_garbage, lambda: net.disconnect("front", "web")]
        if folder != "sandbox/":
            verbs += [net.check, net.repair, lambda: net.remove("front")]
        for verb in verbs:
            with pytest.raises(StoreError, match="can't be read") as caught:
                verb()
            assert caught.value.hint


@pytest.mark.parametrize("alias", ["a" * 64, "a..b", "db.", f"x.{'a' * 64}"])
def test_an_alias_that_dns_has_no_room_for_is_refused(alias: str) -> None:
    """It would be known nowhere."""
    with Net(store=MemoryStore(), kernel=FakeKernel()) as net:
        net.create("front", subnets=[SUBNET])
        net.create_sandbox("db")
        with pytest.raises(InvalidName, match="for an alias"):
            net.connect("front", "db", aliases=["sql", alias])
        assert net.check() == ()
